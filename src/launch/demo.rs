//! `sluicegate demo`: a server that publishes a bundled clip to itself, with players, and a live table of it all.

use std::io::{self, IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::config::{Overrides, load};
use crate::launch::client::{Client, Session};
use crate::launch::reload::Reloader;
use crate::launch::run::{Patience, banner, start, until_ended};
use crate::launch::{Exit, table};
use crate::media::flv::FlvReader;
use crate::proto::rtmp::client::{Client as Peer, ClientEvent, Intent};
use crate::proto::rtmp::message::type_id;

/// Four seconds of H.264 and AAC.
const CLIP: &[u8] = include_bytes!("clip.flv");
/// Where the demo publishes.
const APP: &str = "demo";
const STREAM: &str = "clip";
/// How many play it.
const PLAYERS: usize = 3;
/// How often a peer looks at its socket and its clock. A frame of the clip lasts 40 ms.
const TURN: Duration = Duration::from_millis(10);
/// How long a peer waits before it comes back.
const COME_BACK: Duration = Duration::from_secs(1);
/// How often the table is printed.
const EVERY: Duration = Duration::from_secs(1);

/// Runs the demo for `time`, or until a signal.
#[must_use]
pub fn demo(overrides: &Overrides, time: Option<Duration>) -> Exit {
    let mut overrides = overrides.clone();
    // The table owns the terminal; what goes wrong still speaks.
    overrides.log_level.get_or_insert_with(|| "warn".into());
    let loaded = match load(None, &overrides, &|_| None) {
        Ok(loaded) => loaded,
        Err(refused) => {
            eprintln!("{refused}");
            return Exit::Configuration;
        }
    };
    let clip = match Clip::read(CLIP) {
        Ok(clip) => Arc::new(clip),
        Err(why) => {
            eprintln!("sluicegate: the bundled clip: {why}");
            return Exit::Internal;
        }
    };
    let reloader = Reloader::new(&loaded, false);
    let config = loaded.config;
    let (log, running) = match start(&config) {
        Ok(started) => started,
        Err(exit) => return exit,
    };
    let Some(rtmp) = running.rtmp.first().copied().map(local) else {
        eprintln!("sluicegate: the demo needs an RTMP listener");
        return Exit::Configuration;
    };
    let banner = format!("{}{}", banner(&config, &running, true), own_lines(rtmp));
    let client = match Client::new(&format!("http://{}", local(running.api)), None) {
        Ok(client) => client,
        Err(error) => {
            eprintln!("sluicegate: {error}");
            return Exit::Internal;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sluicegate: {error}");
            return Exit::Resource;
        }
    };
    let _ = io::stdout().write_all(banner.as_bytes());
    let peers = Peers::start(rtmp, &clip);
    let exit = runtime.block_on(async {
        let shown = async {
            match time {
                Some(time) => {
                    let _ = tokio::time::timeout(time, show(&client, &banner)).await;
                }
                None => show(&client, &banner).await,
            }
        };
        until_ended(running, reloader, Some(&log), Patience::default(), shown).await
    });
    peers.stop();
    exit
}

/// What the banner of a demo says beside that of a server.
fn own_lines(rtmp: SocketAddr) -> String {
    format!("  demo     rtmp://{rtmp}/{APP}/{STREAM}   (the clip, to play along)\n  end      Ctrl-C\n")
}

/// Prints the table every second, until nobody reads it.
async fn show(client: &Client, banner: &str) {
    let mut out = io::stdout();
    let clear = out.is_terminal();
    loop {
        tokio::time::sleep(EVERY).await;
        let text = match client.sessions::<Session>(&[]).await {
            Ok(sessions) => {
                let room = if clear { table::Room::below(&format!("{banner}\n")) } else { None };
                table::render_in(&sessions, room)
            }
            Err(error) => format!("{error}\n"),
        };
        let head = if clear { format!("{}{banner}\n", super::sessions::CLEAR) } else { "\n".to_owned() };
        if write!(out, "{head}{text}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

/// Where a peer on this machine finds a listener.
fn local(at: SocketAddr) -> SocketAddr {
    let mut at = at;
    if at.ip().is_unspecified() {
        at.set_ip(if at.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    at
}

/// The clip as messages, in the order they are sent.
#[derive(Debug)]
struct Clip {
    messages: Vec<Message>,
    /// From the first message of one round to the first of the next.
    length_ms: u64,
}

#[derive(Debug)]
struct Message {
    type_id: u8,
    timestamp_ms: u64,
    body: Vec<u8>,
}

/// AMF0 for the text by which a publisher tells a server to keep what follows.
const SET_DATA_FRAME: &[u8] = b"\x02\x00\x0d@setDataFrame";
/// The frame time of the clip.
const FRAME_MS: u64 = 40;

impl Clip {
    fn read(file: &[u8]) -> Result<Self, String> {
        let mut messages = Vec::new();
        for tag in FlvReader::new(file).map_err(|error| error.to_string())? {
            let tag = tag.map_err(|error| error.to_string())?;
            let mut body = Vec::new();
            if tag.type_id == type_id::DATA_AMF0 {
                body.extend_from_slice(SET_DATA_FRAME);
            }
            // A marker of the end of the sequence would end the loop's picture at its first seam.
            if tag.type_id == type_id::VIDEO && tag.body.get(1) == Some(&2) {
                continue;
            }
            body.extend_from_slice(tag.body);
            messages.push(Message { type_id: tag.type_id, timestamp_ms: tag.timestamp_ms.into(), body });
        }
        let last = messages.iter().map(|message| message.timestamp_ms).max().ok_or("it has no tags")?;
        Ok(Self { messages, length_ms: last + FRAME_MS })
    }

    /// The message number `n` of the endless loop, with its time in it.
    fn at(&self, n: usize) -> Option<(u64, &Message)> {
        let round = n.checked_div(self.messages.len())?;
        let message = self.messages.get(n % self.messages.len())?;
        Some((self.length_ms * round as u64 + message.timestamp_ms, message))
    }
}

/// The demo's own publisher and players, each with a thread.
struct Peers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Peers {
    fn start(rtmp: SocketAddr, clip: &Arc<Clip>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for number in 0..=PLAYERS {
            let (stop, clip) = (Arc::clone(&stop), (number == 0).then(|| Arc::clone(clip)));
            let name = if number == 0 { "demo-publish".to_owned() } else { format!("demo-play-{number}") };
            let run = move || come_back(rtmp, clip.as_deref(), &stop);
            match thread::Builder::new().name(name).spawn(run) {
                Ok(thread) => threads.push(thread),
                Err(error) => tracing::warn!(%error, "a peer of the demo could not be started"),
            }
        }
        Self { stop, threads }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// One peer, again and again: a kick ends it for a second, so that one can watch it leave and return.
fn come_back(rtmp: SocketAddr, clip: Option<&Clip>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = peer(rtmp, clip, stop) {
            tracing::debug!(%error, "a peer of the demo was ended");
        }
        let since = Instant::now();
        while since.elapsed() < COME_BACK && !stop.load(Ordering::Relaxed) {
            thread::sleep(TURN);
        }
    }
}

/// One connection of one peer: publishes `clip`, or plays when there is none.
fn peer(rtmp: SocketAddr, clip: Option<&Clip>, stop: &AtomicBool) -> io::Result<()> {
    let mut socket = TcpStream::connect(rtmp)?;
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    let intent = if clip.is_some() { Intent::Publish } else { Intent::Play };
    let mut client = Peer::new(&format!("rtmp://{rtmp}/{APP}"), APP, STREAM, intent);
    let mut buffer = vec![0; 64 << 10];
    let mut started: Option<Instant> = None;
    let mut sent = 0;
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        receive(&mut socket, &mut client, &mut buffer)?;
        while let Some(event) = client.poll_event() {
            match event {
                ClientEvent::Started => started = started.or_else(|| Some(Instant::now())),
                ClientEvent::Refused(code, text) => return Err(io::Error::other(format!("{code}: {text}"))),
                ClientEvent::Message(_) | ClientEvent::Ended | ClientEvent::Status(_) => {}
            }
        }
        if let (Some(clip), Some(started)) = (clip, started) {
            let now_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            while let Some((time, message)) = clip.at(sent).filter(|(time, _)| *time <= now_ms) {
                client.send(message.type_id, time, &message.body);
                sent += 1;
            }
        }
        if stopping {
            client.finish();
        }
        send(&mut socket, client.output())?;
        if stopping {
            return Ok(());
        }
        thread::sleep(TURN);
    }
}

/// Reads what is there.
fn receive(socket: &mut TcpStream, client: &mut Peer, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match socket.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                client.handle_bytes(Instant::now(), bytes).map_err(io::Error::other)?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes what the socket takes; the rest waits for the next turn.
fn send(socket: &mut TcpStream, output: &mut Vec<u8>) -> io::Result<()> {
    while !output.is_empty() {
        match socket.write(output) {
            Ok(count) => drop(output.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clip_loops_with_time_that_never_goes_back_a_round() {
        let clip = Clip::read(CLIP).unwrap();
        let count = clip.messages.len();
        assert!((3_900..4_200).contains(&clip.length_ms), "{}", clip.length_ms);
        let time = |n| clip.at(n).unwrap().0;
        assert_eq!(time(count), time(0) + clip.length_ms);
        assert!(time(count) > time(count - 1));
        assert!(time(10 * count + 5) == time(5) + 10 * clip.length_ms);
    }

    #[test]
    fn metadata_is_sent_as_publishers_send_it() {
        let clip = Clip::read(CLIP).unwrap();
        let data = clip.messages.iter().find(|message| message.type_id == type_id::DATA_AMF0).unwrap();
        assert!(data.body.starts_with(b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonMetaData"));
        assert_eq!(SET_DATA_FRAME.len(), 3 + 13);
    }

    #[test]
    fn the_banner_names_the_stream_of_the_demo_and_how_it_ends() {
        let lines = own_lines("127.0.0.1:1935".parse().unwrap());
        assert!(lines.contains("rtmp://127.0.0.1:1935/demo/clip") && lines.contains("Ctrl-C"), "{lines}");
    }

    #[test]
    fn a_cut_clip_is_refused() {
        assert!(Clip::read(&CLIP[..CLIP.len() / 2]).is_err());
        assert!(Clip::read(b"").is_err());
    }
}
