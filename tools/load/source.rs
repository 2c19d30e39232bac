//! What a load publisher sends: a synthetic stream with stamps, or an FLV file in a loop.

use std::io;
use std::path::Path;
use std::sync::Arc;

use sluicegate::proto::rtmp::amf0::{self, Value};

use crate::stamp::{AUDIO_OFFSET, STAMP_BYTES, Stamp, VIDEO_OFFSET};

const AUDIO: u8 = 8;
const VIDEO: u8 = 9;
const DATA: u8 = 18;

const VIDEO_FPS: u64 = 30;
/// A keyframe every two seconds.
const GOP_FRAMES: u64 = 60;
/// A keyframe is so many times as large as another frame, as encoders make it at such a distance.
const KEYFRAME_WEIGHT: u64 = 6;
const AUDIO_SAMPLES: u64 = 1_024;
const AUDIO_RATE: u64 = 44_100;
/// Of the whole bitrate, at most; small streams give a tenth to sound.
const AUDIO_BPS: u64 = 128_000;

const SECOND_NS: u64 = 1_000_000_000;

/// FLV `VIDEODATA` of a keyframe with the `AVCDecoderConfigurationRecord` of a 1280x720 baseline stream.
const AVC_HEADER: &[u8] = &[
    0x17, 0x00, 0x00, 0x00, 0x00, 0x01, 0x42, 0xc0, 0x1f, 0xff, 0xe1, 0x00, 0x19, 0x67, 0x42, 0xc0, 0x1f, 0xd9, 0x00,
    0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x24, 0x80,
    0x01, 0x00, 0x05, 0x68, 0xcb, 0x83, 0xcb, 0x20,
];
/// FLV `AUDIODATA` with the `AudioSpecificConfig` of AAC-LC, 44.1 kHz, stereo.
const AAC_HEADER: &[u8] = &[0xaf, 0x00, 0x12, 0x10];

/// Where frames come from. One per publisher; the bytes behind it are shared.
pub struct Source {
    kind: Kind,
    /// Of frames after the headers.
    next: Next,
}

enum Kind {
    Synthetic(Shape),
    File(Arc<File>),
}

/// The sizes of a synthetic stream's messages, in bytes.
#[derive(Clone, Copy, Debug)]
struct Shape {
    audio: usize,
    frame: usize,
    keyframe: usize,
}

#[derive(Default)]
struct Next {
    video: u64,
    audio: u64,
    /// For a file: the tag and the loop.
    tag: usize,
    offset_ms: u64,
}

/// One frame that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Since the first frame of the stream, in nanoseconds.
    pub offset_ns: u64,
    /// RTMP timestamp.
    pub timestamp_ms: u64,
    /// 8, 9 or 18.
    pub type_id: u8,
    /// Length of the message.
    pub len: usize,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Video { sequence: u64 },
    Audio { sequence: u64 },
    Tag { index: usize },
}

impl Source {
    /// A synthetic stream of `bitrate_bps` in all: RTMP message bodies, chunk headers not counted.
    pub fn synthetic(bitrate_bps: u64) -> Self {
        let audio_bps = AUDIO_BPS.min(bitrate_bps / 10);
        let audio_bytes = (audio_bps * AUDIO_SAMPLES / AUDIO_RATE / 8) as usize;
        let gop_bytes = (bitrate_bps - audio_bps) * GOP_FRAMES / VIDEO_FPS / 8;
        let frame_bytes = (gop_bytes / (GOP_FRAMES - 1 + KEYFRAME_WEIGHT)) as usize;
        let shape = Shape {
            audio: audio_bytes.max(AUDIO_OFFSET + STAMP_BYTES),
            frame: frame_bytes.max(VIDEO_OFFSET + STAMP_BYTES),
            keyframe: (frame_bytes * KEYFRAME_WEIGHT as usize).max(VIDEO_OFFSET + STAMP_BYTES),
        };
        Self { kind: Kind::Synthetic(shape), next: Next::default() }
    }

    /// The tags of a file, over and over, with timestamps that go on.
    pub fn file(file: Arc<File>) -> Self {
        Self { kind: Kind::File(file), next: Next::default() }
    }

    /// What goes before the first frame: metadata and sequence headers, as type and body.
    pub fn headers(&self) -> Vec<(u8, Vec<u8>)> {
        match &self.kind {
            Kind::Synthetic(shape) => {
                vec![(DATA, metadata(shape)), (VIDEO, AVC_HEADER.to_vec()), (AUDIO, AAC_HEADER.to_vec())]
            }
            Kind::File(file) => file.headers.iter().map(|tag| (tag.type_id, tag.body.clone())).collect(),
        }
    }

    /// The frame that is due next; the stream never ends.
    pub fn peek(&self) -> Due {
        match &self.kind {
            Kind::Synthetic(shape) => self.peek_synthetic(*shape),
            Kind::File(file) => {
                let tag = &file.tags[self.next.tag];
                let timestamp_ms = self.next.offset_ms + tag.timestamp_ms;
                Due {
                    offset_ns: timestamp_ms * 1_000_000,
                    timestamp_ms,
                    type_id: tag.type_id,
                    len: tag.body.len(),
                    what: What::Tag { index: self.next.tag },
                }
            }
        }
    }

    fn peek_synthetic(&self, shape: Shape) -> Due {
        let (video, audio) = (self.next.video, self.next.audio);
        let video_ns = video * SECOND_NS / VIDEO_FPS;
        let audio_ns = audio * AUDIO_SAMPLES * SECOND_NS / AUDIO_RATE;
        if video_ns <= audio_ns {
            let len = if video.is_multiple_of(GOP_FRAMES) { shape.keyframe } else { shape.frame };
            Due {
                offset_ns: video_ns,
                timestamp_ms: video_ns / 1_000_000,
                type_id: VIDEO,
                len,
                what: What::Video { sequence: video },
            }
        } else {
            Due {
                offset_ns: audio_ns,
                timestamp_ms: audio_ns / 1_000_000,
                type_id: AUDIO,
                len: shape.audio,
                what: What::Audio { sequence: audio },
            }
        }
    }

    /// Goes past the frame that [`Self::peek`] showed.
    pub fn advance(&mut self) {
        match &self.kind {
            Kind::Synthetic(shape) => match self.peek_synthetic(*shape).what {
                What::Video { .. } => self.next.video += 1,
                _ => self.next.audio += 1,
            },
            Kind::File(file) => {
                self.next.tag += 1;
                if self.next.tag == file.tags.len() {
                    self.next.tag = 0;
                    self.next.offset_ms += file.period_ms;
                }
            }
        }
    }

    /// The body of `due`, in `scratch` or in the file. `start_ns` is the wall time of the stream's first frame.
    pub fn body<'a>(&'a self, due: &Due, publisher: u32, start_ns: u64, scratch: &'a mut Scratch) -> &'a [u8] {
        let due_ns = start_ns + due.offset_ns;
        match (due.what, &self.kind) {
            (What::Video { sequence }, _) => {
                let body = scratch.video(due.len);
                let keyframe = sequence.is_multiple_of(GOP_FRAMES);
                // FLV VIDEODATA: frame type and codec 7 (AVC), NALU, composition time 0; then one NAL unit.
                let nal_bytes = ((due.len - 9) as u32).to_be_bytes();
                body[0] = if keyframe { 0x17 } else { 0x27 };
                body[1..5].copy_from_slice(&[1, 0, 0, 0]);
                body[5..9].copy_from_slice(&nal_bytes);
                body[9] = if keyframe { 0x65 } else { 0x41 };
                Stamp { publisher, sequence: sequence as u32, due_ns }.write(&mut body[VIDEO_OFFSET..]);
                body
            }
            (What::Audio { sequence }, _) => {
                let body = scratch.audio(due.len);
                body[..AUDIO_OFFSET].copy_from_slice(&[0xaf, 1]);
                Stamp { publisher, sequence: sequence as u32, due_ns }.write(&mut body[AUDIO_OFFSET..]);
                body
            }
            (What::Tag { index }, Kind::File(file)) => &file.tags[index].body,
            (What::Tag { .. }, Kind::Synthetic(_)) => &[],
        }
    }
}

/// Where synthetic bodies are made; one per thread serves all publishers.
#[derive(Default)]
pub struct Scratch {
    video: Vec<u8>,
    audio: Vec<u8>,
}

impl Scratch {
    fn video(&mut self, len: usize) -> &mut [u8] {
        Self::filled(&mut self.video, len)
    }

    fn audio(&mut self, len: usize) -> &mut [u8] {
        Self::filled(&mut self.audio, len)
    }

    /// Filler without zero bytes: what looks like coded pictures to anything that scans for start codes.
    fn filled(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
        while buffer.len() < len {
            let mixed = (buffer.len() as u32).wrapping_mul(0x9e37_79b1) >> 24;
            buffer.push(mixed as u8 | 1);
        }
        &mut buffer[..len]
    }
}

fn metadata(shape: &Shape) -> Vec<u8> {
    let number = |n: f64| Value::Number(n);
    let kbps = |bytes: usize, per_second: f64| number(bytes as f64 * 8.0 * per_second / 1_000.0);
    let entries = [
        ("width", number(1280.0)),
        ("height", number(720.0)),
        ("framerate", number(VIDEO_FPS as f64)),
        ("videocodecid", number(7.0)),
        ("videodatarate", kbps(shape.frame, VIDEO_FPS as f64)),
        ("audiocodecid", number(10.0)),
        ("audiosamplerate", number(AUDIO_RATE as f64)),
        ("audiosamplesize", number(16.0)),
        ("stereo", Value::Boolean(true)),
        ("audiodatarate", kbps(shape.audio, AUDIO_RATE as f64 / AUDIO_SAMPLES as f64)),
        ("encoder", Value::String(b"sluicegate-load".to_vec())),
    ];
    let mut body = set_data_frame();
    amf0::write(&mut body, &Value::String(b"onMetaData".to_vec()));
    let entries = entries.into_iter().map(|(key, value)| (key.as_bytes().to_vec(), value)).collect();
    amf0::write(&mut body, &Value::EcmaArray(entries));
    body
}

/// Encoders wrap metadata so; servers take the wrapping off.
fn set_data_frame() -> Vec<u8> {
    let mut body = Vec::new();
    amf0::write(&mut body, &Value::String(b"@setDataFrame".to_vec()));
    body
}

/// An FLV file in memory.
pub struct File {
    /// Metadata and sequence headers; sent once.
    headers: Vec<Tag>,
    /// The rest, in file order.
    tags: Vec<Tag>,
    /// From the first tag of one loop to the first tag of the next.
    period_ms: u64,
}

struct Tag {
    type_id: u8,
    timestamp_ms: u64,
    body: Vec<u8>,
}

impl File {
    /// Reads a whole file.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::parse(&std::fs::read(path)?).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// Reads tags (FLV 10.1, annex E) until the bytes end; a tag cut short at the end is left out.
    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if !bytes.starts_with(b"FLV") {
            return Err("not an FLV file");
        }
        let header_bytes = bytes.get(5..9).and_then(crate::scan::be32).ok_or("cut short in the header")?;
        // After the header and after each tag stand four bytes with the length of what came before.
        let mut rest = bytes.get(header_bytes as usize + 4..).ok_or("cut short after the header")?;
        let mut file = Self { headers: Vec::new(), tags: Vec::new(), period_ms: 0 };
        while let Some((head, tail)) = rest.split_at_checked(11) {
            let len = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
            let Some(body) = tail.get(..len) else { break };
            let timestamp_ms = u64::from(u32::from_be_bytes([head[7], head[4], head[5], head[6]]));
            file.add(head[0] & 0x1f, timestamp_ms, body);
            rest = tail.get(len + 4..).unwrap_or_default();
        }
        // Tracks are interleaved loosely: the last tag of a file need not be its latest.
        let times = || file.tags.iter().map(|tag| tag.timestamp_ms);
        let (Some(first), Some(last)) = (times().min(), times().max()) else {
            return Err("no audio and no video in it");
        };
        // The last frame lasts about as long as the others.
        let step = (last - first) / (file.tags.len() as u64).max(2) * 2;
        file.period_ms = (last - first + step.clamp(1, 100)).max(1);
        for tag in &mut file.tags {
            tag.timestamp_ms = tag.timestamp_ms.saturating_sub(first);
        }
        Ok(file)
    }

    fn add(&mut self, type_id: u8, timestamp_ms: u64, body: &[u8]) {
        let mut tag = Tag { type_id, timestamp_ms, body: body.to_vec() };
        match type_id {
            DATA => {
                tag.body = set_data_frame();
                tag.body.extend_from_slice(body);
                self.headers.push(tag);
            }
            AUDIO | VIDEO if is_sequence_header(type_id, body) => self.headers.push(tag),
            // An end of sequence is none when the file begins again.
            AUDIO | VIDEO if !body.is_empty() && !is_end_of_sequence(type_id, body) => self.tags.push(tag),
            _ => {}
        }
    }
}

/// Whether an audio or video message configures a decoder: legacy AVC and AAC, and packet type 0 (the low four bits)
/// of Enhanced RTMP.
pub fn is_sequence_header(type_id: u8, head: &[u8]) -> bool {
    match (type_id, head) {
        (VIDEO, [first, ..]) if first & 0x80 != 0 => first.trailing_zeros() >= 4,
        (VIDEO, [first, packet, ..]) => first & 0x0f == 7 && *packet == 0,
        (AUDIO, [first, packet, ..]) if first >> 4 == 10 => *packet == 0,
        (AUDIO, [first, ..]) if first >> 4 == 9 => first.trailing_zeros() >= 4,
        _ => false,
    }
}

fn is_end_of_sequence(type_id: u8, head: &[u8]) -> bool {
    type_id == VIDEO && matches!(head, [first, 2, ..] if first & 0x8f == 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synthetic_stream_has_the_bitrate_and_rates_asked_for() {
        let mut source = Source::synthetic(2_000_000);
        let (mut bytes, mut video, mut audio, mut last) = (0, 0, 0, 0);
        loop {
            let due = source.peek();
            if due.offset_ns >= 10 * SECOND_NS {
                break;
            }
            assert!(due.offset_ns >= last);
            last = due.offset_ns;
            bytes += due.len;
            if due.type_id == VIDEO {
                video += 1;
            } else {
                audio += 1;
            }
            source.advance();
        }
        assert_eq!((video, audio), (300, 431));
        assert!((2_450_000..2_510_000).contains(&bytes), "{bytes} bytes in 10 s");
    }

    #[test]
    fn synthetic_bodies_are_well_formed() {
        let mut source = Source::synthetic(2_000_000);
        let mut scratch = Scratch::default();
        for _ in 0..500 {
            let due = source.peek();
            let body = source.body(&due, 7, 1_000, &mut scratch);
            assert_eq!(body.len(), due.len);
            let stamp = Stamp::read(due.type_id, body).unwrap();
            assert_eq!((stamp.publisher, stamp.due_ns), (7, 1_000 + due.offset_ns));
            assert!(!is_sequence_header(due.type_id, body));
            if due.type_id == VIDEO {
                let nal = u32::from_be_bytes(body[5..9].try_into().unwrap()) as usize;
                assert_eq!(nal, body.len() - 9);
                assert!(!body[9..].contains(&0));
            }
            source.advance();
        }
        let headers = source.headers();
        assert!(is_sequence_header(headers[1].0, &headers[1].1) && is_sequence_header(headers[2].0, &headers[2].1));
    }

    #[test]
    fn a_file_loops_with_timestamps_that_go_on() {
        let mut flv = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        let mut tag = |type_id: u8, ms: u8, body: &[u8]| {
            flv.extend([type_id, 0, 0, u8::try_from(body.len()).unwrap(), 0, 0, ms, 0, 0, 0, 0]);
            flv.extend(body);
            flv.extend([0; 4]);
        };
        tag(DATA, 0, b"meta");
        tag(VIDEO, 0, AVC_HEADER);
        for ms in [0, 40, 80, 120] {
            tag(AUDIO, ms + 15, &[0xaf, 1, ms]);
            tag(VIDEO, ms, &[0x27, 1, 0, 0, 0, ms]);
        }
        tag(VIDEO, 120, &[0x17, 2, 0, 0, 0]);
        let mut source = Source::file(Arc::new(File::parse(&flv).unwrap()));
        assert_eq!(source.headers().len(), 2);
        let (mut audio, mut video) = (Vec::new(), Vec::new());
        for _ in 0..24 {
            let due = source.peek();
            if due.type_id == AUDIO { &mut audio } else { &mut video }.push(due.timestamp_ms);
            source.advance();
        }
        for times in [audio, video] {
            assert_eq!(times.len(), 12);
            assert!(times.windows(2).all(|pair| pair[1] > pair[0]), "{times:?}");
        }
    }

    #[test]
    fn what_is_not_flv_is_refused() {
        assert!(File::parse(b"RIFF").is_err());
        assert!(File::parse(b"FLV\x01\x05\0\0\0\x09\0\0\0\0").is_err());
    }
}
