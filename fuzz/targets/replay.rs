#![no_main]

#[allow(dead_code, unused_imports)]
#[path = "../claims/mod.rs"]
mod claims;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| claims::replay(bytes));
