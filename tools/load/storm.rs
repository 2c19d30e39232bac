//! `storm`: connect, play accepted, close, again and again; as fast as it goes, or so many a second.
//!
//! At a rate, each session has the moment at which it should begin, and its time counts from there. What a busy server,
//! or this generator, makes begin later has waited for that long: nothing is omitted when things stall.

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
    /// Sessions in progress at any moment; at a rate, the most.
    pub concurrency: usize,
    /// Sessions begun in a second, each with a number of its own behind `%d`; as fast as it goes without it.
    pub rate: Option<f64>,
    /// How long the storm blows before anything is measured.
    pub warm_up: Duration,
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
    from_due: Option<Latency>,
    late: Option<Latency>,
}

impl Stages {
    fn record(&mut self, peer: &Peer, due_at: Option<Instant>) {
        let s = &peer.stages;
        for (slot, from, to) in [
            (&mut self.tcp, Some(s.opened_at), s.connected_at),
            (&mut self.handshake, s.connected_at, s.handshaken_at),
            (&mut self.connect, s.handshaken_at, s.accepted_at),
            (&mut self.create_stream, s.accepted_at, s.created_at),
            (&mut self.play, s.created_at, s.started_at),
            (&mut self.total, Some(s.opened_at), s.started_at),
            (&mut self.from_due, due_at, s.started_at),
            (&mut self.late, due_at, Some(s.opened_at)),
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
            "from_due": of(&self.from_due),
            "late": of(&self.late),
        })
    }
}

/// A session in progress.
struct Slot {
    peer: Peer,
    /// When it should have begun, where that was set.
    due_at: Option<Instant>,
}

/// The sessions in progress, and when others begin.
struct Slots<'a> {
    options: &'a Options,
    began: Instant,
    places: Vec<Option<Slot>>,
    /// Places without a session; at a rate, those that wait for their time.
    free: Vec<usize>,
    opened: u64,
    failures: Tally,
}

impl Slots<'_> {
    /// When the next session should begin; none without a rate.
    fn next_due(&self) -> Option<Instant> {
        Some(self.began + Duration::from_secs_f64(self.opened as f64 / self.options.rate?))
    }

    /// Begins what is due.
    fn begin(&mut self, registry: &mio::Registry, now: Instant) {
        while self.next_due().is_none_or(|due| due <= now)
            && let Some(index) = self.free.pop()
        {
            let due_at = self.next_due();
            let number = if self.options.rate.is_some() { self.opened as usize } else { index };
            let stream = number % self.options.streams.max(1);
            match Peer::open(registry, Token(index), &self.options.target, Intent::Play, stream) {
                Ok(peer) => self.places[index] = Some(Slot { peer, due_at }),
                Err(error) => {
                    // The place stays empty until the next sweep, so that running out of ports is no busy loop.
                    self.failures.add(format!("open: {error}"));
                    if due_at.is_none() {
                        return;
                    }
                }
            }
            self.opened += 1;
        }
    }

    /// Ends what takes too long, and finds places that are empty.
    fn sweep(&mut self, registry: &mio::Registry, now: Instant) {
        self.free.clear();
        for (index, slot) in self.places.iter_mut().enumerate().rev() {
            if let Some(late) = slot.take_if(|s| now.duration_since(s.peer.stages.opened_at) > SESSION_TIMEOUT) {
                self.failures.add("timeout");
                late.peer.close(registry);
            }
            if slot.is_none() {
                self.free.push(index);
            }
        }
    }

    /// Sessions that should have begun and have not.
    fn waiting(&self, now: Instant) -> u64 {
        let due = self.options.rate.map_or(0.0, |rate| now.duration_since(self.began).as_secs_f64() * rate);
        (due as u64).saturating_sub(self.opened)
    }
}

/// Runs for the time given.
pub fn run(options: &Options) -> io::Result<Value> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(4_096);
    let mut buffer = ReadBuffer::new();
    let mut stages = Stages::default();
    let mut done = 0u64;
    let mut gauge = LoopGauge::start();
    let mut progress = Progress::new(options.quiet);
    let began = Instant::now();
    let mut slots = Slots {
        options,
        began,
        places: (0..options.concurrency).map(|_| None).collect(),
        free: Vec::new(),
        opened: 0,
        failures: Tally::default(),
    };
    let mut measured = None;
    let mut next_sweep = began;
    let mut done_before = 0;
    while began.elapsed() < options.warm_up + options.run_for && !net::is_stopped() {
        let now = Instant::now();
        if measured.is_none() && now.duration_since(began) >= options.warm_up {
            measured = Some((now, wall_ns()));
            gauge = LoopGauge::start();
            (stages, done, done_before) = (Stages::default(), 0, 0);
        }
        if now >= next_sweep {
            next_sweep = now + Duration::from_millis(100);
            slots.sweep(poll.registry(), now);
        }
        slots.begin(poll.registry(), now);
        let patience =
            slots.next_due().filter(|_| !slots.free.is_empty()).map(|due| due.saturating_duration_since(now));
        let patience = patience.unwrap_or(Duration::MAX).min(Duration::from_millis(50));
        if let Err(error) = poll.poll(&mut events, Some(patience))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        gauge.on_turn(Instant::now());
        for event in &events {
            let index = event.token().0;
            let Some(slot) = slots.places.get_mut(index) else { continue };
            let Some(Slot { peer, due_at }) = slot else { continue };
            match peer.handle_event(event, &mut buffer, |_| {}) {
                Turn::Open if !peer.is_started() => continue,
                Turn::Open => {
                    done += 1;
                    stages.record(peer, *due_at);
                }
                Turn::Closed => slots.failures.add("closed by the server"),
                Turn::Failed(why) => slots.failures.add(why),
            }
            if let Some(Slot { peer, .. }) = slot.take() {
                peer.close(poll.registry());
            }
            slots.free.push(index);
            if options.rate.is_none() {
                slots.begin(poll.registry(), now);
            }
        }
        let now = Instant::now();
        gauge.on_turn_end(now);
        progress.tick(now, || {
            let rate = (done - done_before) as f64 / 2.0;
            done_before = done;
            format!("{done} sessions, {rate:.0} a second, {} failed", slots.failures.total())
        });
    }
    let (start, start_ns) = measured.unwrap_or((began, wall_ns()));
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({
        "scenario": "storm",
        "concurrency": options.concurrency,
        "rate": options.rate,
        "window": { "start_ns": start_ns, "end_ns": wall_ns(), "seconds": round(seconds) },
        "sessions": done,
        "sessions_per_second": round(done as f64 / seconds),
        "opened": slots.opened,
        "waiting_at_end": slots.waiting(Instant::now()),
        "failures": slots.failures.to_json(),
        "stages_ms": stages.to_json(),
        "generator": gauge.to_json(),
    }))
}
