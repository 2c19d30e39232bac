//! Writing answers. Everything that one input calls for is appended to one buffer, so that it leaves in one write.

use crate::proto::rtmp::amf0::{self, Value};
use crate::proto::rtmp::chunk::write_message;
use crate::proto::rtmp::message::type_id;

/// Chunk stream of protocol control messages (RTMP 1.0 §5.4).
const CONTROL_CHUNK_STREAM: u32 = 2;
/// Chunk stream of commands and statuses.
const COMMAND_CHUNK_STREAM: u32 = 3;

/// User control events (RTMP 1.0 §7.1.7).
pub(super) mod user_event {
    pub(crate) const STREAM_BEGIN: u16 = 0;
    pub(crate) const STREAM_EOF: u16 = 1;
    pub(crate) const SET_BUFFER_LENGTH: u16 = 3;
    pub(crate) const PING_REQUEST: u16 = 6;
    pub(crate) const PING_RESPONSE: u16 = 7;
}

/// How grave a status is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Status,
    Error,
}

/// Answers not yet sent, and the chunk size they are cut to.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    chunk_size: usize,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), chunk_size: 128 }
    }

    pub(super) fn window_ack_size(&mut self, bytes: u32) {
        self.control(type_id::WINDOW_ACK_SIZE, &bytes.to_be_bytes());
    }

    /// Set Peer Bandwidth with limit type 2, dynamic (RTMP 1.0 §5.4.5).
    pub(super) fn peer_bandwidth(&mut self, bytes: u32) {
        let [a, b, c, d] = bytes.to_be_bytes();
        self.control(type_id::SET_PEER_BANDWIDTH, &[a, b, c, d, 2]);
    }

    /// Announces the chunk size; what follows is cut to it.
    pub(super) fn set_chunk_size(&mut self, bytes: u32) {
        let bytes = bytes.clamp(128, 0x00ff_ffff);
        self.control(type_id::SET_CHUNK_SIZE, &bytes.to_be_bytes());
        self.chunk_size = usize::try_from(bytes).unwrap_or(128);
    }

    pub(super) fn acknowledgement(&mut self, sequence: u32) {
        self.control(type_id::ACKNOWLEDGEMENT, &sequence.to_be_bytes());
    }

    pub(super) fn user_control(&mut self, event: u16, value: u32) {
        let mut body = Vec::with_capacity(6);
        body.extend_from_slice(&event.to_be_bytes());
        body.extend_from_slice(&value.to_be_bytes());
        self.control(type_id::USER_CONTROL, &body);
    }

    /// A command with its transaction, command object and arguments.
    pub(super) fn command(&mut self, stream_id: u32, name: &str, transaction: f64, rest: &[Value]) {
        let mut body = Vec::with_capacity(256);
        amf0::write(&mut body, &text(name));
        amf0::write(&mut body, &Value::Number(transaction));
        for value in rest {
            amf0::write(&mut body, value);
        }
        self.message(type_id::COMMAND_AMF0, stream_id, &body);
    }

    /// `onStatus` on a message stream.
    pub(super) fn status(&mut self, stream_id: u32, level: Level, code: &str, description: &str) {
        self.command(stream_id, "onStatus", 0.0, &[Value::Null, info(level, code, description)]);
    }

    /// A data message.
    pub(super) fn data(&mut self, stream_id: u32, values: &[Value]) {
        let mut body = Vec::with_capacity(128);
        for value in values {
            amf0::write(&mut body, value);
        }
        self.message(type_id::DATA_AMF0, stream_id, &body);
    }

    fn control(&mut self, type_id: u8, body: &[u8]) {
        write_message(&mut self.bytes, self.chunk_size, CONTROL_CHUNK_STREAM, type_id, 0, 0, body);
    }

    fn message(&mut self, type_id: u8, stream_id: u32, body: &[u8]) {
        write_message(&mut self.bytes, self.chunk_size, COMMAND_CHUNK_STREAM, type_id, stream_id, 0, body);
    }
}

/// The information object of a status.
pub(super) fn info(level: Level, code: &str, description: &str) -> Value {
    let level = match level {
        Level::Status => "status",
        Level::Error => "error",
    };
    object([("level", text(level)), ("code", text(code)), ("description", text(description))])
}

/// An AMF0 string.
pub(super) fn text(text: &str) -> Value {
    Value::String(text.as_bytes().to_vec())
}

/// An AMF0 object.
pub(super) fn object<const N: usize>(items: [(&str, Value); N]) -> Value {
    Value::Object(items.into_iter().map(|(key, value)| (key.as_bytes().to_vec(), value)).collect())
}
