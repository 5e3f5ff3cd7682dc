//! `strongroom_crypto::fuzzing::envelope` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_crypto::fuzzing::envelope(data));
