//! An accepted publish: messages in, frames out, and the rules that media must keep.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::RequestId;
use super::meter::{Meter, after, moved};
use crate::media::{Frame, FrameFlags, Track};
use crate::proto::rtmp::chunk::RawMessage;
use crate::proto::rtmp::message::{split_aggregate, type_id};
use crate::proto::rtmp::{ProtocolError, Settings, tag};

/// Changes of decoder configuration that ten seconds may bring (MD-04).
const CONFIG_CHANGES_MAX: usize = 10;
/// The time over which they are counted.
const CONFIG_WINDOW: Duration = Duration::from_secs(10);
/// Largest decoder configuration and metadata that are kept for newcomers, in bytes (MD-04, MD-05).
const KEPT_BYTES_MAX: usize = 64 << 10;
/// Metadata messages forwarded a second (MD-05).
const METADATA_RATE: u32 = 10;
/// Unusable frames in a row that end the publish (MD-09).
const BAD_FRAMES_MAX: u32 = 100;
/// Items read of one aggregate message (RT-32).
const AGGREGATE_ITEMS_MAX: u32 = 1_024;

/// `@setDataFrame` as an AMF0 string: an instruction to the server, not part of the data.
const SET_DATA_FRAME: &[u8] = b"\x02\x00\x0d@setDataFrame";
/// `@clearDataFrame`: likewise.
const CLEAR_DATA_FRAME: &[u8] = b"\x02\x00\x0f@clearDataFrame";

/// One decoder configuration that was seen, by track and by what it said.
#[derive(Clone, Copy, Debug)]
struct Config {
    track: Track,
    track_id: u8,
    hash: u64,
}

/// The state of an accepted publish.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) request: RequestId,
    media_deadline: Instant,
    has_media: bool,
    configs: Vec<Config>,
    config_changes: VecDeque<Instant>,
    metadata_meter: Meter,
    /// The newest metadata that came too soon after others; it goes out as soon as the rate allows.
    metadata_waiting: Option<Frame>,
    bad_frames: u32,
}

impl Publisher {
    /// A publish accepted at `now`.
    pub(super) fn new(settings: &Settings, now: Instant, request: RequestId) -> Self {
        Self {
            request,
            media_deadline: after(now, settings.first_media_timeout),
            has_media: false,
            configs: Vec::new(),
            config_changes: VecDeque::new(),
            metadata_meter: Meter::new(now),
            metadata_waiting: None,
            bad_frames: 0,
        }
    }

    /// When audio or video must have come.
    pub(super) fn media_deadline(&self) -> Instant {
        self.media_deadline
    }

    /// Other settings: the wait for media is as long as they say, from where it began.
    pub(super) fn adopt(&mut self, before: &Settings, settings: &Settings) {
        let (before, wait) = if self.has_media {
            (before.media_timeout, settings.media_timeout)
        } else {
            (before.first_media_timeout, settings.first_media_timeout)
        };
        self.media_deadline = moved(self.media_deadline, before, wait);
    }

    /// The name of the stage that [`media_deadline`](Self::media_deadline) ends.
    pub(super) fn stage(&self) -> &'static str {
        if self.has_media { "media" } else { "first_media" }
    }

    /// Takes an audio, video, data or aggregate message and hands its frames to `emit`. The answer is the
    /// number of glitches.
    ///
    /// # Errors
    /// [`ProtocolError::BadMedia`] when the rules for configurations or bad frames are broken.
    pub(super) fn handle(
        &mut self,
        settings: &Settings,
        now: Instant,
        message: RawMessage,
        emit: &mut impl FnMut(Frame),
    ) -> Result<u32, ProtocolError> {
        self.flush_metadata(now, emit);
        if message.type_id != type_id::AGGREGATE {
            return self.handle_item(settings, now, message, emit);
        }
        let mut outcome = Ok(0u32);
        let split = split_aggregate(&message, AGGREGATE_ITEMS_MAX, |item| {
            if let Ok(glitches) = outcome {
                outcome = self.handle_item(settings, now, item, emit).map(|more| glitches.saturating_add(more));
            }
        });
        outcome.map(|glitches| glitches.saturating_add(u32::from(split.glitch)))
    }

    fn handle_item(
        &mut self,
        settings: &Settings,
        now: Instant,
        message: RawMessage,
        emit: &mut impl FnMut(Frame),
    ) -> Result<u32, ProtocolError> {
        let RawMessage { type_id, timestamp_ms, payload, .. } = message;
        let track = match type_id {
            type_id::AUDIO => Track::Audio,
            type_id::VIDEO => Track::Video,
            type_id::DATA_AMF0 => {
                self.handle_data(now, timestamp_ms, payload, emit);
                return Ok(0);
            }
            _ => return Ok(0),
        };
        // Some encoders send an empty audio message where a capture device is silent (RT-22).
        if payload.is_empty() {
            return Ok(0);
        }
        let frame = tag::frame(track, timestamp_ms, payload);
        let is_config = frame.flags.sequence_header;
        let is_oversized_config = is_config && frame.payload.len() > KEPT_BYTES_MAX;
        if is_too_short(&frame) || is_oversized_config {
            self.bad_frames = self.bad_frames.saturating_add(1);
            return if self.bad_frames >= BAD_FRAMES_MAX {
                Err(ProtocolError::BadMedia("frames"))
            } else {
                Ok(u32::from(is_oversized_config))
            };
        }
        if is_config {
            self.on_config(now, track, frame.info.track_id, &frame.payload)?;
        }
        self.bad_frames = 0;
        self.has_media = true;
        self.media_deadline = after(now, settings.media_timeout);
        emit(frame);
        Ok(0)
    }

    /// Counts a decoder configuration that differs from the last one of its track.
    fn on_config(&mut self, now: Instant, track: Track, track_id: u8, payload: &[u8]) -> Result<(), ProtocolError> {
        let mut hasher = DefaultHasher::new();
        hasher.write(payload);
        let hash = hasher.finish();
        let known = self.configs.iter_mut().find(|config| config.track == track && config.track_id == track_id);
        match known {
            None => self.configs.push(Config { track, track_id, hash }),
            Some(config) if config.hash == hash => {}
            Some(config) => {
                config.hash = hash;
                let is_past = |at: &Instant| now.saturating_duration_since(*at) >= CONFIG_WINDOW;
                while self.config_changes.front().is_some_and(is_past) {
                    self.config_changes.pop_front();
                }
                if self.config_changes.len() >= CONFIG_CHANGES_MAX {
                    return Err(ProtocolError::BadMedia("sequence_headers"));
                }
                self.config_changes.push_back(now);
            }
        }
        Ok(())
    }

    fn handle_data(&mut self, now: Instant, timestamp_ms: u64, payload: Bytes, emit: &mut impl FnMut(Frame)) {
        if payload.starts_with(CLEAR_DATA_FRAME) {
            return;
        }
        let payload = if payload.starts_with(SET_DATA_FRAME) { payload.slice(SET_DATA_FRAME.len()..) } else { payload };
        // A bare `@setDataFrame` sets nothing.
        if payload.is_empty() {
            return;
        }
        let is_metadata = tag::is_metadata(&payload);
        let flags = FrameFlags { metadata: is_metadata && payload.len() <= KEPT_BYTES_MAX, ..FrameFlags::default() };
        let frame = Frame::new(Track::Data, timestamp_ms, flags, payload);
        if !is_metadata || self.metadata_meter.add(now, 1, METADATA_RATE, METADATA_RATE) {
            emit(frame);
        } else if frame.flags.metadata {
            self.metadata_waiting = Some(frame);
        }
    }

    /// What was said last must reach the players, only later.
    fn flush_metadata(&mut self, now: Instant, emit: &mut impl FnMut(Frame)) {
        if self.metadata_waiting.is_some()
            && self.metadata_meter.add(now, 1, METADATA_RATE, METADATA_RATE)
            && let Some(frame) = self.metadata_waiting.take()
        {
            emit(frame);
        }
    }
}

/// Too short to be of use to any player (MD-01), whatever its codec.
fn is_too_short(frame: &Frame) -> bool {
    let least = match frame.track {
        // Five bytes come before the first byte of picture: codec, packet type, composition time; or, in
        // Enhanced RTMP, packet type and FourCC.
        Track::Video => 5,
        // Format and packet type come before the first byte of sound, and other formats have the format alone.
        _ if frame.info.codec == Some(*b"mp4a") => 3,
        _ => 2,
    };
    frame.info.codec.is_none() || frame.payload.len() < least
}
