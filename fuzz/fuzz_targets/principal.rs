//! `strongroom_core::fuzzing::principal` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_core::fuzzing::principal(data));
