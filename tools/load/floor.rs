//! `floor`: what the send calls alone cost.
//!
//! The floor lets `play` in with the engine's own words and from then on sends each player the bytes of one synthetic
//! stream, round after round: no session, no queue, no look at what players say. Its sockets have the options of the
//! server's, its players are the server's players, and its rounds are as far apart as it is told. What a server costs
//! above it in the same place is the server; what it costs itself is the kernel.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use sluicegate::io::tcp;
use sluicegate::proto::rtmp::Settings;
use sluicegate::proto::rtmp::chunk::write_message;
use sluicegate::proto::rtmp::message::type_id;
use sluicegate::proto::rtmp::server::{PLAY_STREAM_ID, Server, ServerEvent};

use crate::net::{self, ReadBuffer, send, wall_ns};
use crate::report::{Progress, round};
use crate::source::{Scratch, Source};

/// The stream goes round a buffer of this size, as a server's goes through its window of packaged frames: one small
/// buffer would stay in the first-level cache and flatter the floor.
const WINDOW_BYTES: usize = 4 << 20;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4_096;

/// What the floor does.
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Bits a second of the stream.
    pub bitrate_bps: u64,
    /// From the beginning of one round to that of the next, at least; zero sends each frame by itself.
    pub every: Duration,
    /// How long it runs unless it is stopped.
    pub run_for: Duration,
    /// No progress lines.
    pub quiet: bool,
}

/// A player on its way in.
struct Joining {
    socket: TcpStream,
    engine: Box<Server>,
}

/// A player.
struct Player {
    socket: TcpStream,
    /// The next byte of the stream that it gets.
    at: u64,
}

/// Serves until the time is over or somebody stops it.
pub fn run(options: &Options) -> io::Result<Value> {
    let listener = TcpListener::from(tcp::bind(options.listen, BACKLOG)?);
    listener.set_nonblocking(true)?;
    // The kernel counts references to descriptors that threads share, and every server that uses more than one core in
    // one process pays for that with each call.
    std::thread::spawn(std::thread::park);
    let settings = Arc::new(Settings::default());
    let mut source = Source::synthetic(options.bitrate_bps);
    let mut scratch = Scratch::default();
    let mut window = Window::new();
    let mut packaged = Vec::new();
    let mut buffer = ReadBuffer::new();
    let mut joining: Vec<Joining> = Vec::new();
    let mut players: Vec<Player> = Vec::new();
    let (mut calls, mut bytes, mut full, mut gone, mut rounds) = (0u64, 0u64, 0u64, 0u64, 0u64);
    let mut progress = Progress::new(options.quiet);
    let (began, start_ns) = (Instant::now(), wall_ns());
    let mut last_round = Duration::ZERO;
    loop {
        let at = Duration::from_nanos(source.peek().offset_ns).max(last_round + options.every);
        std::thread::sleep(at.saturating_sub(began.elapsed()));
        if began.elapsed() >= options.run_for || net::is_stopped() {
            break;
        }
        last_round = began.elapsed();
        while let Ok((socket, _)) = listener.accept() {
            socket.set_nonblocking(true)?;
            joining.push(Joining { socket, engine: Box::new(Server::new(&settings, Instant::now())) });
        }
        // All that has come due goes out together.
        while Duration::from_nanos(source.peek().offset_ns) <= last_round {
            let due = source.peek();
            packaged.clear();
            let body = source.body(&due, 0, start_ns, &mut scratch);
            package(&mut packaged, &settings, due.type_id, due.timestamp_ms, body);
            window.push(&packaged);
            source.advance();
        }
        players.retain_mut(|player| {
            while player.at < window.end {
                let Some(due) = window.from(player.at) else {
                    gone += 1;
                    return false;
                };
                calls += 1;
                match send(player.socket.as_raw_fd(), due) {
                    Ok(len) => {
                        bytes += len as u64;
                        player.at += len as u64;
                        if len < due.len() {
                            // What a full socket did not take goes out with the next round.
                            full += 1;
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        full += 1;
                        break;
                    }
                    Err(_) => {
                        gone += 1;
                        return false;
                    }
                }
            }
            true
        });
        let mut index = 0;
        while let Some(one) = joining.get_mut(index) {
            match let_in(one, &mut buffer, &source, &settings) {
                Ok(false) => index += 1,
                Ok(true) => {
                    let socket = joining.swap_remove(index).socket;
                    players.push(Player { socket, at: window.end });
                }
                Err(_) => drop(joining.swap_remove(index)),
            }
        }
        rounds += 1;
        progress
            .tick(Instant::now(), || format!("{} players, {calls} calls, {:.3} GB", players.len(), bytes as f64 / 1e9));
    }
    Ok(json!({
        "scenario": "floor",
        "players": players.len(),
        "seconds": round(began.elapsed().as_secs_f64()),
        "rounds": rounds,
        "bytes": bytes,
        "calls": calls,
        "bytes_per_call": round(bytes as f64 / calls.max(1) as f64),
        "full": full,
        "gone": gone,
    }))
}

/// Goes one step with a newcomer; true once it plays and has the headers.
fn let_in(one: &mut Joining, buffer: &mut ReadBuffer, source: &Source, settings: &Settings) -> io::Result<bool> {
    let now = Instant::now();
    match buffer.receive(one.socket.as_raw_fd()) {
        Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(bytes) => one.engine.handle_bytes(now, bytes).map_err(|error| io::Error::other(error.to_string()))?,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
        Err(error) => return Err(error),
    }
    let mut plays = false;
    while let Some(event) = one.engine.poll_event() {
        match event {
            ServerEvent::Connect(_) => one.engine.accept_connect(),
            ServerEvent::Play { request, .. } => {
                one.engine.accept_play(now, request);
                plays = true;
            }
            _ => {}
        }
    }
    let output = one.engine.output();
    if plays {
        for (type_id, body) in source.headers() {
            package(output, settings, type_id, source.peek().timestamp_ms, &body);
        }
    }
    // A few kilobytes into an empty socket.
    if !output.is_empty() && send(one.socket.as_raw_fd(), output)? < output.len() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    output.clear();
    Ok(plays)
}

/// A message as the server packages it for players.
fn package(out: &mut Vec<u8>, settings: &Settings, type_id: u8, timestamp_ms: u64, body: &[u8]) {
    let chunk_stream = match type_id {
        type_id::AUDIO => 4,
        type_id::VIDEO => 6,
        _ => 5,
    };
    let chunk_size = settings.out_chunk_size as usize;
    write_message(out, chunk_size, chunk_stream, type_id, PLAY_STREAM_ID, timestamp_ms, body);
}

/// The newest bytes of the stream.
struct Window {
    ring: Box<[u8]>,
    /// Bytes that ever were.
    end: u64,
}

impl Window {
    fn new() -> Self {
        Self { ring: vec![0; WINDOW_BYTES].into_boxed_slice(), end: 0 }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = (self.end % WINDOW_BYTES as u64) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(WINDOW_BYTES - at));
            self.ring[at..at + now.len()].copy_from_slice(now);
            self.end += now.len() as u64;
            bytes = later;
        }
    }

    /// What is there from a byte on, as far as it lies in one piece; `None` when it has been written over.
    fn from(&self, at: u64) -> Option<&[u8]> {
        let behind = self.end - at;
        if behind > WINDOW_BYTES as u64 {
            return None;
        }
        let from = (at % WINDOW_BYTES as u64) as usize;
        Some(&self.ring[from..(from + behind as usize).min(WINDOW_BYTES)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_goes_round_and_forgets() {
        let mut window = Window::new();
        window.push(&vec![1; WINDOW_BYTES - 2]);
        window.push(&[2, 3, 4, 5]);
        let at = WINDOW_BYTES as u64 - 2;
        assert_eq!(window.from(at), Some(&[2, 3][..]));
        assert_eq!(window.from(at + 2), Some(&[4, 5][..]));
        assert_eq!(window.from(window.end), Some(&[][..]));
        assert_eq!(window.from(1), None);
        assert_eq!(window.from(2).map(<[u8]>::len), Some(WINDOW_BYTES - 2));
    }

    #[test]
    fn a_player_is_let_in_and_gets_the_headers() {
        use sluicegate::proto::rtmp::client::{Client, ClientEvent, Intent};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let socket = listener.accept().unwrap().0;
        socket.set_nonblocking(true).unwrap();
        let settings = Arc::new(Settings::default());
        let mut one = Joining { socket, engine: Box::new(Server::new(&settings, Instant::now())) };
        let mut engine = Client::new("rtmp://127.0.0.1/live", "live", "load", Intent::Play);
        let source = Source::synthetic(2_000_000);
        let (mut buffer, mut heard) = (ReadBuffer::new(), Vec::new());
        let mut is_in = false;
        while heard.last() != source.headers().last() {
            send(client.as_raw_fd(), engine.output()).unwrap();
            engine.output().clear();
            is_in |= let_in(&mut one, &mut buffer, &source, &settings).unwrap();
            if let Ok(bytes) = buffer.receive(client.as_raw_fd()) {
                engine.handle_bytes(Instant::now(), bytes).unwrap();
            }
            while let Some(event) = engine.poll_event() {
                if let ClientEvent::Message(message) = event {
                    heard.push((message.type_id, message.payload.to_vec()));
                }
            }
        }
        assert!(is_in);
        // The last of what a play is answered with comes before them.
        assert!(heard.ends_with(&source.headers()), "{heard:?}");
    }
}
