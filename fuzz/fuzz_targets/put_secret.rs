//! `strongroom_api::fuzzing::put_secret` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_api::fuzzing::put_secret(data));
