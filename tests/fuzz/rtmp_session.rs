//! The server engine behind its handshake, with verdicts and owner's calls between the bytes.
//!
//! The first byte says how long a script is, the script follows, and the rest is what the peer sends. The script is
//! gone through in turn until the bytes are used up: each of its bytes feeds a piece or makes the owner do something.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::proto::rtmp::server::{Refusal, RequestId, Server, ServerEvent};
use sluicegate::proto::rtmp::{ProtocolError, Settings};

/// Length of C1 and C2.
const PACKET: usize = 1536;
/// What one call of the owner may add to the output.
const PER_CALL: usize = 1 << 10;
/// How far time goes in one run. More would let the command rate through more than the oracle for output allows.
const TIME_MAX: Duration = Duration::from_secs(2);

const REFUSAL: Refusal = Refusal { code: "NetStream.Failed", description: "No." };

/// Plays the bytes and holds the engine to its promises.
pub fn run(data: &[u8]) {
    let (script, mut rest) = match data.split_first() {
        Some((length, rest)) => rest.split_at(usize::from(length % 64).min(rest.len())),
        None => (data, data),
    };
    let mut owner = Owner::new();
    let script = if script.is_empty() { &[0xff][..] } else { script };
    for step in script.iter().cycle().take(data.len().saturating_mul(2).max(64)) {
        match step % 16 {
            0 => owner.accept(),
            1 => owner.reject(),
            2 => owner.call(|server, request, _| server.end_play(request)),
            3 => owner.call(|server, request, _| server.notify_unpublished(request, true)),
            // A verdict on a request of another time is void.
            4 => owner.call(|server, request, now| {
                let stale = RequestId { sequence: request.sequence.wrapping_add(7), ..request };
                server.accept_publish(now, stale);
                server.accept_play(now, stale);
                server.reject(stale, REFUSAL);
            }),
            5 => owner.advance(Duration::from_millis(u64::from(step / 16) * 10)),
            6 => owner.drain(),
            7 if *step == 0xf7 => owner.call(|server, _, _| server.goodbye(REFUSAL)),
            _ => {
                let length = match step / 16 {
                    15 => rest.len(),
                    length => usize::from(length) * 8 + 1,
                };
                let (piece, after) = rest.split_at(length.min(rest.len()));
                rest = after;
                owner.feed(piece);
            }
        }
        owner.check();
        if rest.is_empty() && owner.failure.is_some() {
            break;
        }
    }
    // What was left open is closed by the verdicts, and nothing contradicts itself then.
    owner.accept();
    owner.check();

    let body =
        data.split_first().map_or(data, |(length, rest)| rest.split_at(usize::from(length % 64).min(rest.len())).1);
    let (whole, single) = (replay(body, usize::MAX, None), replay(body, 1, None));
    let in_turns = replay(body, usize::MAX, Some(1));
    // A `play` is not waited for, and how much output waits is the owner's doing: these two may differ.
    let is_exempt = |(events, failure): &(Vec<ServerEvent>, Option<ProtocolError>)| {
        events.iter().any(|event| matches!(event, ServerEvent::Play { .. }))
            || matches!(failure, Some(ProtocolError::Limit(_)))
    };
    if !is_exempt(&whole) && !is_exempt(&single) {
        assert_eq!(whole, single, "whole and byte by byte");
    }
    if !is_exempt(&whole) && !is_exempt(&in_turns) {
        assert_eq!(whole, in_turns, "at once and message by message");
    }
}

/// Gives the bytes in pieces, and turns of so many messages, to an owner that says yes to everything at once.
fn replay(body: &[u8], piece: usize, turn: Option<u32>) -> (Vec<ServerEvent>, Option<ProtocolError>) {
    let mut owner = Owner::new();
    let mut events = Vec::new();
    for part in body.chunks(piece) {
        turn.inspect(|messages| owner.server.begin_turn(*messages));
        let mut outcome = owner.server.handle_bytes(owner.now, part);
        loop {
            while let Some(event) = owner.server.poll_event() {
                match &event {
                    ServerEvent::Connect(_) => owner.server.accept_connect(),
                    ServerEvent::Publish { request, .. } => owner.server.accept_publish(owner.now, *request),
                    ServerEvent::Play { request, .. } => owner.server.accept_play(owner.now, *request),
                    _ => {}
                }
                events.push(event);
            }
            outcome = outcome.and(owner.server.handle_timeout(owner.now));
            if let Err(error) = outcome {
                return (events, Some(error));
            }
            owner.server.output().clear();
            if !owner.server.has_more() {
                break;
            }
            turn.inspect(|messages| owner.server.begin_turn(*messages));
            outcome = owner.server.handle_more(owner.now);
        }
    }
    (events, None)
}

/// Who owns the engine, and what is known about it from its events alone.
struct Owner {
    server: Server,
    start: Instant,
    now: Instant,
    fed: usize,
    written: usize,
    calls: usize,
    failure: Option<ProtocolError>,
    has_connected: bool,
    connect_waits: bool,
    open: Option<Open>,
}

struct Open {
    request: RequestId,
    is_publish: bool,
    is_accepted: bool,
}

impl Owner {
    fn new() -> Self {
        let now = Instant::now();
        let server = Server::new(&Arc::new(Settings::default()), now);
        let mut owner = Self {
            server,
            start: now,
            now,
            fed: 0,
            written: 0,
            calls: 0,
            failure: None,
            has_connected: false,
            connect_waits: false,
            open: None,
        };
        let mut hello = vec![3];
        hello.resize(1 + 2 * PACKET, 0);
        owner.feed(&hello);
        owner.drain();
        owner
    }

    fn feed(&mut self, bytes: &[u8]) {
        // An honest owner stops when it is told to.
        if !self.server.wants_read() || bytes.is_empty() {
            return;
        }
        self.fed += bytes.len();
        let outcome = self.server.handle_bytes(self.now, bytes);
        self.note(outcome);
    }

    fn note(&mut self, outcome: Result<(), ProtocolError>) {
        match (self.failure, outcome) {
            (None, Err(error)) => self.failure = Some(error),
            (Some(first), outcome) => assert_eq!(outcome, Err(first), "a failure is final"),
            (None, Ok(())) => {}
        }
    }

    fn accept(&mut self) {
        self.calls += 1;
        if std::mem::take(&mut self.connect_waits) {
            self.server.accept_connect();
            self.has_connected = true;
        } else if let Some(open) = &mut self.open
            && !open.is_accepted
        {
            open.is_accepted = true;
            if open.is_publish {
                self.server.accept_publish(self.now, open.request);
            } else {
                self.server.accept_play(self.now, open.request);
            }
        }
        self.settle();
    }

    fn reject(&mut self) {
        self.calls += 1;
        if std::mem::take(&mut self.connect_waits) {
            self.server.reject_connect(REFUSAL);
        } else if let Some(open) = self.open.take_if(|open| !open.is_accepted) {
            self.server.reject(open.request, REFUSAL);
        }
        self.settle();
    }

    fn call(&mut self, call: impl FnOnce(&mut Server, RequestId, Instant)) {
        let Some(open) = &self.open else { return };
        self.calls += 1;
        let (request, was_playing) = (open.request, open.is_accepted && !open.is_publish);
        call(&mut self.server, request, self.now);
        // Only `end_play` ends, and it is quiet about it: see whether the engine still knows the request.
        if was_playing {
            let before = self.server.held_bytes();
            self.server.notify_unpublished(request, false);
            if self.server.held_bytes() == before {
                self.open = None;
            }
        }
        self.settle();
    }

    fn advance(&mut self, wait: Duration) {
        if self.now - self.start + wait > TIME_MAX {
            return;
        }
        self.now += wait;
        let outcome = self.server.handle_timeout(self.now);
        self.note(outcome);
    }

    /// Bytes that had waited may have failed; the engine asks to be called, and then says so.
    fn settle(&mut self) {
        if self.failure.is_none() && self.server.next_deadline().is_some_and(|deadline| deadline <= self.now) {
            let outcome = self.server.handle_timeout(self.now);
            self.note(outcome);
        }
    }

    fn drain(&mut self) {
        let output = self.server.output();
        self.written += output.len();
        output.clear();
    }

    fn check(&mut self) {
        while let Some(event) = self.server.poll_event() {
            match event {
                ServerEvent::Connect(_) => {
                    assert!(!self.has_connected && !self.connect_waits, "connect is asked once");
                    self.connect_waits = true;
                }
                ServerEvent::Publish { request, .. } => self.on_open(request, true),
                ServerEvent::Play { request, .. } => self.on_open(request, false),
                ServerEvent::Refused(..) => assert!(self.open.is_none(), "one role at a time"),
                ServerEvent::Ended(request) => {
                    let open = self.open.take().expect("an end has a beginning");
                    assert_eq!(open.request, request);
                }
                ServerEvent::Frame(_) => {
                    let open = self.open.as_ref().expect("a frame belongs to a publish");
                    assert!(open.is_publish && open.is_accepted);
                }
                ServerEvent::Pause(request, _)
                | ServerEvent::ReceiveAudio(request, _)
                | ServerEvent::ReceiveVideo(request, _) => {
                    let open = self.open.as_ref().expect("a wish belongs to a play");
                    assert!(!open.is_publish && open.is_accepted && open.request == request);
                }
            }
        }
        let bound = 2 * self.fed + (64 << 10) + self.calls * PER_CALL;
        let written = self.written + self.server.output().len();
        assert!(written <= bound, "{written} written for {} read", self.fed);
        assert!(self.server.held_bytes() <= bound, "{} held of {}", self.server.held_bytes(), self.fed);
    }

    fn on_open(&mut self, request: RequestId, is_publish: bool) {
        assert!(self.has_connected, "a request comes after connect");
        assert!(self.open.is_none(), "one role at a time");
        self.open = Some(Open { request, is_publish, is_accepted: false });
    }
}
