//! The client's side of one RTMP connection, for the load generator, the demo and tests.

use std::collections::VecDeque;
use std::mem;
use std::time::Instant;

use crate::proto::rtmp::amf0::{self, Value};
use crate::proto::rtmp::chunk::{self, DEFAULT_CHUNK_SIZE, RawMessage, write_message};
use crate::proto::rtmp::handshake::Handshake;
use crate::proto::rtmp::message::{self, Parsed, UserControl, type_id};
use crate::proto::rtmp::{ProtocolError, Settings};

/// What the client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Send a stream.
    Publish,
    /// Receive a stream.
    Play,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// `NetStream.Publish.Start` or `NetStream.Play.Start`: media may flow.
    Started,
    /// An audio, video or data message of the stream played.
    Message(RawMessage),
    /// A status with level `error`, or `_error`: code and description.
    Refused(String, String),
    /// The stream ended (`UnpublishNotify`, `Play.Stop`, `StreamEOF`); told once, and again only after the stream
    /// came back (`PublishNotify`, `Play.Start`).
    Ended,
    /// Any other status code, for tests that look.
    Status(String),
}

/// The engine.
///
/// It speaks as encoders do: `connect`, then for a publish `releaseStream` and `FCPublish`, `createStream`, then
/// `publish` or `play`. There are no deadlines inside; the owner knows how long it wants to wait.
pub struct Client {
    stage: Stage,
    intent: Intent,
    reader: chunk::Reader,
    output: Vec<u8>,
    /// The chunk size our messages are cut to.
    chunk_size: u32,
    events: VecDeque<ClientEvent>,
    /// The message stream that `createStream` gave us.
    stream_id: u32,
    received_bytes: u64,
    acknowledged_bytes: u64,
    ack_window: u64,
    delivers_media: bool,
    has_ended: bool,
    media_messages: u64,
    media_bytes: u64,
}

/// How far the client is, with what it still has to say.
enum Stage {
    Handshake(Box<Handshake>, Box<Names>),
    /// `connect` was sent.
    Connecting(Box<Names>),
    /// `createStream` was sent.
    Creating(Box<Names>),
    /// `publish` or `play` was sent.
    Asked(Box<Names>),
    /// Media may flow.
    Running(Box<Names>),
    /// Finished by us, or refused.
    Over,
}

struct Names {
    tc_url: String,
    app: String,
    stream: String,
}

/// Transaction ids; the order is that of the encoders.
mod transaction {
    pub(super) const CONNECT: f64 = 1.0;
    pub(super) const RELEASE_STREAM: f64 = 2.0;
    pub(super) const FC_PUBLISH: f64 = 3.0;
    pub(super) const CREATE_STREAM: f64 = 4.0;
    pub(super) const PUBLISH: f64 = 5.0;
    pub(super) const END: f64 = 6.0;
}

/// Chunk streams, one for each kind of message so that they can interleave.
mod chunk_stream {
    pub(super) const COMMAND: u32 = 3;
    pub(super) const AUDIO: u32 = 4;
    pub(super) const DATA: u32 = 5;
    pub(super) const VIDEO: u32 = 6;
}

/// Chunk size we announce for a publish, in bytes.
const PUBLISH_CHUNK_SIZE: u32 = 65_536;
/// Acknowledgement window before the server names one, and the one we name.
const ACK_WINDOW: u32 = 2_500_000;
/// Player buffer we announce, in milliseconds.
const BUFFER_LENGTH_MS: u32 = 3_000;

impl Client {
    /// A client that will connect to `tc_url`/`app`, then publish or play `stream` (query included).
    /// The first bytes to send are in the output already.
    #[must_use]
    pub fn new(tc_url: &str, app: &str, stream: &str, intent: Intent) -> Self {
        let mut output = Vec::new();
        let handshake = Box::new(Handshake::client(&mut output));
        let names = Names { tc_url: tc_url.to_owned(), app: app.to_owned(), stream: stream.to_owned() };
        let mut reader = chunk::Reader::new(&Settings::default());
        // A server may send anything at any time: we chose it, so its messages have the larger limit at once.
        reader.authorize();
        Self {
            stage: Stage::Handshake(handshake, Box::new(names)),
            intent,
            reader,
            output,
            chunk_size: DEFAULT_CHUNK_SIZE,
            events: VecDeque::new(),
            stream_id: 0,
            received_bytes: 0,
            acknowledged_bytes: 0,
            ack_window: u64::from(ACK_WINDOW),
            delivers_media: true,
            has_ended: false,
            media_messages: 0,
            media_bytes: 0,
        }
    }

    /// Whether audio, video and data of a stream played become events (the default) or are only counted.
    pub fn set_media_delivery(&mut self, delivers_media: bool) {
        self.delivers_media = delivers_media;
    }

    /// Takes bytes from the server. All of them are consumed.
    ///
    /// # Errors
    /// The rule that the server broke. No more bytes may be given afterwards.
    pub fn handle_bytes(&mut self, now: Instant, input: &[u8]) -> Result<(), ProtocolError> {
        self.received_bytes = self.received_bytes.wrapping_add(u64::try_from(input.len()).unwrap_or(u64::MAX));
        let mut rest = input;
        if let Stage::Handshake(handshake, _) = &mut self.stage {
            let progress = handshake.handle(input, &mut self.output)?;
            rest = input.get(progress.consumed..).unwrap_or_default();
            if !progress.done {
                return Ok(());
            }
            self.send_connect();
        }
        while let Some(message) = self.reader.poll_message(now, &mut rest)? {
            self.on_message(message);
        }
        if self.received_bytes.wrapping_sub(self.acknowledged_bytes) >= self.ack_window {
            self.acknowledged_bytes = self.received_bytes;
            message::write_acknowledgement(&mut self.output, self.received_bytes);
        }
        Ok(())
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Bytes for the server: the owner sends a prefix and drains it.
    pub fn output(&mut self) -> &mut Vec<u8> {
        // The handshake's three kilobytes are not kept; a publisher's media buffer is.
        if self.output.is_empty() && self.output.capacity() > 0 && self.intent == Intent::Play {
            self.output = Vec::new();
        }
        &mut self.output
    }

    /// Appends an audio, video or data message of the stream published. Nothing is appended before
    /// [`ClientEvent::Started`] and after [`finish`](Self::finish). The timestamp is sent modulo 2^32.
    pub fn send(&mut self, type_id: u8, timestamp_ms: u64, payload: &[u8]) {
        if !matches!(self.stage, Stage::Running(_)) || self.intent != Intent::Publish {
            return;
        }
        let chunk_stream = match type_id {
            type_id::AUDIO => chunk_stream::AUDIO,
            type_id::VIDEO => chunk_stream::VIDEO,
            _ => chunk_stream::DATA,
        };
        self.write(chunk_stream, type_id, self.stream_id, timestamp_ms, payload);
    }

    /// Ends the publish or play in good order (`FCUnpublish`, `deleteStream`).
    pub fn finish(&mut self) {
        let stage = mem::replace(&mut self.stage, Stage::Over);
        let (Stage::Asked(names) | Stage::Running(names)) = stage else { return };
        if self.intent == Intent::Publish {
            self.command(0, "FCUnpublish", transaction::END, &[Value::Null, text(&names.stream)]);
        } else {
            self.command(self.stream_id, "closeStream", 0.0, &[Value::Null]);
        }
        let id = f64::from(self.stream_id);
        self.command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(id)]);
    }

    /// Audio, video and data messages of the stream played, delivered or not.
    #[must_use]
    pub fn media_messages(&self) -> u64 {
        self.media_messages
    }

    /// The bytes of their bodies.
    #[must_use]
    pub fn media_bytes(&self) -> u64 {
        self.media_bytes
    }

    /// All bytes that came from the server, handshake included.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// True while media may flow.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running(_))
    }
}

impl Client {
    fn on_message(&mut self, message: RawMessage) {
        match message.type_id {
            type_id::WINDOW_ACK_SIZE => {
                if let Ok(Parsed { value, .. }) = message::parse_u32(&message.payload)
                    && value > 0
                {
                    self.ack_window = u64::from(value);
                }
            }
            // The answer that the specification asks for (RTMP 1.0 §5.4.5).
            type_id::SET_PEER_BANDWIDTH => message::write_window_ack_size(&mut self.output, ACK_WINDOW),
            type_id::USER_CONTROL => self.on_user_control(&message.payload),
            type_id::AUDIO | type_id::VIDEO | type_id::DATA_AMF0 | type_id::AGGREGATE => {
                self.media_messages = self.media_messages.saturating_add(1);
                let bytes = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
                self.media_bytes = self.media_bytes.saturating_add(bytes);
                if self.delivers_media {
                    self.events.push_back(ClientEvent::Message(message));
                }
            }
            type_id::COMMAND_AMF0 => self.on_command(&message.payload),
            type_id::COMMAND_AMF3 => {
                if let Some((0, body)) = message.payload.split_first() {
                    self.on_command(body);
                }
            }
            _ => {}
        }
    }

    fn on_user_control(&mut self, body: &[u8]) {
        match UserControl::parse(body).map(|parsed| parsed.value) {
            Ok(UserControl::StreamEof(_)) => self.on_ended(),
            Ok(UserControl::PingRequest(time)) => UserControl::PingResponse(time).write(&mut self.output),
            _ => {}
        }
    }

    fn on_command(&mut self, body: &[u8]) {
        let mut reader = amf0::Reader::new(body);
        let mut values = Vec::new();
        while let Ok(Some(value)) = reader.next_value() {
            values.push(value);
        }
        let Some(name) = values.first().and_then(Value::as_str) else { return };
        let number = values.get(1).and_then(Value::as_number).unwrap_or(0.0);
        let is = |transaction: f64| number.to_bits() == transaction.to_bits();
        match name {
            "_result" if is(transaction::CONNECT) => self.on_connected(),
            "_result" if is(transaction::CREATE_STREAM) => {
                // Ids come as numbers; what is no id of 32 bits becomes 0 and is refused by the server itself.
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
                let id = values.get(3).and_then(Value::as_number).unwrap_or(0.0) as u32;
                self.on_created(id);
            }
            // Servers may not know these two, which are courtesies.
            "_error" if is(transaction::RELEASE_STREAM) || is(transaction::FC_PUBLISH) => {}
            "_error" => self.on_refused(values.get(3).or(values.get(2))),
            "onStatus" => self.on_status(values.get(3)),
            _ => {}
        }
    }

    fn on_status(&mut self, info: Option<&Value>) {
        let field = |key| info.and_then(|info| info.get(key)).and_then(Value::as_str);
        if field("level") == Some("error") {
            return self.on_refused(info);
        }
        let code = field("code").unwrap_or_default();
        match code {
            "NetStream.Publish.Start" | "NetStream.Play.Start" => {
                self.has_ended = false;
                self.stage = match mem::replace(&mut self.stage, Stage::Over) {
                    Stage::Asked(names) => {
                        self.events.push_back(ClientEvent::Started);
                        Stage::Running(names)
                    }
                    other => other,
                };
            }
            "NetStream.Play.UnpublishNotify" | "NetStream.Play.Stop" | "NetStream.Play.Complete" => self.on_ended(),
            other => {
                if other == "NetStream.Play.PublishNotify" {
                    self.has_ended = false;
                }
                self.events.push_back(ClientEvent::Status(other.to_owned()));
            }
        }
    }

    fn on_refused(&mut self, info: Option<&Value>) {
        let field = |key| info.and_then(|info| info.get(key)).and_then(Value::as_str).unwrap_or_default().to_owned();
        // A refusal may come as a status and as `_error`; it is one.
        if !matches!(self.stage, Stage::Over) {
            self.stage = Stage::Over;
            self.events.push_back(ClientEvent::Refused(field("code"), field("description")));
        }
    }

    fn on_ended(&mut self) {
        if !mem::replace(&mut self.has_ended, true) {
            self.events.push_back(ClientEvent::Ended);
        }
    }

    fn send_connect(&mut self) {
        let Stage::Handshake(_, names) = mem::replace(&mut self.stage, Stage::Over) else { return };
        if self.intent == Intent::Publish {
            message::write_set_chunk_size(&mut self.output, PUBLISH_CHUNK_SIZE);
            self.chunk_size = PUBLISH_CHUNK_SIZE;
        }
        let mut object = vec![
            (b"app".to_vec(), text(&names.app)),
            (b"flashVer".to_vec(), text("FMLE/3.0 (compatible; Sluicegate)")),
            (b"tcUrl".to_vec(), text(&names.tc_url)),
        ];
        if self.intent == Intent::Publish {
            object.insert(1, (b"type".to_vec(), text("nonprivate")));
        } else {
            object.push((b"fpad".to_vec(), Value::Boolean(false)));
        }
        self.command(0, "connect", transaction::CONNECT, &[Value::Object(object)]);
        self.stage = Stage::Connecting(names);
    }

    fn on_connected(&mut self) {
        self.stage = match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Connecting(names) => {
                if self.intent == Intent::Publish {
                    let name = [Value::Null, text(&names.stream)];
                    self.command(0, "releaseStream", transaction::RELEASE_STREAM, &name);
                    self.command(0, "FCPublish", transaction::FC_PUBLISH, &name);
                }
                self.command(0, "createStream", transaction::CREATE_STREAM, &[Value::Null]);
                Stage::Creating(names)
            }
            other => other,
        };
    }

    fn on_created(&mut self, id: u32) {
        self.stage = match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Creating(names) => {
                self.stream_id = id;
                if self.intent == Intent::Publish {
                    let rest = [Value::Null, text(&names.stream), text("live")];
                    self.command(id, "publish", transaction::PUBLISH, &rest);
                } else {
                    let rest = [Value::Null, text(&names.stream), Value::Number(-2000.0)];
                    self.command(id, "play", transaction::PUBLISH, &rest);
                    UserControl::SetBufferLength { stream_id: id, buffer_ms: BUFFER_LENGTH_MS }.write(&mut self.output);
                }
                Stage::Asked(names)
            }
            other => other,
        };
    }

    fn command(&mut self, stream_id: u32, name: &str, transaction: f64, rest: &[Value]) {
        let mut body = Vec::with_capacity(256);
        amf0::write(&mut body, &text(name));
        amf0::write(&mut body, &Value::Number(transaction));
        for value in rest {
            amf0::write(&mut body, value);
        }
        self.write(chunk_stream::COMMAND, type_id::COMMAND_AMF0, stream_id, 0, &body);
    }

    fn write(&mut self, chunk_stream: u32, type_id: u8, stream_id: u32, timestamp_ms: u64, body: &[u8]) {
        let chunk_size = usize::try_from(self.chunk_size).unwrap_or(usize::MAX);
        write_message(&mut self.output, chunk_size, chunk_stream, type_id, stream_id, timestamp_ms, body);
    }
}

fn text(text: &str) -> Value {
    Value::String(text.as_bytes().to_vec())
}
