#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hypercore_fuzz::proof::run(bytes));
