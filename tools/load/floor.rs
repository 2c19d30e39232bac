//! `floor` and `drain`: what the send calls alone cost.
//!
//! The floor accepts plain connections and sends each of them the same sizes at the same times as a server would,
//! and does nothing else. Its CPU is the least that any server on these sockets can take; `drain` is its other end.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};

use crate::net::{self, ReadBuffer, Route, send, wall_ns};
use crate::report::{LoopGauge, Progress, round};
use crate::source::Source;

/// Sends go round a buffer of this size, as a server's go through its window of packaged frames: one small buffer
/// would stay in the first-level cache and flatter the floor.
const WINDOW_BYTES: usize = 4 << 20;

/// What every player is sent, over and over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// After so long the plan begins anew.
    pub period: Duration,
    /// When in the period, and how many bytes in one call.
    pub rounds: Vec<(Duration, usize)>,
}

impl Plan {
    /// One size, as often as the bitrate asks for.
    pub fn uniform(bitrate_bps: u64, write_bytes: usize) -> Self {
        let period = Duration::from_secs_f64(write_bytes as f64 * 8.0 / bitrate_bps as f64);
        Self { period, rounds: vec![(Duration::ZERO, write_bytes)] }
    }

    /// The frames of the synthetic stream as chunks of `chunk_size`, those that fall within `merge` of the first
    /// in one call; zero sends each by itself.
    pub fn frames(bitrate_bps: u64, merge: Duration, chunk_size: usize) -> Self {
        let period = Duration::from_secs(10);
        let mut source = Source::synthetic(bitrate_bps);
        let mut rounds: Vec<(Duration, usize)> = Vec::new();
        let mut first = None;
        loop {
            let due = source.peek();
            let at = Duration::from_nanos(due.offset_ns);
            if at >= period {
                break;
            }
            // A full header on the first chunk and one byte on each of the others.
            let wire_bytes = due.len + 12 + due.len.saturating_sub(1) / chunk_size;
            match (first, rounds.last_mut()) {
                (Some(since), Some((_, bytes))) if at.saturating_sub(since) < merge => *bytes += wire_bytes,
                _ => {
                    first = Some(at);
                    rounds.push((at + merge, wire_bytes));
                }
            }
            source.advance();
        }
        Self { period, rounds }
    }

    /// Lines of `offset_us size`, as a server's own writes to one player were.
    pub fn replay(path: &Path) -> io::Result<Self> {
        Self::parse_replay(&std::fs::read_to_string(path)?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a replay has lines of `offset_us size`"))
    }

    fn parse_replay(text: &str) -> Option<Self> {
        let mut rounds = Vec::new();
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            let (offset, size) = line.trim().split_once(char::is_whitespace)?;
            rounds.push((Duration::from_micros(offset.parse().ok()?), size.trim().parse().ok()?));
        }
        rounds.sort_unstable();
        let last = rounds.last()?.0;
        let step = last / u32::try_from(rounds.len().max(2) - 1).ok()?;
        Some(Self { period: last + step.max(Duration::from_micros(1)), rounds })
    }
}

/// What the floor does.
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How many connections it waits for.
    pub players: usize,
    /// What it sends.
    pub plan: Plan,
    /// How long it sends, after the last connection came.
    pub run_for: Duration,
    /// No progress lines.
    pub quiet: bool,
}

/// Accepts all players, then sends to all of them, round after round.
pub fn run(options: &Options) -> io::Result<Value> {
    let listener = TcpListener::bind(options.listen)?;
    // The standard library's backlog of 128 is too short for thousands that come at once.
    // SAFETY: the descriptor is an open listening socket; listen(2) on it again only changes the backlog.
    unsafe { libc::listen(listener.as_raw_fd(), 4_096) };
    listener.set_nonblocking(true)?;
    let mut sockets: Vec<TcpStream> = Vec::with_capacity(options.players);
    let give_up = Instant::now() + Duration::from_mins(1);
    while sockets.len() < options.players && Instant::now() < give_up && !net::is_stopped() {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(true)?;
                socket.set_nodelay(true)?;
                sockets.push(socket);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error),
        }
    }
    let longest = options.plan.rounds.iter().map(|(_, size)| *size).max().unwrap_or(0);
    let window = vec![0xa5u8; WINDOW_BYTES + longest];
    let (mut calls, mut bytes, mut full, mut gone, mut position) = (0u64, 0u64, 0u64, 0u64, 0usize);
    let mut owed = vec![0usize; sockets.len()];
    let mut late_max = Duration::ZERO;
    let mut progress = Progress::new(options.quiet);
    let cpu_before = net::thread_cpu();
    let (began, began_ns) = (Instant::now(), wall_ns());
    let mut cycle = 0u32;
    'all: loop {
        for (offset, size) in &options.plan.rounds {
            let at = options.plan.period * cycle + *offset;
            if at >= options.run_for || net::is_stopped() {
                break 'all;
            }
            let wait = at.saturating_sub(began.elapsed());
            if wait.is_zero() {
                late_max = late_max.max(began.elapsed().saturating_sub(at));
            } else {
                std::thread::sleep(wait);
            }
            for (socket, owed) in sockets.iter().zip(&mut owed) {
                if *owed == usize::MAX {
                    continue;
                }
                // What a full socket did not take goes out with the next round; a server would do the same.
                let due = (*owed + size).min(window.len() - position);
                calls += 1;
                match send(socket.as_raw_fd(), &window[position..position + due]) {
                    Ok(len) => {
                        bytes += len as u64;
                        *owed = due - len;
                        full += u64::from(len < due);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        full += 1;
                        *owed = due;
                    }
                    Err(_) => {
                        gone += 1;
                        *owed = usize::MAX;
                    }
                }
            }
            position = (position + size) % WINDOW_BYTES;
            progress.tick(Instant::now(), || format!("{calls} calls, {:.3} GB", bytes as f64 / 1e9));
        }
        cycle += 1;
    }
    let cpu = net::thread_cpu().saturating_sub(cpu_before).as_secs_f64();
    let seconds = began.elapsed().as_secs_f64();
    Ok(json!({
        "scenario": "floor",
        "players": sockets.len(),
        "window": { "start_ns": began_ns, "end_ns": wall_ns(), "seconds": round(seconds) },
        "bytes": bytes,
        "calls": calls,
        "bytes_per_call": round(bytes as f64 / calls.max(1) as f64),
        "full": full,
        "gone": gone,
        "late_max_ms": round(late_max.as_secs_f64() * 1_000.0),
        "cpu_s": round(cpu),
        "core_share": round(cpu / seconds.max(1e-9)),
        "cpu_s_per_gb": round(cpu / (bytes as f64 / 1e9).max(1e-9)),
        "us_per_call": round(cpu * 1e6 / calls.max(1) as f64),
    }))
}

/// The other end: `count` connections, everything read and thrown away.
pub fn drain(route: &Route, count: usize, run_for: Duration, discard: bool, quiet: bool) -> io::Result<Value> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(4_096);
    let mut buffer = ReadBuffer::new();
    let mut sockets = Vec::with_capacity(count);
    for index in 0..count {
        let mut socket = route.connect(index)?;
        poll.registry().register(&mut socket, Token(index), Interest::READABLE)?;
        sockets.push(Some(socket));
    }
    let mut open = count;
    let mut bytes = 0u64;
    let mut failures = crate::report::Tally::default();
    let mut gauge = LoopGauge::start();
    let mut progress = Progress::new(quiet);
    let began = Instant::now();
    while open > 0 && began.elapsed() < run_for && !net::is_stopped() {
        if let Err(error) = poll.poll(&mut events, Some(Duration::from_millis(100)))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        gauge.on_turn(Instant::now());
        for event in &events {
            let Some(slot) = sockets.get_mut(event.token().0) else { continue };
            let Some(socket) = slot else { continue };
            let fd = socket.as_raw_fd();
            loop {
                let read = if discard { buffer.discard(fd) } else { buffer.receive(fd).map(<[u8]>::len) };
                match read {
                    Ok(0) => {
                        *slot = None;
                        open -= 1;
                        break;
                    }
                    Ok(len) => {
                        bytes += len as u64;
                        if len < net::READ_BYTES && !event.is_read_closed() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        failures.add(error.to_string());
                        *slot = None;
                        open -= 1;
                        break;
                    }
                }
            }
        }
        gauge.on_turn_end(Instant::now());
        progress.tick(Instant::now(), || format!("{open} open, {:.3} GB", bytes as f64 / 1e9));
    }
    Ok(json!({
        "scenario": "drain",
        "players": count,
        "bytes": bytes,
        "failures": failures.to_json(),
        "generator": gauge.to_json(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_plan_has_the_same_bytes_in_fewer_calls() {
        let single = Plan::frames(2_000_000, Duration::ZERO, 4_096);
        let merged = Plan::frames(2_000_000, Duration::from_millis(40), 4_096);
        let bytes = |plan: &Plan| plan.rounds.iter().map(|(_, size)| size).sum::<usize>();
        assert_eq!(bytes(&single), bytes(&merged));
        assert_eq!(single.rounds.len(), 731);
        assert!((200..=260).contains(&merged.rounds.len()), "{}", merged.rounds.len());
    }

    #[test]
    fn a_replay_is_read_and_refused() {
        let plan = Plan::parse_replay("0 100\n20000 300\n10000 200\n").unwrap();
        let ms = Duration::from_millis;
        assert_eq!(plan, Plan { period: ms(30), rounds: vec![(ms(0), 100), (ms(10), 200), (ms(20), 300)] });
        assert!(Plan::parse_replay("what").is_none());
        assert!(Plan::parse_replay("").is_none());
    }
}
