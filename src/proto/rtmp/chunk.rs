//! The chunk layer (RTMP 1.0 §5.3): messages cut into chunks, many chunk streams interleaved.

use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;

use crate::proto::rtmp::message::type_id;
use crate::proto::rtmp::{Glitch, Glitches, ProtocolError, Settings};

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
///
/// It is one machine over bytes: a chunk's header, then that chunk's part of a body, and again. A
/// header may be cut anywhere between two inputs; its first bytes then wait in a fixed buffer. Bodies
/// are copied once, from the input into the memory that the message keeps.
pub struct Reader {
    limits: Limits,
    /// Every chunk stream id seen so far. Peers use three to six, so a search from the front is faster than any map.
    streams: Vec<ChunkStream>,
    /// The largest part of a message that one chunk carries; set by the peer.
    chunk_size: u32,
    /// The chunk whose body is being read.
    chunk: Option<Chunk>,
    /// The first bytes of a header that the last input cut.
    cut: Cut,
    /// Bytes received of unfinished messages, and the capacity that holds them.
    received: usize,
    held: usize,
    chunk_size_changes: Burst,
    aborts: Burst,
    glitches: Glitches,
    has_glitches: bool,
}

/// Longest header: 3 bytes of id, 11 of message header, 4 of extended timestamp.
const HEADER_MAX: usize = 18;

/// The chunk size before any Set Chunk Size (RTMP 1.0 §5.4.1).
pub const DEFAULT_CHUNK_SIZE: u32 = 128;

/// Largest value of the 24-bit fields. As a timestamp it says that 32 bits follow (RTMP 1.0 §5.3.1.3).
const MAX_24_BITS: u32 = 0xff_ffff;

/// What a lone unfinished message may hold beyond twice what was received, so that small messages cut
/// into several chunks take one allocation. With the state of 64 chunk streams it stays below 8 KiB.
const SLACK: usize = 3072;

/// Set Chunk Size and Abort messages in [`BURST_TIME`] beyond which each is a glitch (RT-24, RT-26).
const BURST: u32 = 16;
const BURST_TIME: Duration = Duration::from_secs(10);

struct Limits {
    chunk_streams: usize,
    command: u32,
    data: u32,
    audio: u32,
    video: u32,
    partial: usize,
    partial_authorized: usize,
    message_timeout: Duration,
}

/// What later headers on one chunk stream leave out, and the message under way on it.
struct ChunkStream {
    id: u32,
    stream_id: u32,
    length: u32,
    type_id: u8,
    /// The last type 0, 1 or 2 header had an extended timestamp.
    extended: bool,
    /// Timestamp field of the last type 0, 1 or 2 header: the time itself for type 0, else a delta.
    field: u32,
    timestamp_ms: u64,
    /// When the message under way began.
    began_at: Option<Instant>,
    body: Vec<u8>,
}

/// Place in [`Reader::streams`], and bytes to come, at least 1.
#[derive(Clone, Copy)]
struct Chunk {
    index: usize,
    left: usize,
}

#[derive(Clone, Copy)]
struct Cut {
    bytes: [u8; HEADER_MAX],
    len: usize,
}

enum Step {
    Message(RawMessage),
    Progress,
    /// The input ends inside a header. Nothing was taken.
    NeedMore,
}

/// A header as read, before it means anything.
struct Header {
    format: u8,
    id: u32,
    /// Place of the id in [`Reader::streams`] if it was seen before.
    index: Option<usize>,
    /// Types 0 to 2: timestamp or delta, and whether it took the extended form.
    time: Option<(u32, bool)>,
    /// Types 0 and 1: length and type id.
    kind: Option<(u32, u8)>,
    /// Type 0.
    stream_id: Option<u32>,
}

impl Reader {
    /// A reader at the start of a connection (chunk size 128).
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            limits: Limits::new(settings),
            streams: Vec::new(),
            chunk_size: DEFAULT_CHUNK_SIZE,
            chunk: None,
            cut: Cut { bytes: [0; HEADER_MAX], len: 0 },
            received: 0,
            held: 0,
            chunk_size_changes: Burst::default(),
            aborts: Burst::default(),
            glitches: Glitches::default(),
            has_glitches: false,
        }
    }

    /// Takes input and appends whole messages to `out`; partial ones are kept, bounded by
    /// `partial_bytes`. Set Chunk Size and Abort act at once, inside, and are not delivered.
    ///
    /// `out` can become some thirty times longer than an input made of the shortest messages;
    /// [`poll_message`](Self::poll_message) does not have that cost.
    ///
    /// # Errors
    /// The first rule or limit that the bytes break. The reader must not be used afterwards.
    pub fn handle(&mut self, now: Instant, input: &[u8], out: &mut Vec<RawMessage>) -> Result<(), ProtocolError> {
        let mut rest = input;
        while let Some(message) = self.poll_message(now, &mut rest)? {
            out.push(message);
        }
        Ok(())
    }

    /// Takes input up to the end of the next message, and moves `input` behind what was taken. `None`
    /// once all of it is taken. What [`handle`](Self::handle) does, one message at a time.
    ///
    /// # Errors
    /// The first rule or limit that the bytes break. The reader must not be used afterwards.
    pub fn poll_message(&mut self, now: Instant, input: &mut &[u8]) -> Result<Option<RawMessage>, ProtocolError> {
        loop {
            if self.cut.len == 0 {
                if input.is_empty() {
                    return Ok(None);
                }
                match self.step(now, input)? {
                    Step::Message(message) => return Ok(Some(message)),
                    Step::Progress => {}
                    Step::NeedMore => {
                        self.cut.keep(input);
                        *input = &[];
                    }
                }
                continue;
            }
            // The last input cut a header: top the kept bytes up and take one step on them. The step
            // may end before the input begins, namely when bytes that looked like the extended
            // timestamp of a type 3 header turn out to be body.
            let mut joined = self.cut;
            joined.keep(input);
            let mut rest = joined.bytes.get(..joined.len).unwrap_or_default();
            let step = self.step(now, &mut rest)?;
            if matches!(step, Step::NeedMore) {
                // A full buffer is always enough, so the input fitted into it.
                self.cut = joined;
                *input = &[];
                return Ok(None);
            }
            let taken = joined.len.saturating_sub(rest.len());
            match taken.checked_sub(self.cut.len) {
                Some(of_input) => {
                    *input = input.get(of_input..).unwrap_or_default();
                    self.cut.len = 0;
                }
                None => self.cut.drop_first(taken),
            }
            if let Step::Message(message) = step {
                return Ok(Some(message));
            }
        }
    }

    /// Raises the limit for unfinished messages once the peer may publish.
    pub fn authorize(&mut self) {
        self.limits.partial = self.limits.partial_authorized;
    }

    /// When the oldest unfinished message must be complete.
    #[must_use]
    pub fn message_deadline(&self) -> Option<Instant> {
        let oldest = self.streams.iter().filter_map(|stream| stream.began_at).min()?;
        oldest.checked_add(self.limits.message_timeout)
    }

    /// Another time for messages to become complete, those under way included.
    pub(super) fn set_message_timeout(&mut self, timeout: Duration) {
        self.limits.message_timeout = timeout;
    }

    /// True when [`take_glitches`](Self::take_glitches) has something.
    #[must_use]
    pub fn has_glitches(&self) -> bool {
        self.has_glitches
    }

    /// Suspicious but legal things since the last call (RT-24 to RT-26, RT-31). Messages of unknown
    /// type are counted here and delivered all the same.
    pub fn take_glitches(&mut self) -> Glitches {
        self.has_glitches = false;
        std::mem::take(&mut self.glitches)
    }

    /// Bytes held for unfinished messages: capacity, at most twice what was received and 8 KiB.
    #[must_use]
    pub fn partial_bytes(&self) -> usize {
        self.held
    }

    /// The chunk size that the peer uses now.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// Reads one header, or the part of a body that the input has. `input` is not empty.
    fn step(&mut self, now: Instant, input: &mut &[u8]) -> Result<Step, ProtocolError> {
        let message = if let Some(chunk) = self.chunk {
            self.take_body(now, chunk, input)?
        } else if let Some((header, rest)) = self.read_header(input)? {
            *input = rest;
            self.begin_chunk(now, &header)?
        } else {
            return Ok(Step::NeedMore);
        };
        Ok(message.map_or(Step::Progress, Step::Message))
    }

    /// Reads one header. `None` when more bytes are needed.
    fn read_header<'a>(&self, input: &'a [u8]) -> Result<Option<(Header, &'a [u8])>, ProtocolError> {
        let Some((format, id, rest)) = read_basic_header(input) else { return Ok(None) };
        let index = self.streams.iter().position(|stream| stream.id == id);
        let known = index.and_then(|index| self.streams.get(index));
        match known {
            None if format >= 2 => return Err(ProtocolError::Illegal("chunk_header")),
            None if self.streams.len() >= self.limits.chunk_streams => {
                return Err(ProtocolError::Limit("chunk_streams"));
            }
            // The rest of a message is never computed from a new header (RT-21).
            Some(stream) if format != 3 && stream.began_at.is_some() => {
                return Err(ProtocolError::Illegal("message_interrupted"));
            }
            _ => {}
        }
        let mut header = Header { format, id, index, time: None, kind: None, stream_id: None };
        let read = match format {
            0 => rest.split_first_chunk().map(|(&[t0, t1, t2, l0, l1, l2, kind, s0, s1, s2, s3], rest)| {
                header.kind = Some((u32::from_be_bytes([0, l0, l1, l2]), kind));
                header.stream_id = Some(u32::from_le_bytes([s0, s1, s2, s3]));
                (u32::from_be_bytes([0, t0, t1, t2]), rest)
            }),
            1 => rest.split_first_chunk().map(|(&[t0, t1, t2, l0, l1, l2, kind], rest)| {
                header.kind = Some((u32::from_be_bytes([0, l0, l1, l2]), kind));
                (u32::from_be_bytes([0, t0, t1, t2]), rest)
            }),
            2 => rest.split_first_chunk().map(|(&[t0, t1, t2], rest)| (u32::from_be_bytes([0, t0, t1, t2]), rest)),
            _ => {
                let rest = match known {
                    Some(stream) if stream.extended => skip_repeated_time(stream.field, rest),
                    _ => Some(rest),
                };
                return Ok(rest.map(|rest| (header, rest)));
            }
        };
        let Some((field, rest)) = read else { return Ok(None) };
        if let Some((length, kind)) = header.kind
            && length > self.limits.message(kind)
        {
            return Err(ProtocolError::Limit("message_size"));
        }
        if field < MAX_24_BITS {
            header.time = Some((field, false));
            return Ok(Some((header, rest)));
        }
        Ok(rest.split_first_chunk().map(|(long, rest)| {
            header.time = Some((u32::from_be_bytes(*long), true));
            (header, rest)
        }))
    }

    /// Lets a header take effect. A message without a body is complete with it.
    fn begin_chunk(&mut self, now: Instant, header: &Header) -> Result<Option<RawMessage>, ProtocolError> {
        let index = header.index.unwrap_or(self.streams.len());
        if header.index.is_none() {
            self.streams.push(ChunkStream::new(header.id));
        }
        let Some(stream) = self.streams.get_mut(index) else { return Ok(None) };
        if stream.began_at.is_none() {
            stream.begin_message(now, header);
        }
        let missing = stream.missing();
        if missing == 0 {
            return self.complete(now, index, Bytes::new());
        }
        self.chunk = Some(Chunk { index, left: missing.min(to_usize(self.chunk_size)) });
        Ok(None)
    }

    /// Takes as much of the chunk's body as the input has.
    fn take_body(
        &mut self,
        now: Instant,
        chunk: Chunk,
        input: &mut &[u8],
    ) -> Result<Option<RawMessage>, ProtocolError> {
        let (part, rest) = input.split_at_checked(chunk.left).unwrap_or((*input, &[]));
        *input = rest;
        let left = chunk.left.saturating_sub(part.len());
        self.chunk = (left > 0).then_some(Chunk { left, ..chunk });

        // The limit counts what a message has received, whole or not, so that it means the same
        // whatever the segments.
        let received = self.received.saturating_add(part.len());
        if received > self.limits.partial {
            return Err(ProtocolError::Limit("partial_bytes"));
        }
        let Some(stream) = self.streams.get_mut(chunk.index) else { return Ok(None) };
        let missing = stream.missing().saturating_sub(part.len());
        if missing == 0 && stream.body.is_empty() {
            // All of it in one piece: one allocation of the right size.
            return self.complete(now, chunk.index, Bytes::copy_from_slice(part));
        }
        let before = stream.body.capacity();
        stream.append(part, self.held == before);
        self.held = self.held.saturating_sub(before).saturating_add(stream.body.capacity());
        self.received = received;
        if missing > 0 {
            return Ok(None);
        }
        let body = self.release(chunk.index);
        self.complete(now, chunk.index, Bytes::from(body))
    }

    /// The message on a chunk stream has all its bytes.
    fn complete(&mut self, now: Instant, index: usize, payload: Bytes) -> Result<Option<RawMessage>, ProtocolError> {
        let Some(stream) = self.streams.get_mut(index) else { return Ok(None) };
        stream.began_at = None;
        match stream.type_id {
            type_id::SET_CHUNK_SIZE => self.set_chunk_size(now, &payload).map(|()| None),
            type_id::ABORT => self.abort(now, &payload).map(|()| None),
            kind => {
                let message = RawMessage {
                    type_id: kind,
                    stream_id: stream.stream_id,
                    timestamp_ms: stream.timestamp_ms,
                    chunk_stream: stream.id,
                    payload,
                };
                if !type_id::is_known(kind) {
                    self.glitch(Glitch::UnknownType);
                }
                Ok(Some(message))
            }
        }
    }

    /// Set Chunk Size (RTMP 1.0 §5.4.1; RT-23 to RT-25). Only a number changes: a claimed size
    /// allocates nothing.
    fn set_chunk_size(&mut self, now: Instant, body: &[u8]) -> Result<(), ProtocolError> {
        const ILLEGAL: ProtocolError = ProtocolError::Illegal("chunk_size");
        let (bytes, more) = body.split_first_chunk().ok_or(ILLEGAL)?;
        let size = u32::from_be_bytes(*bytes);
        if size == 0 || size > 0x7fff_ffff {
            return Err(ILLEGAL);
        }
        if !more.is_empty() {
            self.glitch(Glitch::Longer);
        }
        if size < DEFAULT_CHUNK_SIZE {
            self.glitch(Glitch::ChunkSize);
        }
        if self.chunk_size_changes.is_beyond(now) {
            self.glitch(Glitch::ChunkSize);
        }
        self.chunk_size = size;
        Ok(())
    }

    /// Abort Message (RTMP 1.0 §5.4.2; RT-25, RT-26): the unfinished message of a chunk stream is void.
    fn abort(&mut self, now: Instant, body: &[u8]) -> Result<(), ProtocolError> {
        let (bytes, more) = body.split_first_chunk().ok_or(ProtocolError::Illegal("abort"))?;
        let id = u32::from_be_bytes(*bytes);
        if !more.is_empty() {
            self.glitch(Glitch::Longer);
        }
        if self.aborts.is_beyond(now) {
            self.glitch(Glitch::Abort);
        }
        if let Some(index) = self.streams.iter().position(|stream| stream.id == id) {
            drop(self.release(index));
        }
        Ok(())
    }

    /// Takes the unfinished body out of a chunk stream and out of the sums.
    fn release(&mut self, index: usize) -> Vec<u8> {
        let Some(stream) = self.streams.get_mut(index) else { return Vec::new() };
        stream.began_at = None;
        let body = std::mem::take(&mut stream.body);
        self.received = self.received.saturating_sub(body.len());
        self.held = self.held.saturating_sub(body.capacity());
        body
    }

    fn glitch(&mut self, what: Glitch) {
        self.glitches.add(what, 1);
        self.has_glitches = true;
    }
}

/// Appends one message to `out` as chunks. The first chunk has a full (type 0) header with an absolute
/// timestamp, so that the bytes mean the same to every peer whatever it received before, and one
/// packaged copy serves all players.
///
/// `chunk_stream` is 2 to 65,599, `chunk_size` at least 1 and the payload at most 16,777,215 bytes, which
/// is what a header can say; values outside are brought inside.
pub fn write_message(
    out: &mut Vec<u8>,
    chunk_size: usize,
    chunk_stream: u32,
    type_id: u8,
    stream_id: u32,
    timestamp_ms: u64,
    payload: &[u8],
) {
    let payload = payload.get(..to_usize(MAX_24_BITS)).unwrap_or(payload);
    let mut chunks = payload.chunks(chunk_size.max(1));
    let [_, l0, l1, l2] = u32::try_from(payload.len()).unwrap_or(MAX_24_BITS).to_be_bytes();
    // RTMP's clock has 32 bits and wraps (RTMP 1.0 §4).
    #[expect(clippy::cast_possible_truncation)]
    let time = timestamp_ms as u32;
    let [_, t0, t1, t2] = time.min(MAX_24_BITS).to_be_bytes();
    let extended = time.to_be_bytes();
    let extended = if time >= MAX_24_BITS { &extended[..] } else { &[] };

    let per_chunk = extended.len().saturating_add(3);
    out.reserve(chunks.len().max(1).saturating_mul(per_chunk).saturating_add(11).saturating_add(payload.len()));
    write_basic_header(out, 0, chunk_stream);
    out.extend_from_slice(&[t0, t1, t2, l0, l1, l2, type_id]);
    out.extend_from_slice(&stream_id.to_le_bytes());
    out.extend_from_slice(extended);
    out.extend_from_slice(chunks.next().unwrap_or_default());
    for chunk in chunks {
        write_basic_header(out, 3, chunk_stream);
        // The specification is read both ways here; every peer that we know of reads a repeated time
        // right, and several read a missing one wrong.
        out.extend_from_slice(extended);
        out.extend_from_slice(chunk);
    }
}

impl ChunkStream {
    fn new(id: u32) -> Self {
        Self {
            id,
            stream_id: 0,
            length: 0,
            type_id: 0,
            extended: false,
            field: 0,
            timestamp_ms: 0,
            began_at: None,
            body: Vec::new(),
        }
    }

    /// Takes over what the first header of a message says; the rest is as in the message before.
    ///
    /// A type 3 header repeats the last timestamp field as a delta, and so it does after a type 0
    /// header, where the field was a time (RTMP 1.0 §5.3.1.2.4). That is odd, but ffmpeg writes and
    /// reads it so, and players that follow the specification do. librtmp (and with it OBS) and
    /// nginx-rtmp write a type 3 header when the time did not change at all; they do it only for two
    /// messages in a row of equal type, size and time, which media hardly has outside of time 0, where
    /// both readings agree. So the specification wins.
    fn begin_message(&mut self, now: Instant, header: &Header) {
        if let Some((length, type_id)) = header.kind {
            self.length = length;
            self.type_id = type_id;
        }
        if let Some(stream_id) = header.stream_id {
            self.stream_id = stream_id;
        }
        if let Some((field, extended)) = header.time {
            self.field = field;
            self.extended = extended;
        }
        self.timestamp_ms = match (header.index, header.format) {
            // A type 1 header on a fresh id has nothing to add to: the delta is the time (RT-20).
            (None, _) => u64::from(self.field),
            (Some(_), 0) => unwrap_time(self.timestamp_ms, self.field),
            (Some(_), _) => {
                #[expect(clippy::cast_possible_truncation)]
                let low = self.timestamp_ms as u32;
                // Encoders write a step back as a delta that wraps, hence modulo 2^32.
                unwrap_time(self.timestamp_ms, low.wrapping_add(self.field))
            }
        };
        self.began_at = Some(now);
    }

    /// Bytes of the message under way that are still to come.
    fn missing(&self) -> usize {
        to_usize(self.length).saturating_sub(self.body.len())
    }

    /// Appends a part of the body. Memory grows with what was received, never to what was claimed: to
    /// twice the bytes that are there, and [`SLACK`] if no other message is held. Capacity never
    /// exceeds the message, so that the finished body needs no copy and wastes nothing.
    fn append(&mut self, part: &[u8], alone: bool) {
        let needed = self.body.len().saturating_add(part.len());
        if needed > self.body.capacity() {
            let slack = if alone { SLACK } else { 0 };
            let wanted = needed.saturating_mul(2).saturating_add(slack).min(to_usize(self.length)).max(needed);
            self.body.reserve_exact(wanted.saturating_sub(self.body.len()));
        }
        self.body.extend_from_slice(part);
    }
}

impl Limits {
    fn new(settings: &Settings) -> Self {
        let message = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            chunk_streams: settings.chunk_streams,
            command: message(settings.max_command),
            data: message(settings.max_data),
            audio: message(settings.max_audio),
            video: message(settings.max_video),
            partial: bytes(settings.partial_bytes_unauthorized),
            partial_authorized: bytes(settings.partial_bytes),
            message_timeout: settings.message_timeout,
        }
    }

    /// Longest message of a type. An aggregate is a bag of audio and video.
    fn message(&self, kind: u8) -> u32 {
        match kind {
            type_id::AUDIO => self.audio,
            type_id::VIDEO | type_id::AGGREGATE => self.video,
            type_id::DATA_AMF0 | type_id::DATA_AMF3 => self.data,
            _ => self.command,
        }
    }
}

impl Cut {
    /// Appends what fits, and says how much that was.
    fn keep(&mut self, input: &[u8]) -> usize {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let added = room.iter_mut().zip(input).map(|(to, from)| *to = *from).count();
        self.len = self.len.saturating_add(added);
        added
    }

    fn drop_first(&mut self, count: usize) {
        let count = count.min(self.len);
        self.bytes.copy_within(count.., 0);
        self.len = self.len.saturating_sub(count);
    }
}

/// Counts how often something happens in windows of [`BURST_TIME`].
#[derive(Default)]
struct Burst {
    began_at: Option<Instant>,
    count: u32,
}

impl Burst {
    /// Counts one, and says whether it is one too many.
    fn is_beyond(&mut self, now: Instant) -> bool {
        match self.began_at {
            Some(began_at) if now.saturating_duration_since(began_at) < BURST_TIME => {
                self.count = self.count.saturating_add(1);
            }
            _ => {
                self.began_at = Some(now);
                self.count = 1;
            }
        }
        self.count > BURST
    }
}

/// Reads format and chunk stream id (RTMP 1.0 §5.3.1.1). The longer forms may say what a shorter could.
fn read_basic_header(input: &[u8]) -> Option<(u8, u32, &[u8])> {
    let (first, rest) = input.split_first()?;
    let format = first >> 6;
    match first & 0x3f {
        0 => rest.split_first().map(|(&low, rest)| (format, u32::from(low).saturating_add(64), rest)),
        1 => rest
            .split_first_chunk()
            .map(|(&[low, high], rest)| (format, u32::from(u16::from_le_bytes([low, high])).saturating_add(64), rest)),
        id => Some((format, u32::from(id), rest)),
    }
}

fn write_basic_header(out: &mut Vec<u8>, format: u8, chunk_stream: u32) {
    let format = format << 6;
    match chunk_stream {
        0..=2 => out.push(format | 2),
        #[expect(clippy::cast_possible_truncation)]
        3..=63 => out.push(format | chunk_stream as u8),
        #[expect(clippy::cast_possible_truncation)]
        64..=319 => out.extend_from_slice(&[format, chunk_stream.wrapping_sub(64) as u8]),
        _ => {
            let [low, high] = u16::try_from(chunk_stream.saturating_sub(64)).unwrap_or(u16::MAX).to_le_bytes();
            out.extend_from_slice(&[format | 1, low, high]);
        }
    }
}

/// Moves behind an extended timestamp that a type 3 header repeats. Some peers repeat it and some do
/// not (RT-37), and only the value tells. `None` while the bytes could still become either.
fn skip_repeated_time(field: u32, rest: &[u8]) -> Option<&[u8]> {
    let repeated = field.to_be_bytes();
    match rest.split_first_chunk::<4>() {
        Some((bytes, after)) => Some(if *bytes == repeated { after } else { rest }),
        None => (!repeated.starts_with(rest)).then_some(rest),
    }
}

/// The 64-bit time nearest to `previous` whose low 32 bits are `low` (RT-38). There is none before
/// zero; a step that would lead there is taken as a new start.
fn unwrap_time(previous: u64, low: u32) -> u64 {
    #[expect(clippy::cast_possible_truncation)]
    let step = low.wrapping_sub(previous as u32).cast_signed();
    previous.checked_add_signed(i64::from(step)).unwrap_or(u64::from(low))
}

/// Lossless: the server is for 64-bit Linux.
fn to_usize(value: u32) -> usize {
    value as usize
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
