//! `publish`: N encoders in one thread, each paced by its own schedule.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use serde_json::{Value, json};

use sluicegate::proto::rtmp::client::Intent;

use crate::net::{self, ReadBuffer, wall_ns};
use crate::peer::{Peer, Target, Turn};
use crate::report::{Latency, LoopGauge, Progress, Tally, round};
use crate::source::{File, Scratch, Source};

/// Publishers that wait for the socket with more than this make no new frames until it drains.
const BACKLOG_BYTES_MAX: usize = 8 << 20;

/// What to do.
pub struct Options {
    /// Where.
    pub target: Target,
    /// Number of publishers.
    pub count: usize,
    /// Bits a second of each, when synthetic.
    pub bitrate_bps: u64,
    /// An FLV file in the place of the synthetic stream.
    pub file: Option<Arc<File>>,
    /// From the first connection to the end.
    pub run_for: Duration,
    /// Connections begun in a second.
    pub join_rate: f64,
    /// No progress lines.
    pub quiet: bool,
}

struct Publisher {
    peer: Peer,
    source: Source,
    /// Wall time of the first frame; `None` before the server agreed.
    start_ns: Option<u64>,
}

/// Runs until the time is over or somebody stops it.
pub fn run(options: &Options) -> io::Result<Value> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(4_096);
    let mut buffer = ReadBuffer::new();
    let mut run = Run {
        publishers: Vec::with_capacity(options.count),
        schedule: BinaryHeap::new(),
        scratch: Scratch::default(),
        lateness: Latency::new(),
        start_time: Latency::new(),
        failures: Tally::default(),
        frames: 0,
        body_bytes: 0,
        finished_tx_bytes: 0,
        started: 0,
    };
    let mut gauge = LoopGauge::start();
    let mut progress = Progress::new(options.quiet);
    let began = Instant::now();
    let mut bytes_before = 0;
    while began.elapsed() < options.run_for && !net::is_stopped() {
        let timeout = run.timeout(options, began);
        if let Err(error) = poll.poll(&mut events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let now = Instant::now();
        gauge.on_turn(now);
        run.open_due(poll.registry(), options, began)?;
        for event in &events {
            run.on_event(poll.registry(), event, &mut buffer);
        }
        run.send_due(poll.registry());
        gauge.on_turn_end(Instant::now());
        progress.tick(now, || {
            let line = format!(
                "{} of {} publishers up, {} frames, {:.1} Mbit/s, {} failed",
                run.started,
                options.count,
                run.frames,
                (run.body_bytes - bytes_before) as f64 * 8.0 / 2e6,
                run.failures.total(),
            );
            bytes_before = run.body_bytes;
            line
        });
    }
    run.finish();
    let seconds = began.elapsed().as_secs_f64();
    let tx_bytes: u64 = run.finished_tx_bytes + run.publishers.iter().flatten().map(|p| p.peer.tx_bytes).sum::<u64>();
    Ok(json!({
        "scenario": "publish",
        "publishers": options.count,
        "started": run.started,
        "seconds": round(seconds),
        "frames": run.frames,
        "body_bytes": run.body_bytes,
        "tx_bytes": tx_bytes,
        "lateness_ms": run.lateness.to_json(),
        "connect_to_start_ms": run.start_time.to_json(),
        "failures": run.failures.to_json(),
        "generator": gauge.to_json(),
    }))
}

struct Run {
    publishers: Vec<Option<Publisher>>,
    /// When each running publisher's next frame is due, in wall nanoseconds.
    schedule: BinaryHeap<Reverse<(u64, usize)>>,
    scratch: Scratch,
    lateness: Latency,
    start_time: Latency,
    failures: Tally,
    frames: u64,
    body_bytes: u64,
    finished_tx_bytes: u64,
    started: u64,
}

impl Run {
    fn timeout(&self, options: &Options, began: Instant) -> Duration {
        let mut timeout = Duration::from_millis(200);
        if let Some(Reverse((due_ns, _))) = self.schedule.peek() {
            timeout = timeout.min(Duration::from_nanos(due_ns.saturating_sub(wall_ns())));
        }
        if self.publishers.len() < options.count {
            let next_open = Duration::from_secs_f64(self.publishers.len() as f64 / options.join_rate);
            timeout = timeout.min(next_open.saturating_sub(began.elapsed()));
        }
        timeout
    }

    fn open_due(&mut self, registry: &mio::Registry, options: &Options, began: Instant) -> io::Result<()> {
        let due = 1 + (began.elapsed().as_secs_f64() * options.join_rate) as usize;
        while self.publishers.len() < due.min(options.count) {
            let index = self.publishers.len();
            let peer = Peer::open(registry, Token(index), &options.target, Intent::Publish, index)?;
            let source = match &options.file {
                Some(file) => Source::file(Arc::clone(file)),
                None => Source::synthetic(options.bitrate_bps),
            };
            self.publishers.push(Some(Publisher { peer, source, start_ns: None }));
        }
        Ok(())
    }

    fn on_event(&mut self, registry: &mio::Registry, event: &mio::event::Event, buffer: &mut ReadBuffer) {
        let index = event.token().0;
        let Some(publisher) = self.publishers.get_mut(index).and_then(Option::as_mut) else { return };
        match publisher.peer.handle_event(event, buffer, |_| {}) {
            Turn::Open => {}
            Turn::Closed => return self.fail(registry, index, "closed by the server"),
            Turn::Failed(why) => return self.fail(registry, index, &why),
        }
        if publisher.peer.is_started() && publisher.start_ns.is_none() {
            self.started += 1;
            self.start_time.record_between(Some(publisher.peer.stages.opened_at), publisher.peer.stages.started_at);
            // Real encoders are not in step with each other: spread them over a frame, evenly.
            let phase_ns = (index as u64).wrapping_mul(0x9e37_79b9) % 1_000 * 33_333;
            let start_ns = wall_ns() + phase_ns;
            publisher.start_ns = Some(start_ns);
            if let Some(engine) = publisher.peer.engine() {
                for (type_id, body) in publisher.source.headers() {
                    engine.send(type_id, 0, &body);
                }
            }
            self.schedule.push(Reverse((start_ns, index)));
        }
    }

    fn send_due(&mut self, registry: &mio::Registry) {
        let mut now_ns = wall_ns();
        while let Some(Reverse((due_ns, index))) = self.schedule.peek().copied()
            && due_ns <= now_ns
        {
            self.schedule.pop();
            let Some(publisher) = self.publishers.get_mut(index).and_then(Option::as_mut) else { continue };
            let start_ns = publisher.start_ns.unwrap_or(now_ns);
            if publisher.peer.backlog_bytes() > BACKLOG_BYTES_MAX {
                // The frame stays due; its stamp will tell how long the server kept us waiting.
                let turn = publisher.peer.flush();
                self.schedule.push(Reverse((now_ns + 5_000_000, index)));
                self.settle(registry, index, turn);
                continue;
            }
            let due = publisher.source.peek();
            let body = publisher.source.body(&due, index as u32, start_ns, &mut self.scratch);
            if let Some(engine) = publisher.peer.engine() {
                engine.send(due.type_id, due.timestamp_ms, body);
            }
            publisher.source.advance();
            self.frames += 1;
            self.body_bytes += due.len as u64;
            let next_ns = start_ns + publisher.source.peek().offset_ns;
            self.schedule.push(Reverse((next_ns, index)));
            let turn = publisher.peer.flush();
            self.lateness.record_ns(now_ns.saturating_sub(start_ns + due.offset_ns));
            self.settle(registry, index, turn);
            now_ns = wall_ns();
        }
    }

    fn settle(&mut self, registry: &mio::Registry, index: usize, turn: Turn) {
        match turn {
            Turn::Open => {}
            Turn::Closed => self.fail(registry, index, "closed by the server"),
            Turn::Failed(why) => self.fail(registry, index, &why),
        }
    }

    fn fail(&mut self, registry: &mio::Registry, index: usize, why: &str) {
        self.failures.add(why);
        if let Some(publisher) = self.publishers[index].take() {
            self.finished_tx_bytes += publisher.peer.tx_bytes;
            publisher.peer.close(registry);
        }
    }

    /// Ends every stream in good order, as far as the sockets take the words.
    fn finish(&mut self) {
        for publisher in self.publishers.iter_mut().flatten() {
            if publisher.peer.is_started()
                && let Some(engine) = publisher.peer.engine()
            {
                engine.finish();
            }
            publisher.peer.flush();
        }
    }
}
