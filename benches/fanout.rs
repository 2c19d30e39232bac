//! One step of fan-out: a frame is pushed, and each of a thousand players is asked what it is owed, offers
//! it, and is told that all of it went. What remains of a real step is the system call.
//!
//! Before the timings it prints the allocations of a player and frame, which are none.
#![allow(missing_docs)]

mod counting;

use std::hint::black_box;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluicegate::media::{Frame, FrameFlags, Track};
use sluicegate::names::{Name, StreamKey};
use sluicegate::stream::{Cursor, Due, Live, Package, Settings};

const PLAYERS: usize = 1_000;

struct Plain;

impl Package for Plain {
    fn package(&self, frame: &Frame, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0; 12]);
        out.extend_from_slice(&frame.payload);
    }
}

static PAYLOAD: [u8; 60_000] = [7; 60_000];

/// A stream of 2 Mbit/s, 25 pictures a second, a keyframe every two seconds; and its players.
struct FanOut {
    settings: Settings,
    start: Instant,
    live: Live,
    players: Vec<Cursor>,
    count: u64,
}

impl FanOut {
    fn new() -> Self {
        let settings = Settings::default();
        let start = Instant::now();
        let part = |text| Name::app(text).expect("a name");
        let mut live = Live::new(StreamKey::new(&part("v"), &part("a"), &part("s")), &settings, start);
        live.publisher_joined(start);
        let mut this = Self { settings, start, live, players: Vec::new(), count: 0 };
        this.push();
        this.players = (0..PLAYERS).map(|_| Cursor::join(&this.live, this.start)).collect();
        for _ in 0..1_000 {
            this.step();
        }
        this
    }

    fn push(&mut self) -> Instant {
        let flags = FrameFlags { keyframe: self.count.is_multiple_of(50), ..FrameFlags::default() };
        let len = if flags.keyframe { 60_000 } else { 9_000 };
        let frame = Frame::new(Track::Video, self.count * 40, flags, Bytes::from_static(&PAYLOAD[..len]));
        let now = self.start + Duration::from_millis(self.count * 40);
        self.live.push(now, frame, &Plain);
        self.count += 1;
        now
    }

    fn step(&mut self) -> u64 {
        let now = self.push();
        let mut frames = 0;
        for player in &mut self.players {
            let Due::Bytes(due) = player.due(&self.live, &self.settings, now) else { continue };
            let mut slices = [IoSlice::new(&[]); 16];
            let count = player.slices(&self.live, 1 << 20, &mut slices);
            black_box(&slices[..count]);
            frames += player.on_written(&self.live, due).frames;
        }
        frames
    }
}

fn fan_out(criterion: &mut Criterion) {
    let mut stage = FanOut::new();
    let before = counting::allocations();
    let began = Instant::now();
    let frames: u64 = (0..1_000).map(|_| stage.step()).sum();
    let elapsed = began.elapsed();
    let allocations = counting::allocations() - before;
    println!(
        "fan-out: {frames} deliveries, {allocations} allocations, {} ns a delivery",
        elapsed.as_nanos() / u128::from(frames.max(1))
    );
    assert_eq!((frames, allocations), (1_000 * PLAYERS as u64, 0));

    let mut group = criterion.benchmark_group("fanout");
    group.throughput(Throughput::Elements(PLAYERS as u64));
    group.bench_function("push and 1000 players", |bencher| bencher.iter(|| black_box(stage.step())));
    group.finish();
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
