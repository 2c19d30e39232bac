//! An accepted publish: messages in, frames out, and the rules that media must keep.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::RequestId;
use super::meter::{Meter, after};
use crate::media::{Frame, FrameFlags, Track};
use crate::proto::rtmp::chunk::RawMessage;
use crate::proto::rtmp::message::type_id;
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
const AGGREGATE_ITEMS_MAX: usize = 1_024;

/// `@setDataFrame` as an AMF0 string: an instruction to the server, not part of the data.
const SET_DATA_FRAME: &[u8] = b"\x02\x00\x0d@setDataFrame";
/// `@clearDataFrame`: likewise.
const CLEAR_DATA_FRAME: &[u8] = b"\x02\x00\x0f@clearDataFrame";
/// `onMetaData` as an AMF0 string.
const ON_METADATA: &[u8] = b"\x02\x00\x0aonMetaData";

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
        let RawMessage { type_id, timestamp_ms, payload, .. } = message;
        match type_id {
            type_id::AGGREGATE => self.handle_aggregate(settings, now, timestamp_ms, &payload, emit),
            _ => self.handle_item(settings, now, type_id, timestamp_ms, payload, emit),
        }
    }

    fn handle_item(
        &mut self,
        settings: &Settings,
        now: Instant,
        type_id: u8,
        timestamp_ms: u64,
        payload: Bytes,
        emit: &mut impl FnMut(Frame),
    ) -> Result<u32, ProtocolError> {
        match type_id {
            type_id::AUDIO => self.handle_media(settings, now, Track::Audio, timestamp_ms, payload, emit),
            type_id::VIDEO => self.handle_media(settings, now, Track::Video, timestamp_ms, payload, emit),
            type_id::DATA_AMF0 => {
                self.handle_data(now, timestamp_ms, payload, emit);
                Ok(0)
            }
            _ => Ok(0),
        }
    }

    fn handle_media(
        &mut self,
        settings: &Settings,
        now: Instant,
        track: Track,
        timestamp_ms: u64,
        payload: Bytes,
        emit: &mut impl FnMut(Frame),
    ) -> Result<u32, ProtocolError> {
        // Some encoders send an empty audio message where a capture device is silent (RT-22).
        if payload.is_empty() {
            return Ok(0);
        }
        let info = if track == Track::Video { tag::video(&payload) } else { tag::audio(&payload) };
        let is_short = match track {
            // A video tag is five bytes before its first byte of picture: codec, packet type, composition
            // time; or, in Enhanced RTMP, packet type and FourCC.
            Track::Video => payload.len() < 5,
            _ => payload.len() < if info.codec == Some(*b"mp4a") { 3 } else { 2 },
        };
        let is_oversized_config = info.flags.sequence_header && payload.len() > KEPT_BYTES_MAX;
        if info.codec.is_none() || is_short || is_oversized_config {
            self.bad_frames = self.bad_frames.saturating_add(1);
            return if self.bad_frames >= BAD_FRAMES_MAX {
                Err(ProtocolError::BadMedia("frames"))
            } else {
                Ok(u32::from(is_oversized_config))
            };
        }
        if info.flags.sequence_header {
            self.on_config(now, track, info.track_id, &payload)?;
        }
        self.bad_frames = 0;
        self.has_media = true;
        self.media_deadline = after(now, settings.media_timeout);
        emit(Frame { track, timestamp_ms, flags: info.flags, payload });
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
        let is_metadata = payload.starts_with(ON_METADATA);
        let flags = FrameFlags { metadata: is_metadata && payload.len() <= KEPT_BYTES_MAX, ..FrameFlags::default() };
        let frame = Frame { track: Track::Data, timestamp_ms, flags, payload };
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

    /// Splits an aggregate (RTMP 1.0 §7.1.6): FLV tags whose times count from the first one, which stands
    /// for the time of the message.
    fn handle_aggregate(
        &mut self,
        settings: &Settings,
        now: Instant,
        timestamp_ms: u64,
        body: &Bytes,
        emit: &mut impl FnMut(Frame),
    ) -> Result<u32, ProtocolError> {
        const HEADER: usize = 11;
        const BACK_POINTER: usize = 4;
        let mut glitches = 0u32;
        let mut rest = body.clone();
        let mut first_time = None;
        for _ in 0..AGGREGATE_ITEMS_MAX {
            if rest.is_empty() {
                return Ok(glitches);
            }
            let Some(&[kind, s2, s1, s0, t2, t1, t0, t3, ..]) = rest.get(..HEADER) else { break };
            let size = usize::try_from(u32::from_be_bytes([0, s2, s1, s0])).unwrap_or(usize::MAX);
            let time = u32::from_be_bytes([t3, t2, t1, t0]);
            let end = HEADER.saturating_add(size);
            if end > rest.len() {
                break;
            }
            let first_time = *first_time.get_or_insert(time);
            // Times within one aggregate are close together: the difference is read as signed, so that
            // neither a wrap nor a step back becomes a jump of weeks.
            let offset = i64::from(time.wrapping_sub(first_time).cast_signed());
            let item = rest.slice(HEADER..end);
            // A nested aggregate is of no type that is read here, so it is passed over.
            glitches = glitches.saturating_add(self.handle_item(
                settings,
                now,
                kind,
                timestamp_ms.saturating_add_signed(offset),
                item,
                emit,
            )?);
            // The back pointer repeats what is known; encoders get it wrong, and it may be missing at the end.
            let next = end.saturating_add(BACK_POINTER).min(rest.len());
            rest = rest.slice(next..);
        }
        Ok(glitches.saturating_add(1))
    }
}
