//! The chunk layer: what reading a publisher and packaging a frame cost, in time and in allocations.
//!
//! The stream is that of an encoder at 2 Mbit/s: 30 pictures a second with a keyframe every two
//! seconds, and 47 audio frames a second, cut as OBS (4096), ffmpeg (60,000) and librtmp (128) cut it,
//! and read in pieces of 64 KiB as a busy receive buffer hands them out.

// `criterion_group!` makes a public function without a word on it; counts here are small.
#![allow(missing_docs, clippy::cast_precision_loss, clippy::cast_possible_truncation)]

mod counting;

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sluicegate::proto::rtmp::Settings;
use sluicegate::proto::rtmp::chunk::{Reader, write_message};
use sluicegate::proto::rtmp::message::type_id;
use sluicegate::proto::rtmp::message::write_set_chunk_size;

const CHUNK_SIZES: [u32; 3] = [128, 4096, 60_000];
const SEGMENT: usize = 64 << 10;

/// Messages of ten seconds: type, time, body.
fn ten_seconds() -> Vec<(u8, u64, Vec<u8>)> {
    let mut messages = Vec::new();
    for picture in 0..300_u64 {
        let size = if picture % 60 == 0 { 60_000 } else { 6_000 + (picture as usize * 977) % 3_000 };
        messages.push((type_id::VIDEO, picture * 1000 / 30, vec![0x5a; size]));
    }
    for sound in 0..470_u64 {
        messages.push((type_id::AUDIO, sound * 1000 / 47, vec![0xa5; 340]));
    }
    messages.sort_by_key(|(_, time, _)| *time);
    messages
}

fn as_sent(messages: &[(u8, u64, Vec<u8>)], chunk_size: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_set_chunk_size(&mut bytes, chunk_size);
    for (kind, time, body) in messages {
        write_message(&mut bytes, chunk_size as usize, u32::from(*kind) - 4, *kind, 1, *time, body);
    }
    bytes
}

/// Reads all of it and says how many messages there were.
fn read(bytes: &[u8], now: Instant) -> u64 {
    let mut reader = Reader::new(&Settings::default());
    reader.authorize();
    let mut count = 0;
    for mut segment in bytes.chunks(SEGMENT) {
        while let Some(message) = reader.poll_message(now, &mut segment).expect("a good stream") {
            black_box(message);
            count += 1;
        }
    }
    count
}

fn reading(criterion: &mut Criterion) {
    let (messages, now) = (ten_seconds(), Instant::now());
    let mut group = criterion.benchmark_group("chunk_read");
    for chunk_size in CHUNK_SIZES {
        let bytes = as_sent(&messages, chunk_size);
        let before = counting::allocations();
        let count = read(&bytes, now);
        let allocations = counting::allocations() - before;
        println!(
            "chunk_read/{chunk_size}: {:.2} allocations a message ({allocations} for {count})",
            allocations as f64 / count as f64
        );
        assert_eq!(count, messages.len() as u64);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(chunk_size), &bytes, |bench, bytes| {
            bench.iter(|| read(black_box(bytes), now));
        });
    }
    group.finish();
}

fn writing(criterion: &mut Criterion) {
    let messages = ten_seconds();
    let mut group = criterion.benchmark_group("chunk_write");
    for chunk_size in [4096, 65_536_usize] {
        let write = |out: &mut Vec<u8>| {
            for (kind, time, body) in &messages {
                out.clear();
                write_message(out, chunk_size, 4, *kind, 1, *time, black_box(body));
                black_box(&out);
            }
        };
        let mut out = Vec::with_capacity(128 << 10);
        let before = counting::allocations();
        write(&mut out);
        let allocations = counting::allocations() - before;
        println!(
            "chunk_write/{chunk_size}: {allocations} allocations for {} messages into a kept buffer",
            messages.len()
        );
        group.throughput(Throughput::Elements(messages.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(chunk_size), |bench| bench.iter(|| write(&mut out)));
    }
    group.finish();
}

criterion_group!(benches, reading, writing);
criterion_main!(benches);
