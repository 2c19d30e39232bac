//! Writing answers. Everything that one input calls for is appended to one buffer, so that it leaves in one write.

use crate::proto::rtmp::amf0::{self, Value};
use crate::proto::rtmp::chunk::{DEFAULT_CHUNK_SIZE, write_message};
use crate::proto::rtmp::message::{self, type_id};

/// Chunk stream of commands and statuses.
const COMMAND_CHUNK_STREAM: u32 = 3;

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
    chunk_size: u32,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), chunk_size: DEFAULT_CHUNK_SIZE }
    }

    /// Announces the chunk size; what follows is cut to it.
    pub(super) fn set_chunk_size(&mut self, bytes: u32) {
        let bytes = bytes.clamp(DEFAULT_CHUNK_SIZE, 0x00ff_ffff);
        message::write_set_chunk_size(&mut self.bytes, bytes);
        self.chunk_size = bytes;
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

    /// `onStatus` that sends the peer elsewhere.
    pub(super) fn status_elsewhere(&mut self, stream_id: u32, code: &str, description: &str, url: &str) {
        let mut status = info(Level::Error, code, description);
        if let Value::Object(items) = &mut status {
            items.push((b"ex".to_vec(), object([("code", Value::Number(302.0)), ("redirect", text(url))])));
        }
        self.command(stream_id, "onStatus", 0.0, &[Value::Null, status]);
    }

    /// A data message.
    pub(super) fn data(&mut self, stream_id: u32, values: &[Value]) {
        let mut body = Vec::with_capacity(128);
        for value in values {
            amf0::write(&mut body, value);
        }
        self.message(type_id::DATA_AMF0, stream_id, &body);
    }

    fn message(&mut self, type_id: u8, stream_id: u32, body: &[u8]) {
        let chunk_size = usize::try_from(self.chunk_size).unwrap_or(usize::MAX);
        write_message(&mut self.bytes, chunk_size, COMMAND_CHUNK_STREAM, type_id, stream_id, 0, body);
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
