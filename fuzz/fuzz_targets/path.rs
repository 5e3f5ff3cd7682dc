//! `strongroom_core::fuzzing::path` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_core::fuzzing::path(data));
