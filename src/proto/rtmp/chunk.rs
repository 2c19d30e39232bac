//! The chunk layer (RTMP 1.0 §5.3): messages cut into chunks, many chunk streams interleaved.

use std::time::Instant;

use bytes::Bytes;

use crate::proto::rtmp::{ProtocolError, Settings};

/// One whole message as the chunk layer delivers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMessage {
    /// Message type id.
    pub type_id: u8,
    /// Message stream id.
    pub stream_id: u32,
    /// Timestamp, unwrapped to 64 bits per chunk stream (RT-38).
    pub timestamp_ms: u64,
    /// The chunk stream it came on.
    pub chunk_stream: u32,
    /// The body.
    pub payload: Bytes,
}

/// Puts messages together.
pub struct Reader(());

impl Reader {
    /// A reader at the start of a connection (chunk size 128).
    #[must_use]
    pub fn new(_settings: &Settings) -> Self {
        todo!("H1")
    }

    /// Takes input and appends whole messages to `out`; partial ones are kept, bounded by
    /// `partial_bytes`. Set Chunk Size and Abort act at once, inside, and are not delivered.
    ///
    /// # Errors
    /// The first rule or limit that the bytes break. The reader must not be used afterwards.
    pub fn handle(&mut self, _now: Instant, _input: &[u8], _out: &mut Vec<RawMessage>) -> Result<(), ProtocolError> {
        todo!("H1")
    }

    /// Raises the limit for unfinished messages once the peer may publish.
    pub fn authorize(&mut self) {
        todo!("H1")
    }

    /// When the oldest unfinished message must be complete.
    #[must_use]
    pub fn message_deadline(&self) -> Option<Instant> {
        todo!("H1")
    }

    /// Suspicious but legal things since the last call (RT-24 to RT-26, RT-31).
    pub fn take_glitches(&mut self) -> u32 {
        todo!("H1")
    }

    /// Bytes held for unfinished messages.
    #[must_use]
    pub fn partial_bytes(&self) -> usize {
        todo!("H1")
    }
}

/// Appends one message to `out` as chunks. The first chunk has a full (type 0) header with an absolute
/// timestamp, so that the bytes mean the same to every peer whatever it received before, and one
/// packaged copy serves all players.
pub fn write_message(
    _out: &mut Vec<u8>,
    _chunk_size: usize,
    _chunk_stream: u32,
    _type_id: u8,
    _stream_id: u32,
    _timestamp_ms: u64,
    _payload: &[u8],
) {
    todo!("H1")
}
