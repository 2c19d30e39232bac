//! `storm`: connect, play accepted, close, again and again.

use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use serde_json::{Value, json};

use sluicegate::proto::rtmp::client::Intent;

use crate::net::{self, ReadBuffer, wall_ns};
use crate::peer::{Peer, Target, Turn};
use crate::report::{Latency, LoopGauge, Progress, Tally, round};

/// A session that takes longer than this has failed.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// What to do.
pub struct Options {
    /// Where.
    pub target: Target,
    /// Sessions in progress at any moment.
    pub concurrency: usize,
    /// Streams behind `%d`.
    pub streams: usize,
    /// How long.
    pub run_for: Duration,
    /// No progress lines.
    pub quiet: bool,
}

#[derive(Default)]
struct Stages {
    tcp: Option<Latency>,
    handshake: Option<Latency>,
    connect: Option<Latency>,
    create_stream: Option<Latency>,
    play: Option<Latency>,
    total: Option<Latency>,
}

impl Stages {
    fn record(&mut self, peer: &Peer) {
        let s = &peer.stages;
        for (slot, from, to) in [
            (&mut self.tcp, Some(s.opened_at), s.connected_at),
            (&mut self.handshake, s.connected_at, s.handshaken_at),
            (&mut self.connect, s.handshaken_at, s.accepted_at),
            (&mut self.create_stream, s.accepted_at, s.created_at),
            (&mut self.play, s.created_at, s.started_at),
            (&mut self.total, Some(s.opened_at), s.started_at),
        ] {
            slot.get_or_insert_with(Latency::new).record_between(from, to);
        }
    }

    fn to_json(&self) -> Value {
        let of = |latency: &Option<Latency>| latency.as_ref().map_or(Value::Null, Latency::to_json);
        json!({
            "tcp": of(&self.tcp),
            "handshake": of(&self.handshake),
            "connect": of(&self.connect),
            "create_stream": of(&self.create_stream),
            "play": of(&self.play),
            "total": of(&self.total),
        })
    }
}

/// Runs for the time given.
pub fn run(options: &Options) -> io::Result<Value> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(4_096);
    let mut buffer = ReadBuffer::new();
    let mut slots: Vec<Option<Peer>> = (0..options.concurrency).map(|_| None).collect();
    let mut stages = Stages::default();
    let mut failures = Tally::default();
    let (mut done, mut opened) = (0u64, 0u64);
    let mut gauge = LoopGauge::start();
    let mut progress = Progress::new(options.quiet);
    let began = Instant::now();
    let began_ns = wall_ns();
    let mut next_sweep = began;
    let mut done_before = 0;
    while began.elapsed() < options.run_for && !net::is_stopped() {
        let now = Instant::now();
        if now >= next_sweep {
            next_sweep = now + Duration::from_millis(100);
            for (index, slot) in slots.iter_mut().enumerate() {
                if let Some(peer) = slot.take_if(|p| now.duration_since(p.stages.opened_at) > SESSION_TIMEOUT) {
                    failures.add("timeout");
                    peer.close(poll.registry());
                }
                if slot.is_none() {
                    *slot = reopen(poll.registry(), options, index, &mut opened, &mut failures);
                }
            }
        }
        if let Err(error) = poll.poll(&mut events, Some(Duration::from_millis(50)))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        gauge.on_turn(Instant::now());
        for event in &events {
            let index = event.token().0;
            let Some(slot) = slots.get_mut(index) else { continue };
            let Some(peer) = slot else { continue };
            match peer.handle_event(event, &mut buffer, |_| {}) {
                Turn::Open if !peer.is_started() => continue,
                Turn::Open => {
                    done += 1;
                    stages.record(peer);
                }
                Turn::Closed => failures.add("closed by the server"),
                Turn::Failed(why) => failures.add(why),
            }
            if let Some(peer) = slot.take() {
                peer.close(poll.registry());
            }
            *slot = reopen(poll.registry(), options, index, &mut opened, &mut failures);
        }
        let now = Instant::now();
        gauge.on_turn_end(now);
        progress.tick(now, || {
            let rate = (done - done_before) as f64 / 2.0;
            done_before = done;
            format!("{done} sessions, {rate:.0} a second, {} failed", failures.total())
        });
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(json!({
        "scenario": "storm",
        "concurrency": options.concurrency,
        "window": { "start_ns": began_ns, "end_ns": wall_ns(), "seconds": round(seconds) },
        "sessions": done,
        "sessions_per_second": round(done as f64 / seconds),
        "opened": opened,
        "failures": failures.to_json(),
        "stages_ms": stages.to_json(),
        "generator": gauge.to_json(),
    }))
}

/// A failure to open leaves the slot empty until the next sweep, so that running out of ports is no busy loop.
fn reopen(
    registry: &mio::Registry,
    options: &Options,
    index: usize,
    opened: &mut u64,
    failures: &mut Tally,
) -> Option<Peer> {
    match Peer::open(registry, Token(index), &options.target, Intent::Play, index % options.streams.max(1)) {
        Ok(peer) => {
            *opened += 1;
            Some(peer)
        }
        Err(error) => {
            failures.add(format!("open: {error}"));
            None
        }
    }
}
