#![no_main]

#[path = "../../rtmp_session.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
