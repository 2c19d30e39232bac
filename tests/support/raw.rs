//! A player or publisher of our own over a plain socket, which counts every byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sluicegate::proto::rtmp::chunk::RawMessage;
use sluicegate::proto::rtmp::client::{Client, ClientEvent, Intent};

use super::PATIENCE;

/// One connection.
pub struct Raw {
    socket: TcpStream,
    client: Client,
    /// Bytes that came.
    pub received: u64,
    /// Bytes that went.
    pub sent: u64,
    /// Media and data messages that came.
    pub messages: Vec<RawMessage>,
    /// Codes of refusals and other statuses, in order.
    pub statuses: Vec<String>,
    /// Media may flow.
    pub started: bool,
    /// Refused, with code and description.
    pub refused: Option<(String, String)>,
    /// The stream ended.
    pub ended: bool,
    /// The server closed.
    pub closed: bool,
}

impl Raw {
    /// Connects and asks to play.
    pub fn play(server: SocketAddr, app: &str, stream: &str) -> Self {
        Self::connect(server, app, stream, Intent::Play)
    }

    /// Connects and asks to publish.
    pub fn publish(server: SocketAddr, app: &str, stream: &str) -> Self {
        Self::connect(server, app, stream, Intent::Publish)
    }

    fn connect(server: SocketAddr, app: &str, stream: &str, intent: Intent) -> Self {
        let socket = TcpStream::connect(server).expect("the server takes connections");
        socket.set_nodelay(true).unwrap();
        let client = Client::new(&format!("rtmp://{server}/{app}"), app, stream, intent);
        let mut raw = Self {
            socket,
            client,
            received: 0,
            sent: 0,
            messages: Vec::new(),
            statuses: Vec::new(),
            started: false,
            refused: None,
            ended: false,
            closed: false,
        };
        raw.flush();
        raw
    }

    /// Reads and answers for at most `time`, until `done`. False when the time ran out.
    pub fn pump_until(&mut self, time: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let deadline = Instant::now() + time;
        let mut buffer = vec![0; 64 << 10];
        while !done(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.closed {
                return done(self);
            }
            self.socket.set_read_timeout(Some(left.min(Duration::from_millis(20)))).unwrap();
            match self.socket.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(count) => {
                    self.received += count as u64;
                    self.client.handle_bytes(Instant::now(), &buffer[..count]).expect("the server speaks RTMP");
                    self.take_events();
                    self.flush();
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => self.closed = true,
            }
        }
        true
    }

    /// Waits until media may flow.
    pub fn start(mut self) -> Self {
        assert!(self.pump_until(PATIENCE, |it| it.started || it.refused.is_some()), "no answer");
        assert!(self.started, "refused: {:?}", self.refused);
        self
    }

    /// Waits until the server has closed.
    pub fn drain(&mut self) {
        assert!(self.pump_until(PATIENCE, |it| it.closed), "the server does not close");
    }

    /// Sends one message of the published stream.
    pub fn send(&mut self, type_id: u8, timestamp_ms: u64, payload: &[u8]) {
        self.client.send(type_id, timestamp_ms, payload);
        self.flush();
    }

    /// Sends one synthetic picture and one piece of sound; picture 0 is preceded by both configurations.
    pub fn send_picture(&mut self, number: u64) {
        let timestamp = number * 40;
        if number == 0 {
            self.send(
                9,
                0,
                &[
                    0x17, 0, 0, 0, 0, 1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 4, 0x67, 0x42, 0xc0, 0x1e, 1, 0, 4, 0x68,
                    0xce, 0x3c, 0x80,
                ],
            );
            self.send(8, 0, &[0xaf, 0, 0x12, 0x10]);
        }
        let mut picture = vec![if number.is_multiple_of(25) { 0x17 } else { 0x27 }, 1, 0, 0, 0];
        picture.extend_from_slice(&number.to_be_bytes());
        picture.resize(1_000, 0x55);
        self.send(9, timestamp, &picture);
        let mut sound = vec![0xaf, 1];
        sound.extend_from_slice(&number.to_be_bytes());
        sound.resize(200, 0x33);
        self.send(8, timestamp, &sound);
    }

    /// Sends bytes as they are, beside the protocol.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.sent += bytes.len() as u64;
        let _ = self.socket.write_all(bytes);
    }

    /// Ends the publish or play in good order.
    pub fn finish(&mut self) {
        self.client.finish();
        self.flush();
    }

    /// Our end's address.
    pub fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// The socket, for tests that misuse it.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn take_events(&mut self) {
        while let Some(event) = self.client.poll_event() {
            match event {
                ClientEvent::Started => self.started = true,
                ClientEvent::Message(message) => self.messages.push(message),
                ClientEvent::Refused(code, description) => {
                    self.statuses.push(code.clone());
                    self.refused = Some((code, description));
                }
                ClientEvent::Ended => self.ended = true,
                ClientEvent::Status(code) => self.statuses.push(code),
            }
        }
    }

    fn flush(&mut self) {
        let output = std::mem::take(self.client.output());
        self.sent += output.len() as u64;
        if self.socket.write_all(&output).is_err() {
            self.closed = true;
        }
    }
}
