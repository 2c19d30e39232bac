//! A reader of chunks that skips: it follows chunk headers and looks at the first bytes of each audio and video
//! message, nothing more.
//!
//! At thousands of players in one thread the whole engine would cost more than the server under test, so media is
//! read by this. It knows every header form (types 0 to 3, one to three bytes of basic header, extended timestamps,
//! interleaved chunk streams, a chunk size that changes), because servers differ in what they send.

/// How many bytes at the head of an audio or video message are kept: enough for a tag header and a stamp.
pub const HEAD_BYTES: usize = 48;
/// What a server sends before the first chunk: S0, S1 and S2.
pub const HANDSHAKE_BYTES: usize = 1 + 1536 + 1536;
/// A message longer than this is no message of a server we measure; the bytes are out of step.
const MESSAGE_BYTES_MAX: usize = 1 << 24;
/// How much of a message that is not media is kept. Commands and control messages are far smaller.
const OTHER_BYTES_MAX: usize = 16 << 10;
/// Basic header 3, message header 11, extended timestamp 4.
const HEADER_BYTES_MAX: usize = 18;

const SET_CHUNK_SIZE: u8 = 1;
const ABORT: u8 = 2;
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;

/// One whole message, or as much of it as anybody wants to see.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// The bytes of the handshake have passed; chunks begin.
    HandshakeDone,
    /// An audio or video message is complete.
    Media {
        /// 8 or 9.
        type_id: u8,
        /// Its first bytes, at most [`HEAD_BYTES`].
        head: &'a [u8],
        /// Its whole length.
        len: usize,
    },
    /// Any other message is complete.
    Other {
        /// Message type id.
        type_id: u8,
        /// Its body.
        payload: &'a [u8],
    },
}

/// The bytes are not chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// A short header on a chunk stream that never had a long one.
    #[error("chunk stream {0} begins without a full header")]
    NoHeaderBefore(u32),
    /// A length that no message has.
    #[error("a message claims {0} bytes")]
    Length(usize),
    /// A chunk size of zero.
    #[error("chunk size 0")]
    ChunkSize,
}

/// The state between two reads.
pub struct Scanner {
    handshake_left: usize,
    chunk_size: usize,
    streams: Vec<ChunkStream>,
    /// Index in `streams` of the chunk being skipped.
    current: usize,
    /// Bytes of the current chunk's payload still to come.
    chunk_left: usize,
    /// A header that was cut by the end of a read.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
}

/// What the last headers of one chunk stream said.
struct ChunkStream {
    id: u32,
    len: usize,
    type_id: u8,
    extended: bool,
    /// Bytes of the message in progress that are still to come; 0 between messages.
    left: usize,
    head: [u8; HEAD_BYTES],
    head_len: usize,
    body: Vec<u8>,
}

/// One chunk header that is wholly there.
struct Header {
    bytes: usize,
    id: u32,
    format: u8,
    len: Option<usize>,
    type_id: Option<u8>,
    extended: bool,
}

impl Scanner {
    /// A scanner at the first byte that the server sends.
    pub fn new() -> Self {
        Self { handshake_left: HANDSHAKE_BYTES, ..Self::after_handshake() }
    }

    /// A scanner at the first chunk.
    pub fn after_handshake() -> Self {
        Self {
            handshake_left: 0,
            chunk_size: 128,
            streams: Vec::new(),
            current: 0,
            chunk_left: 0,
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
        }
    }

    /// Takes the next bytes and tells `on` of every message that they complete.
    pub fn scan(&mut self, mut input: &[u8], mut on: impl FnMut(Item<'_>)) -> Result<(), ScanError> {
        if self.handshake_left > 0 {
            let taken = self.handshake_left.min(input.len());
            self.handshake_left -= taken;
            input = &input[taken..];
            if self.handshake_left == 0 {
                on(Item::HandshakeDone);
            }
        }
        while !input.is_empty() {
            let taken = if self.chunk_left > 0 {
                self.take_payload(input, &mut on)?
            } else {
                self.take_header(input, &mut on)?
            };
            input = &input[taken..];
        }
        Ok(())
    }

    fn take_payload(&mut self, input: &[u8], on: &mut impl FnMut(Item<'_>)) -> Result<usize, ScanError> {
        let taken = self.chunk_left.min(input.len());
        self.chunk_left -= taken;
        let stream = &mut self.streams[self.current];
        stream.keep(&input[..taken]);
        stream.left -= taken;
        if stream.left == 0 {
            self.complete(on)?;
        }
        Ok(taken)
    }

    fn take_header(&mut self, input: &[u8], on: &mut impl FnMut(Item<'_>)) -> Result<usize, ScanError> {
        // The common case: the whole header lies in this read.
        if self.header_len == 0
            && let Some(header) = self.parse_header(input)
        {
            let taken = header.bytes;
            self.begin_chunk(&header, on)?;
            return Ok(taken);
        }
        let room = HEADER_BYTES_MAX - self.header_len;
        let added = room.min(input.len());
        let before = self.header_len;
        self.header[before..before + added].copy_from_slice(&input[..added]);
        let known = before + added;
        let copy = self.header;
        if let Some(header) = self.parse_header(&copy[..known]) {
            self.header_len = 0;
            self.begin_chunk(&header, on)?;
            Ok(header.bytes - before)
        } else {
            self.header_len = known;
            Ok(added)
        }
    }

    /// Reads a chunk header (RTMP 1.0 §5.3.1), or says that more bytes are needed.
    fn parse_header(&self, input: &[u8]) -> Option<Header> {
        let first = *input.first()?;
        let (id, basic) = match first & 0x3f {
            0 => (64 + u32::from(*input.get(1)?), 2),
            1 => (64 + u32::from(*input.get(1)?) + 256 * u32::from(*input.get(2)?), 3),
            id => (u32::from(id), 1),
        };
        let format = first >> 6;
        let message_bytes = match format {
            0 => 11,
            1 => 7,
            2 => 3,
            _ => 0,
        };
        let message = input.get(basic..basic + message_bytes)?;
        let extended = match message {
            [a, b, c, ..] => [*a, *b, *c] == [0xff; 3],
            // Type 3 repeats the extended timestamp when the chunk stream's last header had one.
            _ => self.streams.iter().any(|s| s.id == id && s.extended),
        };
        let bytes = basic + message_bytes + if extended { 4 } else { 0 };
        if input.len() < bytes {
            return None;
        }
        let len = message.get(3..6).map(|l| usize::from(l[0]) << 16 | usize::from(l[1]) << 8 | usize::from(l[2]));
        Some(Header { bytes, id, format, len, type_id: message.get(6).copied(), extended })
    }

    fn begin_chunk(&mut self, header: &Header, on: &mut impl FnMut(Item<'_>)) -> Result<(), ScanError> {
        self.current = match self.streams.iter().position(|s| s.id == header.id) {
            Some(index) => index,
            None if header.format == 0 => {
                self.streams.push(ChunkStream::new(header.id));
                self.streams.len() - 1
            }
            None => return Err(ScanError::NoHeaderBefore(header.id)),
        };
        let stream = &mut self.streams[self.current];
        if let Some(len) = header.len {
            if len > MESSAGE_BYTES_MAX {
                return Err(ScanError::Length(len));
            }
            stream.len = len;
        }
        if let Some(type_id) = header.type_id {
            stream.type_id = type_id;
        }
        if header.format < 3 {
            stream.extended = header.extended;
        }
        // A message begins where none is in progress, and also where a longer header interrupts one.
        if header.format < 3 || stream.left == 0 {
            stream.left = stream.len;
            stream.head_len = 0;
            stream.body.clear();
        }
        self.chunk_left = stream.left.min(self.chunk_size);
        if stream.left == 0 {
            return self.complete(on);
        }
        Ok(())
    }

    fn complete(&mut self, on: &mut impl FnMut(Item<'_>)) -> Result<(), ScanError> {
        let stream = &self.streams[self.current];
        match stream.type_id {
            AUDIO | VIDEO => {
                let head = &stream.head[..stream.head_len];
                on(Item::Media { type_id: stream.type_id, head, len: stream.len });
            }
            SET_CHUNK_SIZE => {
                if let Some(size) = be32(&stream.body) {
                    self.chunk_size = (size & 0x7fff_ffff) as usize;
                    if self.chunk_size == 0 {
                        return Err(ScanError::ChunkSize);
                    }
                }
            }
            ABORT => {
                let id = be32(&stream.body);
                if let Some(aborted) = self.streams.iter_mut().find(|s| Some(s.id) == id) {
                    aborted.left = 0;
                }
            }
            type_id => on(Item::Other { type_id, payload: &stream.body }),
        }
        Ok(())
    }
}

impl ChunkStream {
    fn new(id: u32) -> Self {
        let head = [0; HEAD_BYTES];
        Self { id, len: 0, type_id: 0, extended: false, left: 0, head, head_len: 0, body: Vec::new() }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if matches!(self.type_id, AUDIO | VIDEO) {
            let kept = (HEAD_BYTES - self.head_len).min(bytes.len());
            if kept > 0 {
                self.head[self.head_len..self.head_len + kept].copy_from_slice(&bytes[..kept]);
                self.head_len += kept;
            }
        } else {
            let kept = (OTHER_BYTES_MAX - self.body.len()).min(bytes.len());
            self.body.extend_from_slice(&bytes[..kept]);
        }
    }
}

/// The first four bytes as a big-endian number.
pub fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|four| u32::from_be_bytes(*four))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Handshake,
        Media(u8, Vec<u8>, usize),
        Other(u8, Vec<u8>),
    }

    fn seen(scanner: &mut Scanner, input: &[u8], out: &mut Vec<Seen>) -> Result<(), ScanError> {
        scanner.scan(input, |item| {
            out.push(match item {
                Item::HandshakeDone => Seen::Handshake,
                Item::Media { type_id, head, len } => Seen::Media(type_id, head.to_vec(), len),
                Item::Other { type_id, payload } => Seen::Other(type_id, payload.to_vec()),
            });
        })
    }

    fn full(id: u8, timestamp: u32, len: usize, type_id: u8) -> Vec<u8> {
        let mut out = vec![id];
        out.extend_from_slice(&timestamp.to_be_bytes()[1..]);
        out.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes()[1..]);
        out.push(type_id);
        out.extend_from_slice(&1u32.to_le_bytes());
        out
    }

    fn body(len: usize, seed: u8) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).unwrap() ^ seed).collect()
    }

    /// A wire with everything a server may do: a chunk size that changes, two interleaved messages, every header
    /// type, an extended timestamp, two- and three-byte basic headers, an aborted message and an empty one.
    fn wire() -> (Vec<u8>, Vec<Seen>) {
        let mut w = vec![9; HANDSHAKE_BYTES];
        let mut expected = vec![Seen::Handshake];
        let media = |type_id, payload: &[u8]| {
            Seen::Media(type_id, payload[..payload.len().min(HEAD_BYTES)].to_vec(), payload.len())
        };
        // Video of 300 bytes in chunks of 128 with audio in between.
        let (video, audio) = (body(300, 1), body(100, 2));
        w.extend(full(6, 0, 300, VIDEO));
        w.extend(&video[..128]);
        w.extend(full(4, 0, 100, AUDIO));
        w.extend(&audio);
        w.push(0xc6);
        w.extend(&video[128..256]);
        w.push(0xc6);
        w.extend(&video[256..]);
        expected.extend([media(AUDIO, &audio), media(VIDEO, &video)]);
        // Set Chunk Size 200, then type 1, 2 and 3 headers that begin messages.
        w.extend(full(2, 0, 4, SET_CHUNK_SIZE));
        w.extend(200u32.to_be_bytes());
        let second = body(250, 3);
        w.extend([0x46, 0, 0, 33, 0, 0, 250, VIDEO]);
        w.extend(&second[..200]);
        w.push(0xc6);
        w.extend(&second[200..]);
        w.extend([0x84, 0, 0, 23]);
        w.extend(&audio);
        w.push(0xc4);
        w.extend(&audio);
        expected.extend([media(VIDEO, &second), media(AUDIO, &audio), media(AUDIO, &audio)]);
        // An extended timestamp, repeated in the type 3 chunk.
        w.extend(full(6, 0x00ff_ffff, 250, VIDEO));
        w.extend(0x0100_0000u32.to_be_bytes());
        w.extend(&second[..200]);
        w.push(0xc6);
        w.extend(0x0100_0000u32.to_be_bytes());
        w.extend(&second[200..]);
        expected.push(media(VIDEO, &second));
        // Basic headers of two and three bytes.
        let mut two = full(0, 5, 3, 20);
        two.insert(1, 10);
        w.extend(two);
        w.extend([7, 7, 7]);
        let mut three = full(1, 5, 0, 20);
        three.splice(1..1, [10, 1]);
        w.extend(three);
        expected.extend([Seen::Other(20, vec![7, 7, 7]), Seen::Other(20, vec![])]);
        // An aborted message: the type 3 chunk that follows begins a new one.
        w.extend(full(7, 0, 300, VIDEO));
        w.extend(&video[..200]);
        w.extend(full(2, 0, 4, ABORT));
        w.extend(7u32.to_be_bytes());
        w.push(0xc7);
        w.extend(&video[..200]);
        w.push(0xc7);
        w.extend(&video[200..]);
        expected.push(media(VIDEO, &video));
        (w, expected)
    }

    #[test]
    fn every_header_form_is_followed() {
        let (wire, expected) = wire();
        let mut out = Vec::new();
        seen(&mut Scanner::new(), &wire, &mut out).unwrap();
        assert_eq!(out, expected);
    }

    #[test]
    fn reads_may_be_cut_anywhere() {
        let (wire, expected) = wire();
        for size in 1..40 {
            let mut scanner = Scanner::new();
            let mut out = Vec::new();
            for piece in wire.chunks(size) {
                seen(&mut scanner, piece, &mut out).unwrap();
            }
            assert_eq!(out, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn bytes_out_of_step_are_an_error() {
        let mut out = Vec::new();
        let result = seen(&mut Scanner::after_handshake(), &[0xc6, 0], &mut out);
        assert_eq!(result, Err(ScanError::NoHeaderBefore(6)));
    }

    #[test]
    fn it_reads_what_the_engine_writes() {
        let mut wire = Vec::new();
        let payload = body(5_000, 4);
        sluicegate::proto::rtmp::chunk::write_message(&mut wire, 128, 6, VIDEO, 1, 40, &payload);
        sluicegate::proto::rtmp::chunk::write_message(
            &mut wire,
            128,
            4,
            AUDIO,
            1,
            u64::from(u32::MAX),
            &payload[..300],
        );
        let mut out = Vec::new();
        seen(&mut Scanner::after_handshake(), &wire, &mut out).unwrap();
        let lens: Vec<_> = out
            .iter()
            .map(|s| match s {
                Seen::Media(type_id, _, len) => (*type_id, *len),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lens, [(VIDEO, 5_000), (AUDIO, 300)]);
    }
}
