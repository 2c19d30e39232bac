//! `receiver`: a back end that answers every request with yes after a time, and says what it took itself.
//!
//! Its own time is from when a request was there whole to when its answer was given to the kernel; what a server takes
//! beyond it is the server's, the kernel's, and that of whoever shares its core.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use serde_json::{Value, json};

use crate::net::{self, ReadBuffer, send, wall_ns};
use crate::report::{Latency, LoopGauge, Progress, round};

/// A request larger than this is not from a server of ours.
const REQUEST_BYTES_MAX: usize = 4 << 20;
const LISTENER: Token = Token(usize::MAX);

/// What it does.
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How long each request waits.
    pub delay: Duration,
    /// One request for each connection.
    pub close: bool,
    /// No answers at all.
    pub silent: bool,
    /// How long it runs unless it is stopped.
    pub run_for: Duration,
    /// No progress lines.
    pub quiet: bool,
}

struct Connection {
    stream: TcpStream,
    /// Told apart from others that had its place.
    number: u64,
    /// What came and is not a whole request yet.
    input: Vec<u8>,
}

/// An answer that waits for its time.
struct Due {
    at: Instant,
    asked_at: Instant,
    place: usize,
    number: u64,
}

struct Receiver<'a> {
    options: &'a Options,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    accepted: u64,
    requests: u64,
    bytes: u64,
    malformed: u64,
    /// In the order of their time, because all wait equally long.
    dues: VecDeque<Due>,
    own: Latency,
}

/// Serves until the time is over or somebody stops it.
pub fn run(options: &Options) -> io::Result<Value> {
    let mut listener = TcpListener::bind(options.listen)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1_024);
    let mut buffer = ReadBuffer::new();
    let mut receiver = Receiver {
        options,
        connections: Vec::new(),
        free: Vec::new(),
        accepted: 0,
        requests: 0,
        bytes: 0,
        malformed: 0,
        dues: VecDeque::new(),
        own: Latency::new(),
    };
    let mut gauge = LoopGauge::start();
    let mut progress = Progress::new(options.quiet);
    let (began, start_ns) = (Instant::now(), wall_ns());
    while began.elapsed() < options.run_for && !net::is_stopped() {
        let next = receiver.dues.front().map(|due| due.at.saturating_duration_since(Instant::now()));
        let patience = next.unwrap_or(Duration::MAX).min(Duration::from_millis(100));
        if let Err(error) = poll.poll(&mut events, Some(patience))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        gauge.on_turn(Instant::now());
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    receiver.accept(poll.registry(), stream)?;
                }
            } else {
                receiver.read(event.token().0, &mut buffer);
            }
        }
        receiver.answer();
        let now = Instant::now();
        gauge.on_turn_end(now);
        progress.tick(now, || format!("{} requests over {} connections", receiver.requests, receiver.accepted));
    }
    Ok(json!({
        "scenario": "receiver",
        "window": { "start_ns": start_ns, "end_ns": wall_ns(), "seconds": round(began.elapsed().as_secs_f64()) },
        "requests": receiver.requests,
        "bytes": receiver.bytes,
        "connections": receiver.accepted,
        "malformed": receiver.malformed,
        "own_ms": receiver.own.to_json(),
        "generator": gauge.to_json(),
    }))
}

impl Receiver<'_> {
    fn accept(&mut self, registry: &Registry, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let place = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        registry.register(&mut stream, Token(place), Interest::READABLE)?;
        self.accepted += 1;
        self.connections[place] = Some(Connection { stream, number: self.accepted, input: Vec::new() });
        Ok(())
    }

    fn read(&mut self, place: usize, buffer: &mut ReadBuffer) {
        let Some(Some(connection)) = self.connections.get_mut(place) else { return };
        loop {
            match buffer.receive(connection.stream.as_raw_fd()) {
                Ok([]) => break,
                Ok(bytes) => {
                    self.bytes += bytes.len() as u64;
                    let rest = connection.input.len() + bytes.len();
                    connection.input.extend_from_slice(bytes);
                    let now = Instant::now();
                    while let Some(len) = request_len(&connection.input) {
                        if len > connection.input.len() {
                            break;
                        }
                        connection.input.drain(..len);
                        self.requests += 1;
                        if !self.options.silent {
                            let at = now + self.options.delay;
                            self.dues.push_back(Due { at, asked_at: now, place, number: connection.number });
                        }
                    }
                    if rest > REQUEST_BYTES_MAX {
                        self.malformed += 1;
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.leave(place);
    }

    /// Answers what has waited long enough.
    fn answer(&mut self) {
        let answer: &[u8] = if self.options.close {
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 14\r\n\r\n{\"allow\":true}"
        } else {
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{\"allow\":true}"
        };
        let now = Instant::now();
        while let Some(due) = self.dues.pop_front_if(|due| due.at <= now) {
            let Some(Some(connection)) = self.connections.get_mut(due.place) else { continue };
            if connection.number != due.number {
                continue;
            }
            // An answer is far smaller than any socket's buffer: one that does not fit has nobody who reads it.
            let sent = send(connection.stream.as_raw_fd(), answer);
            self.own.record(due.asked_at.elapsed());
            if self.options.close || !matches!(sent, Ok(len) if len == answer.len()) {
                self.leave(due.place);
            }
        }
    }

    /// Closing the socket takes it from the poll as well.
    fn leave(&mut self, place: usize) {
        if self.connections.get_mut(place).and_then(Option::take).is_some() {
            self.free.push(place);
        }
    }
}

/// The length of the request at the front, as soon as its headers are there; what has no length has no body.
fn request_len(input: &[u8]) -> Option<usize> {
    let head = input.windows(4).position(|four| four == b"\r\n\r\n")?;
    let length = input[..head].split(|byte| *byte == b'\n').find_map(|line| {
        let at = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..at], &line[at + 1..]);
        name.eq_ignore_ascii_case(b"content-length").then(|| std::str::from_utf8(value).ok()?.trim().parse().ok())?
    });
    Some(head + 4 + length.unwrap_or(0_usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_with_its_body() {
        assert_eq!(request_len(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n"), None);
        let whole = b"POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 3\r\n\r\nabcPOST";
        assert_eq!(request_len(whole), Some(whole.len() - 4));
        assert_eq!(request_len(b"GET / HTTP/1.1\r\n\r\n"), Some(18));
    }
}
