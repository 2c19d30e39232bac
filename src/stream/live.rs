//! A stream as it is on one shard.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::media::{self, AudioFormat, Frame, Kept, Track, VideoFormat};
use crate::names::StreamKey;
use crate::stream::log::{self, Position};
use crate::stream::meter::Meter;
use crate::stream::timeline::Timeline;
use crate::stream::{Log, Package, Settings, StreamSample, Subscriber};

/// The largest metadata or decoder configuration that is kept for newcomers. Larger ones pass through.
pub const HEADER_BYTES_MAX: usize = 64 << 10;

/// Headers kept of the sound and of the pictures each: tracks times kinds.
pub const HEADERS_MAX: usize = 32;

/// Metadata that changes more often than this within a second is kept but not passed on.
pub const METADATA_PER_SECOND: u32 = 10;

/// How far back a newcomer begins on a stream without pictures.
const AUDIO_JOIN_MS: u64 = 1_000;

/// Configuration changes are counted over so long.
const CHANGES_WINDOW_MS: u64 = 10_000;

/// What every newcomer needs before media.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    /// `onMetaData`, byte for byte.
    pub metadata: Option<Frame>,
    /// Decoder configuration of each audio track.
    pub audio: Vec<Frame>,
    /// Decoder configuration of each video track.
    pub video: Vec<Frame>,
    /// Moves whenever any of the above changes.
    pub generation: u32,
}

impl Headers {
    /// All of them in the order in which they are sent.
    pub fn iter(&self) -> impl Iterator<Item = &Frame> {
        self.metadata.iter().chain(&self.video).chain(&self.audio)
    }

    /// Keeps `frame` if it is a header; tells what that changed.
    fn keep(&mut self, frame: &Frame) -> Change {
        let is_metadata = frame.flags.metadata;
        if !(is_metadata || frame.flags.sequence_header || frame.info.kept != Kept::No)
            || frame.payload.len() > HEADER_BYTES_MAX
        {
            return Change::None;
        }
        if is_metadata {
            if self.metadata.as_ref().is_some_and(|kept| kept.payload == frame.payload) {
                return Change::None;
            }
            self.metadata = Some(detached(frame));
            self.generation = self.generation.wrapping_add(1);
            return Change::Added;
        }
        let list = match frame.track {
            Track::Audio => &mut self.audio,
            Track::Video => &mut self.video,
            Track::Data => return Change::None,
        };
        let slot = |frame: &Frame| (frame.info.track_id, kind(frame));
        let change = if let Some(kept) = list.iter_mut().find(|kept| slot(kept) == slot(frame)) {
            if kept.payload == frame.payload {
                return Change::None;
            }
            *kept = detached(frame);
            if kind(frame) == Kept::Decoder { Change::Replaced } else { Change::Added }
        } else if list.len() < HEADERS_MAX {
            list.push(detached(frame));
            Change::Added
        } else {
            return Change::None;
        };
        self.generation = self.generation.wrapping_add(1);
        change
    }

    fn clear(&mut self) {
        if self.metadata.is_some() || !self.audio.is_empty() || !self.video.is_empty() {
            *self = Self { generation: self.generation.wrapping_add(1), ..Self::default() };
        }
    }
}

/// What a kept header changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Added,
    /// A decoder that was set up one way has to be set up another way.
    Replaced,
}

/// A sequence header whose kind nobody named is a decoder's configuration.
fn kind(frame: &Frame) -> Kept {
    if frame.info.kept == Kept::No { Kept::Decoder } else { frame.info.kept }
}

/// A copy that does not hold on to the receive buffer of which the payload may be a part.
fn detached(frame: &Frame) -> Frame {
    Frame { payload: Bytes::copy_from_slice(&frame.payload), ..frame.clone() }
}

/// One stream on one shard: homed here or relayed from its home.
pub struct Live {
    key: StreamKey,
    epoch: Instant,
    resume_window: Duration,
    video_silence_ms: u64,
    publication: Publication,
    headers: Headers,
    log: Log,
    timeline: Timeline,
    meter: Meter,
    video: Pictures,
    video_format: VideoFormat,
    audio_codec: Option<[u8; 4]>,
    audio_format: AudioFormat,
    /// Newcomers on a stream without pictures begin here or later.
    floor: u64,
    metadata: Throttle,
    changes: Changes,
    subscribers: Vec<Subscriber>,
    positions: HashMap<Subscriber, usize>,
}

enum Publication {
    Absent,
    Present,
    /// The publisher left and may be back until then.
    Resumable(Instant),
}

/// What has been seen of the present publisher's pictures.
#[derive(Default)]
struct Pictures {
    codec: Option<[u8; 4]>,
    /// The lowest track number. Newcomers begin at its keyframes, and it is what is measured.
    main_track: Option<u8>,
    /// When the last of them came, on the stream's clock.
    last_ms: Option<u64>,
}

/// Counts within the running second.
#[derive(Default)]
struct Throttle {
    second: u64,
    count: u32,
}

impl Throttle {
    fn admits(&mut self, now_ms: u64) -> bool {
        let second = now_ms / 1_000;
        if self.second != second {
            *self = Self { second, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= METADATA_PER_SECOND
    }
}

/// When the newest changes of a decoder's configuration were.
#[derive(Default)]
struct Changes {
    at_ms: [Option<u64>; 16],
    next: usize,
}

impl Changes {
    fn add(&mut self, now_ms: u64) {
        self.at_ms[self.next % self.at_ms.len()] = Some(now_ms);
        self.next = (self.next + 1) % self.at_ms.len();
    }

    fn count(&self, now_ms: u64) -> usize {
        self.at_ms.iter().flatten().filter(|at_ms| now_ms.saturating_sub(**at_ms) <= CHANGES_WINDOW_MS).count()
    }
}

impl Live {
    /// A stream without a publisher yet.
    #[must_use]
    pub fn new(key: StreamKey, settings: &Settings, now: Instant) -> Self {
        Self {
            key,
            epoch: now,
            resume_window: settings.resume_window,
            video_silence_ms: log::millis(settings.gop_duration),
            publication: Publication::Absent,
            headers: Headers::default(),
            log: Log::new(settings),
            timeline: Timeline::default(),
            meter: Meter::default(),
            video: Pictures::default(),
            video_format: VideoFormat::default(),
            audio_codec: None,
            audio_format: AudioFormat::default(),
            floor: 0,
            metadata: Throttle::default(),
            changes: Changes::default(),
            subscribers: Vec::new(),
            positions: HashMap::new(),
        }
    }

    /// Keeps as much as `settings` allow from the next frame on. What players are told and how long they may lag
    /// behind stays as it is.
    pub fn set_cache(&mut self, settings: &Settings) {
        self.log.set_limits(settings);
    }

    /// Its name.
    #[must_use]
    pub fn key(&self) -> &StreamKey {
        &self.key
    }

    /// A publisher (or a relay from its home shard) begins. Timestamps continue where the previous one ended.
    ///
    /// Newcomers wait for this publisher's own first keyframe; players that are behind still get what the
    /// previous publisher sent.
    pub fn publisher_joined(&mut self, now: Instant) {
        let now_ms = self.millis(now);
        self.publication = Publication::Present;
        self.headers.clear();
        self.timeline.on_publisher();
        self.meter.on_publisher(now_ms);
        self.video = Pictures::default();
        self.video_format = VideoFormat::default();
        self.audio_codec = None;
        self.audio_format = AudioFormat::default();
        self.log.forget_join();
        self.floor = self.log.next_seq();
    }

    /// The publisher is gone; the resume window begins.
    pub fn publisher_left(&mut self, now: Instant) {
        if self.is_published() {
            // A window beyond the end of the clock never ends, which is what was asked for.
            let deadline = now.checked_add(self.resume_window);
            self.publication = deadline.map_or(Publication::Absent, Publication::Resumable);
        }
    }

    /// True while somebody publishes.
    #[must_use]
    pub fn is_published(&self) -> bool {
        matches!(self.publication, Publication::Present)
    }

    /// Another resume window from now on; one that runs keeps its end.
    pub fn set_resume_window(&mut self, resume_window: Duration) {
        self.resume_window = resume_window;
    }

    /// The resume window has passed and those who had to know were told.
    pub fn resume_ended(&mut self) {
        if let Publication::Resumable(_) = self.publication {
            self.publication = Publication::Absent;
        }
    }

    /// When the resume window ends, if it runs.
    #[must_use]
    pub fn resume_deadline(&self) -> Option<Instant> {
        match self.publication {
            Publication::Resumable(deadline) => Some(deadline),
            Publication::Absent | Publication::Present => None,
        }
    }

    /// Takes one frame: keeps headers, packages it once, appends, trims. Returns the frame as it went out
    /// (timestamps rebased), for the relays.
    pub fn push(&mut self, now: Instant, mut frame: Frame, package: &dyn Package) -> Frame {
        let now_ms = self.millis(now);
        frame.timestamp_ms = self.timeline.place(now_ms, &frame);
        self.keep(now_ms, &frame);
        if frame.track == Track::Video && frame.flags.sequence_header {
            // Pictures are announced: newcomers wait for them as they do for those that come.
            self.video.last_ms = Some(now_ms);
        }
        let is_picture = frame.track == Track::Video && !frame.flags.sequence_header && !frame.info.no_media;
        let is_main = is_picture && self.see_picture(now_ms, &frame);
        self.meter.count(now_ms, &frame, is_main);
        let is_main_sound = self.audio_codec.is_none() || frame.info.track_id == 0;
        if frame.track == Track::Audio && frame.info.codec.is_some() && is_main_sound {
            self.audio_codec = frame.info.codec;
        }
        if frame.flags.metadata && !self.metadata.admits(now_ms) {
            return frame;
        }
        let position =
            Position { now_ms, generation: self.headers.generation, is_join: is_main && frame.flags.keyframe };
        self.log.append(&frame, position, package);
        frame
    }

    fn keep(&mut self, now_ms: u64, frame: &Frame) {
        let change = self.headers.keep(frame);
        if change == Change::None || kind(frame) != Kept::Decoder || frame.flags.metadata {
            return;
        }
        if change == Change::Replaced {
            self.changes.add(now_ms);
            // A newcomer would get this configuration first and then pictures made with another.
            self.log.forget_join();
            self.floor = self.log.next_seq();
        }
        let (Some(codec), Some(config)) = (frame.info.codec, frame.config()) else { return };
        match frame.track {
            Track::Video if self.video.main_track.is_none_or(|main| frame.info.track_id <= main) => {
                self.video.codec = Some(codec);
                self.video_format = media::describe_video(codec, config).unwrap_or_default();
            }
            Track::Audio => {
                self.audio_codec = Some(codec);
                self.audio_format = media::describe_audio(codec, config).unwrap_or_default();
            }
            Track::Video | Track::Data => {}
        }
    }

    /// Notes a picture; true when it is of the main track.
    fn see_picture(&mut self, now_ms: u64, frame: &Frame) -> bool {
        let track_id = frame.info.track_id;
        let main = self.video.main_track.map_or(track_id, |main| main.min(track_id));
        self.video.main_track = Some(main);
        self.video.last_ms = Some(now_ms);
        if main == track_id && frame.info.codec.is_some() {
            self.video.codec = frame.info.codec;
        }
        main == track_id
    }

    /// What a newcomer needs first.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The packaged bytes.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Adds a player.
    pub fn subscribe(&mut self, who: Subscriber) {
        if let std::collections::hash_map::Entry::Vacant(position) = self.positions.entry(who) {
            position.insert(self.subscribers.len());
            self.subscribers.push(who);
        }
    }

    /// Removes a player; constant time.
    pub fn unsubscribe(&mut self, who: Subscriber) {
        let Some(position) = self.positions.remove(&who) else { return };
        self.subscribers.swap_remove(position);
        if let Some(moved) = self.subscribers.get(position) {
            self.positions.insert(*moved, position);
        }
    }

    /// The players on this shard.
    #[must_use]
    pub fn subscribers(&self) -> &[Subscriber] {
        &self.subscribers
    }

    /// How far the publisher's media time runs ahead of the wall clock since it joined.
    #[must_use]
    pub fn lead(&self, now: Instant) -> Duration {
        Duration::from_millis(self.timeline.lead_ms(self.millis(now)))
    }

    /// How often a decoder's configuration changed within the last ten seconds; counts no further than 16.
    /// A publisher that does this all the time is no publisher.
    #[must_use]
    pub fn header_changes(&self, now: Instant) -> usize {
        self.changes.count(self.millis(now))
    }

    /// Numbers for the API.
    #[must_use]
    pub fn sample(&self, now: Instant) -> StreamSample {
        let rates = self.meter.rates(self.millis(now));
        let (gop_ms, gop_frames) = self.meter.gop();
        StreamSample {
            key: self.key.clone(),
            published: self.is_published(),
            players: self.subscribers.len(),
            video_codec: codec_name(self.video.codec),
            audio_codec: codec_name(self.audio_codec),
            width: self.video_format.width,
            height: self.video_format.height,
            frame_rate: if rates.frame_rate > 0.0 { rates.frame_rate } else { self.video_format.frame_rate },
            sample_rate: self.audio_format.sample_rate,
            channels: self.audio_format.channels,
            video_bps: rates.video_bps,
            audio_bps: rates.audio_bps,
            gop_ms,
            gop_frames,
            cache_bytes: self.log.cached(),
            frames: self.meter.frames(),
            discontinuities: self.timeline.discontinuities(),
        }
    }

    /// `now` on the stream's clock, which starts with the stream.
    pub(super) fn millis(&self, now: Instant) -> u64 {
        log::millis(now.saturating_duration_since(self.epoch))
    }

    /// True while pictures come, or are announced and may still come.
    pub(super) fn has_video(&self, now_ms: u64) -> bool {
        self.video.last_ms.is_some_and(|last_ms| now_ms.saturating_sub(last_ms) <= self.video_silence_ms)
    }

    /// Where a player that gets no pictures begins.
    pub(super) fn audio_join(&self, now_ms: u64) -> u64 {
        self.log.seq_since(now_ms.saturating_sub(AUDIO_JOIN_MS)).max(self.floor)
    }
}

/// Names come from publishers; what cannot be printed has been left out by the engine that read them.
fn codec_name(codec: Option<[u8; 4]>) -> String {
    codec.map(|codec| String::from_utf8_lossy(&codec).trim_end().to_owned()).unwrap_or_default()
}
