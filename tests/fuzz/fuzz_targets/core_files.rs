#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hypercore_fuzz::core_files::run(bytes));
