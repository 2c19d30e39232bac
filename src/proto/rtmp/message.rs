//! Message type ids and the control messages (RTMP 1.0 §5.4, §6.2, §7.1).

use crate::proto::rtmp::chunk::RawMessage;
use crate::proto::rtmp::chunk::write_message;
use crate::proto::rtmp::{ProtocolError, Settings};

/// Message type ids.
pub mod type_id {
    /// Set Chunk Size.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Abort Message.
    pub const ABORT: u8 = 2;
    /// Acknowledgement.
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User Control.
    pub const USER_CONTROL: u8 = 4;
    /// Window Acknowledgement Size.
    pub const WINDOW_ACK_SIZE: u8 = 5;
    /// Set Peer Bandwidth.
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Audio.
    pub const AUDIO: u8 = 8;
    /// Video.
    pub const VIDEO: u8 = 9;
    /// Data, AMF3.
    pub const DATA_AMF3: u8 = 15;
    /// Shared object, AMF3.
    pub const SHARED_OBJECT_AMF3: u8 = 16;
    /// Command, AMF3.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data, AMF0.
    pub const DATA_AMF0: u8 = 18;
    /// Shared object, AMF0.
    pub const SHARED_OBJECT_AMF0: u8 = 19;
    /// Command, AMF0.
    pub const COMMAND_AMF0: u8 = 20;
    /// Aggregate.
    pub const AGGREGATE: u8 = 22;

    /// Whether a type id has a meaning at all (RT-31).
    #[must_use]
    pub fn is_known(type_id: u8) -> bool {
        matches!(type_id, SET_CHUNK_SIZE..=SET_PEER_BANDWIDTH | AUDIO | VIDEO | DATA_AMF3..=COMMAND_AMF0 | AGGREGATE)
    }
}

/// The chunk stream of protocol control messages, which go on message stream 0 (RTMP 1.0 §5.4).
pub const CONTROL_CHUNK_STREAM: u32 = 2;

/// Longest buffer that a player may ask for and that we believe (RT-30), in milliseconds.
pub const BUFFER_MS_MAX: u32 = 10_000;

/// A control message as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    /// What it says.
    pub value: T,
    /// The body was longer than the message; the rest was ignored. A glitch (RT-25).
    pub longer: bool,
}

/// How a peer wants its bandwidth limit understood (RTMP 1.0 §5.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitType {
    /// Keep to it.
    Hard,
    /// Keep to it or to the limit in effect, whichever is smaller.
    Soft,
    /// Hard if the last one was hard, else ignore it.
    Dynamic,
}

/// A User Control message (RTMP 1.0 §7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserControl {
    /// The message stream has become useful.
    StreamBegin(u32),
    /// The message stream has no more data.
    StreamEof(u32),
    /// No data on the message stream for the moment.
    StreamDry(u32),
    /// The client's buffer.
    SetBufferLength {
        /// Message stream id.
        stream_id: u32,
        /// Milliseconds; at most [`BUFFER_MS_MAX`] when read.
        buffer_ms: u32,
    },
    /// The message stream is a recording.
    StreamIsRecorded(u32),
    /// Wants a [`PingResponse`](Self::PingResponse) with the same timestamp.
    PingRequest(u32),
    /// The answer.
    PingResponse(u32),
    /// An event that we do not know; to be ignored.
    Unknown(u16),
}

impl UserControl {
    /// Reads a body.
    ///
    /// # Errors
    /// `user_control` for a body too short for an event, or for what the event should carry.
    pub fn parse(body: &[u8]) -> Result<Parsed<Self>, ProtocolError> {
        const SHORT: ProtocolError = ProtocolError::Illegal("user_control");
        let (event, data) = body.split_first_chunk().ok_or(SHORT)?;
        let event = u16::from_be_bytes(*event);
        let build: fn(u32) -> Self = match event {
            0 => Self::StreamBegin,
            1 => Self::StreamEof,
            2 => Self::StreamDry,
            3 => {
                let (&[s0, s1, s2, s3, b0, b1, b2, b3], more) = data.split_first_chunk().ok_or(SHORT)?;
                let stream_id = u32::from_be_bytes([s0, s1, s2, s3]);
                let buffer_ms = u32::from_be_bytes([b0, b1, b2, b3]).min(BUFFER_MS_MAX);
                return Ok(Parsed { value: Self::SetBufferLength { stream_id, buffer_ms }, longer: !more.is_empty() });
            }
            4 => Self::StreamIsRecorded,
            6 => Self::PingRequest,
            7 => Self::PingResponse,
            other => return Ok(Parsed { value: Self::Unknown(other), longer: false }),
        };
        let (value, more) = data.split_first_chunk().ok_or(SHORT)?;
        Ok(Parsed { value: build(u32::from_be_bytes(*value)), longer: !more.is_empty() })
    }

    /// Appends the message to `out`, ready to send. [`Unknown`](Self::Unknown) goes without data.
    pub fn write(self, out: &mut Vec<u8>) {
        let (event, first, second) = match self {
            Self::StreamBegin(id) => (0_u16, Some(id), None),
            Self::StreamEof(id) => (1, Some(id), None),
            Self::StreamDry(id) => (2, Some(id), None),
            Self::SetBufferLength { stream_id, buffer_ms } => (3, Some(stream_id), Some(buffer_ms)),
            Self::StreamIsRecorded(id) => (4, Some(id), None),
            Self::PingRequest(time) => (6, Some(time), None),
            Self::PingResponse(time) => (7, Some(time), None),
            Self::Unknown(event) => (event, None, None),
        };
        let mut body = smallvec::SmallVec::<[u8; 10]>::from_slice(&event.to_be_bytes());
        for value in [first, second].into_iter().flatten() {
            body.extend_from_slice(&value.to_be_bytes());
        }
        write_control(out, type_id::USER_CONTROL, &body);
    }
}

/// Reads the four bytes of an Acknowledgement (RTMP 1.0 §5.4.3) or of any message of one number.
///
/// # Errors
/// `control_length` for a shorter body (RT-25).
pub fn parse_u32(body: &[u8]) -> Result<Parsed<u32>, ProtocolError> {
    let (bytes, more) = body.split_first_chunk().ok_or(ProtocolError::Illegal("control_length"))?;
    Ok(Parsed { value: u32::from_be_bytes(*bytes), longer: !more.is_empty() })
}

/// Reads Window Acknowledgement Size (RTMP 1.0 §5.4.4): how many bytes we may receive before we
/// acknowledge. 0 means our own default; what is below the floor is raised to it (RT-28).
///
/// # Errors
/// `control_length` for a shorter body.
pub fn parse_window_ack_size(body: &[u8], settings: &Settings) -> Result<Parsed<u32>, ProtocolError> {
    let Parsed { value, longer } = parse_u32(body)?;
    let wanted = if value == 0 { settings.window_ack_size } else { u64::from(value) };
    let value = u32::try_from(wanted.max(settings.window_ack_floor)).unwrap_or(u32::MAX);
    Ok(Parsed { value, longer })
}

/// Reads Set Peer Bandwidth (RTMP 1.0 §5.4.5): bytes, and how they are meant. `None` for a limit type
/// that does not exist, which makes the message one to ignore (RT-29).
///
/// # Errors
/// `control_length` for a shorter body.
pub fn parse_peer_bandwidth(body: &[u8]) -> Result<Parsed<Option<(u32, LimitType)>>, ProtocolError> {
    let (&[b0, b1, b2, b3, limit], more) = body.split_first_chunk().ok_or(ProtocolError::Illegal("control_length"))?;
    let size = u32::from_be_bytes([b0, b1, b2, b3]);
    let limit = match limit {
        0 => Some(LimitType::Hard),
        1 => Some(LimitType::Soft),
        2 => Some(LimitType::Dynamic),
        _ => None,
    };
    Ok(Parsed { value: limit.map(|limit| (size, limit)), longer: !more.is_empty() })
}

/// Appends Set Chunk Size: what follows it must use `size`.
pub fn write_set_chunk_size(out: &mut Vec<u8>, size: u32) {
    write_control(out, type_id::SET_CHUNK_SIZE, &size.to_be_bytes());
}

/// Appends an Abort Message for a chunk stream.
pub fn write_abort(out: &mut Vec<u8>, chunk_stream: u32) {
    write_control(out, type_id::ABORT, &chunk_stream.to_be_bytes());
}

/// Appends an Acknowledgement of all bytes received so far, which wraps at 32 bits.
pub fn write_acknowledgement(out: &mut Vec<u8>, received: u64) {
    #[expect(clippy::cast_possible_truncation)]
    write_control(out, type_id::ACKNOWLEDGEMENT, &(received as u32).to_be_bytes());
}

/// Appends Window Acknowledgement Size.
pub fn write_window_ack_size(out: &mut Vec<u8>, size: u32) {
    write_control(out, type_id::WINDOW_ACK_SIZE, &size.to_be_bytes());
}

/// Appends Set Peer Bandwidth.
pub fn write_peer_bandwidth(out: &mut Vec<u8>, size: u32, limit: LimitType) {
    let [b0, b1, b2, b3] = size.to_be_bytes();
    let limit = match limit {
        LimitType::Hard => 0,
        LimitType::Soft => 1,
        LimitType::Dynamic => 2,
    };
    write_control(out, type_id::SET_PEER_BANDWIDTH, &[b0, b1, b2, b3, limit]);
}

/// Control messages are shorter than the smallest chunk we ever send, so that the chunk size does not matter.
fn write_control(out: &mut Vec<u8>, type_id: u8, body: &[u8]) {
    write_message(out, 128, CONTROL_CHUNK_STREAM, type_id, 0, 0, body);
}

/// What came of an aggregate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Messages handed over.
    pub delivered: u32,
    /// Something in it was odd: a length past the end, a type that has no business there, or more
    /// items than the budget. What could not be read was dropped (RT-32).
    pub glitch: bool,
}

/// Splits an Aggregate message (RTMP 1.0 §7.1.6) into its audio, video and data messages, which share
/// its memory. At most `budget` items are looked at, empty ones included. The times inside are shifted
/// so that the first is the aggregate's; back pointers are not looked at, and anything but media, above
/// all another aggregate, is left out.
pub fn split_aggregate(aggregate: &RawMessage, budget: u32, mut deliver: impl FnMut(RawMessage)) -> Split {
    let mut split = Split::default();
    let mut rest = &aggregate.payload[..];
    let mut first_time = None;
    for _ in 0..budget {
        if rest.is_empty() {
            return split;
        }
        // Type, length, time with its high byte last, message stream id (which the aggregate's overrides).
        let item = rest.split_first_chunk().and_then(|(&[kind, l0, l1, l2, t1, t2, t3, t0, _, _, _], after)| {
            let length = usize::try_from(u32::from_be_bytes([0, l0, l1, l2])).ok()?;
            let (body, after) = after.split_at_checked(length)?;
            Some((kind, u32::from_be_bytes([t0, t1, t2, t3]), body, after))
        });
        let Some((kind, time, body, after)) = item else {
            split.glitch = true;
            return split;
        };
        // The last back pointer may be missing.
        rest = after.get(4..).unwrap_or_default();
        let step = time.wrapping_sub(*first_time.get_or_insert(time)).cast_signed();
        if body.is_empty() {
            continue;
        }
        if !matches!(kind, type_id::AUDIO | type_id::VIDEO | type_id::DATA_AMF0) {
            split.glitch = true;
            continue;
        }
        split.delivered = split.delivered.saturating_add(1);
        deliver(RawMessage {
            type_id: kind,
            stream_id: aggregate.stream_id,
            timestamp_ms: aggregate.timestamp_ms.saturating_add_signed(i64::from(step)),
            chunk_stream: aggregate.chunk_stream,
            payload: aggregate.payload.slice_ref(body),
        });
    }
    split.glitch |= !rest.is_empty();
    split
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
