#![no_main]

#[path = "../../flv_tags.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
