//! `strongroom_crypto::fuzzing::session` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_crypto::fuzzing::session(data));
