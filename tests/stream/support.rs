//! A stream on virtual time, a packaging that can be read back, and players that receive bytes.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluicegate::media::{Frame, FrameFlags, FrameInfo, Kept, Track};
use sluicegate::names::{Name, StreamKey};
use sluicegate::stream::{Cursor, Due, Live, Package, Settings, Written};

/// Length, track, flags, number, payload: a wire form that says of each frame which one it is.
pub struct Tagged;

const HEAD: usize = 14;

impl Package for Tagged {
    fn package(&self, frame: &Frame, out: &mut Vec<u8>) {
        out.extend_from_slice(&u32::try_from(frame.payload.len()).unwrap().to_be_bytes());
        out.push(frame.track as u8);
        out.push(
            u8::from(frame.flags.keyframe)
                | u8::from(frame.flags.sequence_header) << 1
                | u8::from(frame.flags.metadata) << 2,
        );
        out.extend_from_slice(&frame.timestamp_ms.to_be_bytes());
        out.extend_from_slice(&frame.payload);
    }
}

/// A frame as a player received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub track: u8,
    pub keyframe: bool,
    pub sequence_header: bool,
    pub timestamp_ms: u64,
    /// The number in the payload's first eight bytes.
    pub number: u64,
    pub len: usize,
}

/// Reads frames back and returns what is left of an unfinished last one; panics on anything that is not a
/// row of whole frames.
fn parse<'a>(mut bytes: &'a [u8], out: &mut Vec<Received>) -> &'a [u8] {
    while bytes.len() >= HEAD {
        let len = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        assert!(bytes[4] < 3 && bytes[5] < 8, "not the head of a frame: {:?}", &bytes[..HEAD]);
        let Some(payload) = bytes.get(HEAD..HEAD + len) else { break };
        let number = u64::from_be_bytes(payload[..8].try_into().unwrap());
        let filling = &payload[8..];
        let is_even = filling.is_empty() || filling[1..] == filling[..filling.len() - 1];
        assert!(is_even && filling.first().is_none_or(|byte| *byte == number as u8), "frame {number} is damaged");
        out.push(Received {
            track: bytes[4],
            keyframe: bytes[5] & 1 != 0,
            sequence_header: bytes[5] & 2 != 0,
            timestamp_ms: u64::from_be_bytes(bytes[6..HEAD].try_into().unwrap()),
            number,
            len,
        });
        bytes = &bytes[HEAD + len..];
    }
    bytes
}

/// A payload of `len` bytes (8 at least) that names its frame.
pub fn payload(number: u64, len: usize) -> Bytes {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(len.max(8), number as u8);
    Bytes::from(bytes)
}

pub fn key() -> StreamKey {
    StreamKey::new(&Name::app("default").unwrap(), &Name::app("live").unwrap(), &Name::stream("cam").unwrap())
}

/// A stream, its clock and the number of the next frame.
pub struct Stage {
    pub live: Live,
    pub settings: Settings,
    pub now: Instant,
    pub time_ms: u64,
    pub number: u64,
}

impl Stage {
    pub fn new(settings: Settings) -> Self {
        let now = Instant::now();
        let mut live = Live::new(key(), &settings, now);
        live.publisher_joined(now);
        Self { live, settings, now, time_ms: 1_000, number: 0 }
    }

    /// Moves both the clock and the publisher's time.
    pub fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.time_ms += ms;
    }

    pub fn push(&mut self, track: Track, flags: FrameFlags, len: usize) -> Frame {
        let mut frame = Frame::new(track, self.time_ms, flags, payload(self.number, len));
        if flags.sequence_header {
            frame.info = FrameInfo { kept: Kept::Decoder, ..FrameInfo::default() };
        }
        self.number += 1;
        self.live.push(self.now, frame, &Tagged)
    }

    pub fn video(&mut self, len: usize) -> Frame {
        self.push(Track::Video, FrameFlags::default(), len)
    }

    pub fn keyframe(&mut self, len: usize) -> Frame {
        self.push(Track::Video, FrameFlags { keyframe: true, ..FrameFlags::default() }, len)
    }

    pub fn audio(&mut self, len: usize) -> Frame {
        self.push(Track::Audio, FrameFlags::default(), len)
    }

    pub fn header(&mut self, track: Track, len: usize) -> Frame {
        self.push(track, FrameFlags { sequence_header: true, ..FrameFlags::default() }, len)
    }

    /// `count` pictures at 25 a second, the first of them a keyframe, with sound between them.
    pub fn group(&mut self, count: usize, len: usize) {
        for n in 0..count {
            if n == 0 {
                self.keyframe(len)
            } else {
                self.video(len)
            };
            self.audio(100);
            self.pass(40);
        }
    }

    pub fn join(&self) -> Player {
        Player {
            cursor: Cursor::join(&self.live, self.now),
            bytes: Vec::new(),
            total: 0,
            frames: Vec::new(),
            written: Written::default(),
            dropped: 0,
            jumps: 0,
            headers_sent: 0,
            generation: self.live.headers().generation,
            gone: false,
        }
    }

    pub fn bound(&self) -> usize {
        usize::try_from(self.settings.gop_bytes + self.settings.queue_bytes).unwrap() + (64 << 10)
    }
}

/// A player and everything it received.
pub struct Player {
    pub cursor: Cursor,
    /// The beginning of a frame that is not whole yet.
    bytes: Vec<u8>,
    pub total: usize,
    frames: Vec<Received>,
    pub written: Written,
    pub dropped: u64,
    pub jumps: u32,
    pub headers_sent: u32,
    pub generation: u32,
    pub gone: bool,
}

impl Player {
    /// Asks what is owed, writes at most `budget` bytes in pieces of `call`; returns how many went.
    pub fn write(&mut self, stage: &Stage, budget: usize, call: usize) -> usize {
        let mut sent = 0;
        while !self.gone {
            match self.cursor.due(&stage.live, &stage.settings, stage.now) {
                Due::Nothing => break,
                Due::GiveUp { dropped_frames } => {
                    self.dropped += dropped_frames;
                    self.gone = true;
                }
                Due::Jumped { dropped_frames, headers_changed } => {
                    // A jump is only told between frames.
                    assert!(self.bytes.is_empty());
                    assert!(dropped_frames > 0 || headers_changed);
                    self.dropped += dropped_frames;
                    self.jumps += u32::from(dropped_frames > 0);
                    self.headers_sent += u32::from(headers_changed);
                    self.generation = stage.live.headers().generation;
                }
                Due::Bytes(due) => {
                    let max = call.min(budget - sent);
                    if max == 0 {
                        break;
                    }
                    let mut slices = [IoSlice::new(&[]); 7];
                    let count = self.cursor.slices(&stage.live, max, &mut slices);
                    let before = self.bytes.len();
                    for slice in &slices[..count] {
                        assert!(!slice.is_empty());
                        self.bytes.extend_from_slice(slice);
                    }
                    let taken = self.bytes.len() - before;
                    assert!(taken > 0, "owed {due} and offered nothing");
                    assert!(taken <= max && taken as u64 <= due);
                    self.total += taken;
                    let left = parse(&self.bytes, &mut self.frames).len();
                    self.bytes.drain(..self.bytes.len() - left);
                    let written = self.cursor.on_written(&stage.live, taken as u64);
                    self.written.frames += written.frames;
                    self.written.media_bytes += written.media_bytes;
                    sent += taken;
                }
            }
        }
        sent
    }

    /// Takes all that is owed.
    pub fn drain(&mut self, stage: &Stage) -> usize {
        self.write(stage, usize::MAX, usize::MAX)
    }

    /// The whole frames so far.
    pub fn received(&self) -> &[Received] {
        &self.frames
    }

    /// Lets go of the frames received.
    pub fn forget(&mut self) {
        self.frames.clear();
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.frames.iter().map(|frame| frame.number).collect()
    }
}
