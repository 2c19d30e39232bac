//! A peer that says exactly what its test tells it, over a plain socket, and nothing by itself: no acknowledgement,
//! no answer to a ping, no second thought.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sluicegate::proto::rtmp::Settings;
use sluicegate::proto::rtmp::amf0::{self, Value};
use sluicegate::proto::rtmp::chunk::{RawMessage, Reader, write_message};
use sluicegate::proto::rtmp::message::type_id;

use super::{PATIENCE, Server};

/// Length of C1, S1, C2 and S2.
pub const PACKET: usize = 1536;

/// A command of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub stream_id: u32,
    pub name: String,
    pub transaction: f64,
    pub args: Vec<Value>,
}

impl Reply {
    /// The `code` of a status, `_result` or `_error`; empty where there is none.
    pub fn code(&self) -> &str {
        self.args.iter().rev().find_map(|arg| arg.get("code")?.as_str()).unwrap_or_default()
    }
}

/// One connection.
pub struct Hand {
    socket: TcpStream,
    reader: Reader,
    handshake_left: usize,
    /// The chunk size of what is sent.
    pub chunk_size: usize,
    /// Bytes that went.
    pub sent: u64,
    /// Bytes that came.
    pub received: u64,
    /// Commands that came.
    pub replies: Vec<Reply>,
    /// Everything else that came: control, data and media messages.
    pub messages: Vec<RawMessage>,
    /// The server closed.
    pub closed: bool,
}

impl Hand {
    /// A connection on which nothing was said.
    pub fn open(server: SocketAddr) -> Self {
        let socket = TcpStream::connect(server).expect("the server takes connections");
        socket.set_nodelay(true).unwrap();
        let mut reader = Reader::new(&Settings::default());
        reader.authorize();
        Self {
            socket,
            reader,
            handshake_left: 1 + 2 * PACKET,
            chunk_size: 128,
            sent: 0,
            received: 0,
            replies: Vec::new(),
            messages: Vec::new(),
            closed: false,
        }
    }

    /// The same with the handshake behind it. C2 is not what the specification asks for.
    pub fn handshaken(server: SocketAddr) -> Self {
        let mut hand = Self::open(server);
        hand.write(&hello());
        hand.expect("S0, S1 and S2", |it| it.handshake_left == 0);
        hand.write(&[0xa5; PACKET]);
        hand
    }

    /// The same with an accepted `connect` and message stream 1.
    pub fn connected(server: SocketAddr, app: &str) -> Self {
        let mut hand = Self::handshaken(server);
        hand.command(0, "connect", 1.0, &[connect_object(app)]);
        hand.expect_code("NetConnection.Connect.Success");
        hand.command(0, "createStream", 2.0, &[Value::Null]);
        hand.expect("message stream 1", |it| it.answer("_result", 2.0).is_some());
        hand
    }

    /// The same with an accepted `publish`.
    pub fn publishing(server: SocketAddr, app: &str, stream: &str) -> Self {
        let mut hand = Self::connected(server, app);
        hand.publish(stream);
        hand.expect_code("NetStream.Publish.Start");
        hand
    }

    /// The same with an accepted `play`.
    pub fn playing(server: SocketAddr, app: &str, stream: &str) -> Self {
        let mut hand = Self::connected(server, app);
        hand.play(stream);
        hand.expect_code("NetStream.Play.Start");
        hand
    }

    /// Asks to publish on message stream 1.
    pub fn publish(&mut self, stream: &str) {
        self.command(1, "publish", 3.0, &[Value::Null, text(stream), text("live")]);
    }

    /// Asks to play on message stream 1.
    pub fn play(&mut self, stream: &str) {
        self.command(1, "play", 3.0, &[Value::Null, text(stream)]);
    }

    /// Sends a command.
    pub fn command(&mut self, stream_id: u32, name: &str, transaction: f64, args: &[Value]) {
        self.message(type_id::COMMAND_AMF0, stream_id, 0, &command_body(name, transaction, args));
    }

    /// Sends a message.
    pub fn message(&mut self, type_id: u8, stream_id: u32, timestamp_ms: u64, body: &[u8]) {
        let bytes = self.encode(type_id, stream_id, timestamp_ms, body);
        self.write(&bytes);
    }

    /// Announces a chunk size and uses it.
    pub fn set_chunk_size(&mut self, size: u32) {
        self.message(type_id::SET_CHUNK_SIZE, 0, 0, &size.to_be_bytes());
        self.chunk_size = size as usize;
    }

    /// A message as it would be sent.
    pub fn encode(&self, type_id: u8, stream_id: u32, timestamp_ms: u64, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let chunk_stream = match type_id {
            type_id::AUDIO => 4,
            type_id::VIDEO => 6,
            type_id::COMMAND_AMF0 | type_id::COMMAND_AMF3 => 3,
            1..=6 => 2,
            _ => 5,
        };
        write_message(&mut out, self.chunk_size, chunk_stream, type_id, stream_id, timestamp_ms, body);
        out
    }

    /// Sends bytes as they are. What a server that has closed does not take is not sent.
    pub fn write(&mut self, bytes: &[u8]) {
        match self.socket.write_all(bytes) {
            Ok(()) => self.sent += bytes.len() as u64,
            Err(_) => self.closed = true,
        }
    }

    /// Reads for at most `time`, until `done`. False when the time ran out.
    pub fn read_until(&mut self, time: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
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
                Ok(count) => self.take(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => self.closed = true,
            }
        }
        true
    }

    /// Reads until `done`, or fails.
    pub fn expect(&mut self, what: &str, done: impl FnMut(&Self) -> bool) {
        assert!(self.read_until(PATIENCE, done), "no {what}; closed: {}, {:?}", self.closed, self.replies);
    }

    /// Reads until a status with this code came.
    pub fn expect_code(&mut self, code: &str) {
        self.expect(code, |it| it.codes().contains(&code));
    }

    /// Reads until the server has closed.
    pub fn drain(&mut self) {
        self.expect("end", |it| it.closed);
    }

    /// The codes that came, in order.
    pub fn codes(&self) -> Vec<&str> {
        self.replies.iter().map(Reply::code).filter(|code| !code.is_empty()).collect()
    }

    /// How often a code came.
    pub fn count(&self, code: &str) -> usize {
        self.codes().iter().filter(|it| **it == code).count()
    }

    /// The answer to a transaction.
    pub fn answer(&self, name: &str, transaction: f64) -> Option<&Reply> {
        self.replies.iter().find(|it| it.name == name && it.transaction.to_bits() == transaction.to_bits())
    }

    /// Messages of one type that came.
    pub fn of_type(&self, type_id: u8) -> impl Iterator<Item = &RawMessage> {
        self.messages.iter().filter(move |message| message.type_id == type_id)
    }

    /// Our end's address, by which the server knows this connection.
    pub fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Whether dropping the connection resets it (`Some(ZERO)`).
    pub fn set_linger(&self, linger: Option<Duration>) {
        socket2::SockRef::from(&self.socket).set_linger(linger).unwrap();
    }

    /// Ends our half: the server reads what was sent, and then the end.
    pub fn finish_sending(&self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }

    /// The session of this connection that is open, with its id and everything else the API tells.
    pub fn session(&self, server: &Server) -> serde_json::Value {
        server.wait_for_sessions(&format!("remote={}", self.local()), 1).remove(0)
    }

    /// Waits until the connection's session is over and gives it back.
    pub fn wait_for_end(&self, server: &Server, session: &serde_json::Value) -> serde_json::Value {
        let ended = server.wait_for_end(session["id"].as_str().expect("an id"));
        assert_eq!(ended["remote"], self.local().to_string());
        ended
    }

    fn take(&mut self, mut bytes: &[u8]) {
        self.received += bytes.len() as u64;
        let of_handshake = bytes.len().min(self.handshake_left);
        self.handshake_left -= of_handshake;
        bytes = &bytes[of_handshake..];
        while let Some(message) = self.reader.poll_message(Instant::now(), &mut bytes).expect("the server speaks RTMP")
        {
            if message.type_id == type_id::COMMAND_AMF0 {
                self.replies.push(read_reply(&message));
            } else {
                self.messages.push(message);
            }
        }
    }
}

/// C0 and C1, the latter as the simple handshake has it.
pub fn hello() -> Vec<u8> {
    let mut bytes = vec![3];
    bytes.extend_from_slice(&[0; 8]);
    bytes.resize(1 + PACKET, 0x77);
    bytes
}

/// What encoders say in `connect`.
pub fn connect_object(app: &str) -> Value {
    Value::Object(vec![
        (b"app".to_vec(), text(app)),
        (b"flashVer".to_vec(), text("by hand")),
        (b"tcUrl".to_vec(), text(&format!("rtmp://127.0.0.1/{app}"))),
    ])
}

/// A text of AMF0.
pub fn text(text: &str) -> Value {
    Value::String(text.as_bytes().to_vec())
}

/// The body of a command.
pub fn command_body(name: &str, transaction: f64, args: &[Value]) -> Vec<u8> {
    let mut body = Vec::new();
    amf0::write(&mut body, &text(name));
    amf0::write(&mut body, &Value::Number(transaction));
    for arg in args {
        amf0::write(&mut body, arg);
    }
    body
}

/// A video message: `keyframe` or not, its number in front, `size` bytes.
pub fn picture(is_keyframe: bool, number: u64, size: usize) -> Vec<u8> {
    let mut body = vec![if is_keyframe { 0x17 } else { 0x27 }, 1, 0, 0, 0];
    body.extend_from_slice(&number.to_be_bytes());
    body.resize(size.max(body.len()), 0x55);
    body
}

/// The number of a [`picture`]; `None` for what is none.
pub fn picture_number(message: &RawMessage) -> Option<u64> {
    let is_picture = message.type_id == type_id::VIDEO && message.payload.get(1) == Some(&1);
    if !is_picture {
        return None;
    }
    Some(u64::from_be_bytes(message.payload.get(5..13)?.try_into().ok()?))
}

fn read_reply(message: &RawMessage) -> Reply {
    let mut reader = amf0::Reader::new(&message.payload);
    let mut values = Vec::new();
    while let Some(value) = reader.next_value().expect("the server writes AMF0") {
        values.push(value);
    }
    let name = values[0].as_str().expect("a command has a name").to_owned();
    let transaction = values[1].as_number().expect("a command has a transaction");
    Reply { stream_id: message.stream_id, name, transaction, args: values.split_off(2) }
}
