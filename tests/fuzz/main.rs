//! Fuzz targets, and a short seeded run of each.
//!
//! A target is a module with `pub fn run(data: &[u8])`, which panics when one of its oracles does not
//! hold: no panic inside, the same result for any segmentation of the same bytes, memory within twice
//! the input and 64 KiB, and a stable re-encoding where there is one. `cargo/` hands the same functions
//! to libFuzzer. Here they run over the committed corpus as it is, and then over mutations of it.
//!
//! `FUZZ_SEED` and `FUZZ_ITERATIONS` choose another run; a failure prints what brings it back.

mod amf0;
mod flv_tags;
mod hook_response;
mod jwks;
mod mutate;
mod rtmp_chunks;
mod rtmp_handshake;
mod rtmp_session;
mod token;

#[test]
fn amf0_smoke() {
    mutate::run("amf0", 20_000, amf0::run);
}

#[test]
fn flv_tags_smoke() {
    mutate::run("flv_tags", 30_000, flv_tags::run);
}

#[test]
fn jwks_smoke() {
    mutate::run("jwks", 5_000, jwks::run);
}

#[test]
fn hook_response_smoke() {
    mutate::run("hook_response", 40_000, hook_response::run);
}

#[test]
fn rtmp_chunks_smoke() {
    mutate::run("rtmp_chunks", 10_000, rtmp_chunks::run);
}

#[test]
fn rtmp_handshake_smoke() {
    // Fewer, because each computes several digests.
    mutate::run("rtmp_handshake", 2_000, rtmp_handshake::run);
}

#[test]
fn rtmp_session_smoke() {
    mutate::run("rtmp_session", 2_000, rtmp_session::run);
}

#[test]
fn token_smoke() {
    mutate::run("token", 10_000, token::run);
}
