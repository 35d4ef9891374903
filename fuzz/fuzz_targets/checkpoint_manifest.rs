#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| squad_hostile::checkpoint_manifest(bytes));
