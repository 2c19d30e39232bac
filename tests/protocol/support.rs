//! A peer under full control of the test: it builds bytes and reads answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::media::Frame;
use sluicegate::proto::rtmp::amf0::{self, Value};
use sluicegate::proto::rtmp::chunk::{RawMessage, Reader, write_message};
use sluicegate::proto::rtmp::message::type_id;
use sluicegate::proto::rtmp::server::{ConnectInfo, RequestId, Server, ServerEvent};
use sluicegate::proto::rtmp::{ProtocolError, Settings};

/// Length of C1, S1, C2 and S2.
pub const PACKET: usize = 1536;

/// What the server said.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Command { stream_id: u32, name: String, transaction: f64, args: Vec<Value> },
    Data(u32, Vec<Value>),
    Control(u8, Vec<u8>),
}

impl Reply {
    /// The `code` of a status, `_result` or `_error`.
    pub fn code(&self) -> Option<String> {
        match self {
            Self::Command { args, .. } => args.iter().rev().find_map(|arg| Some(arg.get("code")?.as_str()?.to_owned())),
            _ => None,
        }
    }

    /// The `level` of a status, `_result` or `_error`.
    pub fn level(&self) -> Option<String> {
        match self {
            Self::Command { args, .. } => {
                args.iter().rev().find_map(|arg| Some(arg.get("level")?.as_str()?.to_owned()))
            }
            _ => None,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Command { name, .. } => name,
            _ => "",
        }
    }
}

/// The codes of all statuses in `replies`, in order.
pub fn codes(replies: &[Reply]) -> Vec<String> {
    replies.iter().filter_map(Reply::code).collect()
}

/// The one reply of that name.
pub fn only<'a>(replies: &'a [Reply], name: &str) -> &'a Reply {
    let found: Vec<_> = replies.iter().filter(|reply| reply.name() == name).collect();
    assert_eq!(found.len(), 1, "{name} in {replies:?}");
    found[0]
}

pub struct Peer {
    pub server: Server,
    pub now: Instant,
    /// Chunk size of what the peer sends.
    pub chunk_size: usize,
    reader: Reader,
    /// Everything sent, as a recording.
    pub sent: Vec<u8>,
}

impl Peer {
    /// A connection just accepted.
    pub fn new(settings: Settings) -> Self {
        let now = Instant::now();
        let reader = Reader::new(&settings);
        let server = Server::new(&Arc::new(settings), now);
        Self { server, now, chunk_size: 128, reader, sent: Vec::new() }
    }

    /// The same with the handshake behind it.
    pub fn handshaken_with(settings: Settings) -> Self {
        let mut peer = Self::new(settings);
        peer.send(&hello()).unwrap();
        let answer = peer.take_output();
        assert_eq!(answer.len(), 1 + 2 * PACKET);
        peer.send(&[0; PACKET]).unwrap();
        peer
    }

    pub fn handshaken() -> Self {
        Self::handshaken_with(Settings::default())
    }

    /// The same with an accepted `connect` to the application `live`.
    pub fn connected_with(settings: Settings) -> Self {
        let mut peer = Self::handshaken_with(settings);
        peer.connect(connect_object("live")).unwrap();
        assert!(matches!(peer.events()[..], [ServerEvent::Connect(_)]));
        peer.server.accept_connect();
        assert!(codes(&peer.replies()).contains(&"NetConnection.Connect.Success".to_owned()));
        peer
    }

    pub fn connected() -> Self {
        Self::connected_with(Settings::default())
    }

    /// The same with message stream 1 and a publish of `cam` accepted.
    pub fn publishing_with(settings: Settings) -> (Self, RequestId) {
        let mut peer = Self::connected_with(settings);
        peer.command(0, "createStream", 2.0, &[Value::Null]).unwrap();
        let request = peer.ask_publish("cam");
        peer.server.accept_publish(peer.now, request);
        assert_eq!(codes(&peer.replies()), ["NetStream.Publish.Start"]);
        (peer, request)
    }

    pub fn publishing() -> (Self, RequestId) {
        Self::publishing_with(Settings::default())
    }

    /// The same with a play of `cam` accepted.
    pub fn playing() -> (Self, RequestId) {
        let mut peer = Self::connected();
        peer.command(0, "createStream", 2.0, &[Value::Null]).unwrap();
        let request = peer.ask_play("cam");
        peer.server.accept_play(peer.now, request);
        peer.replies();
        (peer, request)
    }

    pub fn ask_publish(&mut self, stream: &str) -> RequestId {
        self.command(1, "publish", 0.0, &[Value::Null, text(stream), text("live")]).unwrap();
        match &self.events()[..] {
            [ServerEvent::Publish { request, .. }] => *request,
            other => panic!("no publish: {other:?}"),
        }
    }

    pub fn ask_play(&mut self, stream: &str) -> RequestId {
        self.command(1, "play", 0.0, &[Value::Null, text(stream)]).unwrap();
        match &self.events()[..] {
            [ServerEvent::Play { request, .. }] => *request,
            other => panic!("no play: {other:?}"),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.sent.extend_from_slice(bytes);
        self.server.handle_bytes(self.now, bytes)
    }

    pub fn message(
        &mut self,
        type_id: u8,
        stream_id: u32,
        timestamp_ms: u64,
        body: &[u8],
    ) -> Result<(), ProtocolError> {
        let bytes = self.encode(type_id, stream_id, timestamp_ms, body);
        self.send(&bytes)
    }

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

    pub fn command(
        &mut self,
        stream_id: u32,
        name: &str,
        transaction: f64,
        args: &[Value],
    ) -> Result<(), ProtocolError> {
        self.message(type_id::COMMAND_AMF0, stream_id, 0, &command_body(name, transaction, args))
    }

    pub fn connect(&mut self, object: Value) -> Result<(), ProtocolError> {
        self.command(0, "connect", 1.0, &[object])
    }

    pub fn set_chunk_size(&mut self, size: u32) {
        self.message(type_id::SET_CHUNK_SIZE, 0, 0, &size.to_be_bytes()).unwrap();
        self.chunk_size = size as usize;
    }

    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(self.server.output())
    }

    /// What the server said since the last call.
    pub fn replies(&mut self) -> Vec<Reply> {
        let bytes = self.take_output();
        let mut messages = Vec::new();
        self.reader.handle(self.now, &bytes, &mut messages).expect("the server writes what it reads");
        messages.iter().map(reply).collect()
    }

    pub fn events(&mut self) -> Vec<ServerEvent> {
        std::iter::from_fn(|| self.server.poll_event()).collect()
    }

    pub fn frames(&mut self) -> Vec<Frame> {
        self.events()
            .into_iter()
            .map(|event| match event {
                ServerEvent::Frame(frame) => frame,
                other => panic!("not a frame: {other:?}"),
            })
            .collect()
    }

    pub fn advance(&mut self, wait: Duration) -> Result<(), ProtocolError> {
        self.now += wait;
        self.server.handle_timeout(self.now)
    }

    /// The `connect` that is asked for.
    pub fn connect_info(&mut self) -> ConnectInfo {
        match self.events().pop() {
            Some(ServerEvent::Connect(info)) => *info,
            other => panic!("no connect: {other:?}"),
        }
    }
}

fn reply(message: &RawMessage) -> Reply {
    match message.type_id {
        type_id::COMMAND_AMF0 => {
            let mut values = values(&message.payload).into_iter();
            let name = values.next().unwrap().as_str().unwrap().to_owned();
            let transaction = values.next().unwrap().as_number().unwrap();
            Reply::Command { stream_id: message.stream_id, name, transaction, args: values.collect() }
        }
        type_id::DATA_AMF0 => Reply::Data(message.stream_id, values(&message.payload)),
        other => Reply::Control(other, message.payload.to_vec()),
    }
}

pub fn values(body: &[u8]) -> Vec<Value> {
    let mut reader = amf0::Reader::new(body);
    std::iter::from_fn(|| reader.next_value().unwrap()).collect()
}

/// C0 and a C1 of the simple form.
pub fn hello() -> Vec<u8> {
    let mut bytes = vec![3];
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend((0..PACKET - 8).map(|n| (n % 251) as u8));
    bytes
}

pub fn command_body(name: &str, transaction: f64, args: &[Value]) -> Vec<u8> {
    let mut body = Vec::new();
    amf0::write(&mut body, &text(name));
    amf0::write(&mut body, &Value::Number(transaction));
    for arg in args {
        amf0::write(&mut body, arg);
    }
    body
}

pub fn text(text: &str) -> Value {
    Value::String(text.as_bytes().to_vec())
}

pub fn object<const N: usize>(items: [(&str, Value); N]) -> Value {
    Value::Object(items.into_iter().map(|(key, value)| (key.as_bytes().to_vec(), value)).collect())
}

pub fn connect_object(app: &str) -> Value {
    object([("app", text(app)), ("tcUrl", text(&format!("rtmp://edge.example/{app}")))])
}

/// `@setDataFrame`, `onMetaData` and an array, as an AMF0 data body.
pub fn set_data_frame(width: f64) -> Vec<u8> {
    let mut body = Vec::new();
    amf0::write(&mut body, &text("@setDataFrame"));
    body.extend_from_slice(&metadata(width));
    body
}

/// The same without `@setDataFrame`.
pub fn metadata(width: f64) -> Vec<u8> {
    let mut body = Vec::new();
    amf0::write(&mut body, &text("onMetaData"));
    amf0::write(&mut body, &Value::EcmaArray(vec![(b"width".to_vec(), Value::Number(width))]));
    body
}

pub const AVC_CONFIG: &[u8] = &[0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 0];
pub const AVC_KEYFRAME: &[u8] = &[0x17, 1, 0, 0, 0, 0, 0, 0, 1, 0x65];
pub const AVC_INTER: &[u8] = &[0x27, 1, 0, 0, 0, 0, 0, 0, 1, 0x41];
pub const AAC_CONFIG: &[u8] = &[0xaf, 0, 0x12, 0x10];
pub const AAC_FRAME: &[u8] = &[0xaf, 1, 0x21, 0x10, 0x04];
