//! A player's place in a log.

use std::io::IoSlice;
use std::time::Instant;

use smallvec::SmallVec;

use crate::media::{Frame, Track};
use crate::stream::log::{Entry, Filled, millis};
use crate::stream::{Live, Settings};

/// What a player is owed right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing new.
    Nothing,
    /// Bytes are waiting.
    Bytes(u64),
    /// The cursor has been put at a new place; ask again for what is owed from there. Whatever it was in the
    /// middle of has gone out whole before.
    /// When `headers_changed`, the stream's headers must be sent again before the log's bytes.
    Jumped {
        /// Frames skipped because the cursor fell out of the window. 0 when it did not: a newcomer or a paused
        /// player begins, and the configuration is not the one it was told.
        dropped_frames: u64,
        /// The configuration changed in what was skipped.
        headers_changed: bool,
    },
    /// It keeps happening: close as `slow_consumer`.
    GiveUp {
        /// Frames that this last time would have skipped; told once, 0 from then on.
        dropped_frames: u64,
    },
}

/// What a write completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Frames that are now out whole.
    pub frames: u64,
    /// Their media payload bytes, packaging left out.
    pub media_bytes: u64,
}

/// A place in a log: all there is of a player's queue.
///
/// ```text
///               join point            falls out of the window
///   Waiting ───────────────► Running ─────────────────────────► Finishing
///      ▲                        │ pause, at a frame's end           │ the frame is out
///      └────────────────────────┴───────────────────────────────────┘
///   any: out of the window too often, or the rest of a frame is gone ► Gone
/// ```
///
/// The owner asks [`due`](Self::due), offers [`slices`](Self::slices) to the kernel and reports what it took
/// with [`on_written`](Self::on_written), with nothing pushed to the stream between the last two.
#[derive(Clone, Debug)]
pub struct Cursor {
    state: State,
    /// The frame that the next byte belongs to, while `Running`.
    seq: u64,
    offset: u64,
    /// The frame that the cursor is in the middle of; its end is at `offset` when there is none.
    partial_end: u64,
    partial_media: u32,
    /// The headers that the player has: those of its beginning, and then those it got on its way.
    generation: u32,
    /// How far it may lag beyond the settings: as far as it lagged when it began, less what it has caught up.
    extra_bytes: u64,
    extra_ms: u64,
    tracks: Tracks,
    is_paused: bool,
    /// When it fell out of the window, within `overflow_window`.
    overflows_at_ms: Vec<u64>,
}

/// What the player gets.
#[derive(Clone, Copy, Debug)]
struct Tracks {
    audio: bool,
    video: bool,
    /// No pictures before the next keyframe, although the rest goes on.
    awaits_key: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// For a place at or behind `since` to begin.
    Waiting { since: u64, why: Why },
    /// At the frame `seq`.
    Running,
    /// The rest of a frame is owed, and then as `Waiting`.
    Finishing { since: u64, why: Why },
    /// It cannot go on. The frame it fell out at, until that has been told.
    Gone { since: Option<u64> },
}

/// Why a cursor waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It is new.
    Newcomer,
    /// It was paused, and may go on with the frame `since` if that is still there.
    Pause,
    /// It fell out of the window at the frame `since`.
    Overflow,
}

/// How far a publisher's first headers may be from its beginning.
const LEADING_HEADERS: u64 = 16;

impl Cursor {
    /// A newcomer's cursor: at the newest group of pictures if the cache holds one, else waiting for the
    /// next keyframe (or, on a stream without video, for the next frame).
    ///
    /// The owner sends the headers that the stream has now.
    #[must_use]
    pub fn join(live: &Live, now: Instant) -> Self {
        let mut cursor = Self {
            state: State::Waiting { since: 0, why: Why::Newcomer },
            seq: 0,
            offset: live.log().end(),
            partial_end: live.log().end(),
            partial_media: 0,
            generation: live.headers().generation,
            extra_bytes: 0,
            extra_ms: 0,
            tracks: Tracks { audio: true, video: true, awaits_key: false },
            is_paused: false,
            overflows_at_ms: Vec::new(),
        };
        let now_ms = live.millis(now);
        if let Some(seq) = cursor.landing(live, now_ms, 0, Why::Newcomer) {
            cursor.land(live, now_ms, seq, false);
        }
        cursor
    }

    /// What is owed. Applies the overflow rule: a player may lag as far as it did when it began, and
    /// `queue_bytes` and `queue_time` beyond.
    pub fn due(&mut self, live: &Live, settings: &Settings, now: Instant) -> Due {
        let now_ms = live.millis(now);
        if let State::Running = self.state {
            let log = live.log();
            if self.offset == log.end() {
                // Nothing can be owed, and all has been caught up.
                (self.extra_bytes, self.extra_ms) = (0, 0);
                return Due::Nothing;
            }
            self.skip_unwanted(live);
            if self.is_out_of_window(live, settings, now_ms) {
                self.fall_out(settings, now_ms);
            }
        }
        if let State::Finishing { since, why } = self.state {
            if self.offset < self.partial_end {
                if live.log().holds(self.offset, self.partial_end) {
                    return Due::Bytes(self.partial_end - self.offset);
                }
                self.state = State::Gone { since: Some(since) };
            } else {
                self.state = State::Waiting { since, why };
            }
        }
        if let State::Waiting { since, why } = self.state {
            let Some(seq) = self.landing(live, now_ms, since, why) else { return Due::Nothing };
            let dropped_frames = if why == Why::Overflow { seq.saturating_sub(since) } else { 0 };
            let headers_changed = self.land(live, now_ms, seq, why == Why::Pause && seq == since);
            if dropped_frames > 0 || headers_changed {
                return Due::Jumped { dropped_frames, headers_changed };
            }
        }
        match &mut self.state {
            State::Running => match self.owed(live) {
                0 => Due::Nothing,
                bytes => Due::Bytes(bytes),
            },
            State::Gone { since } => {
                let dropped_frames = since.take().map_or(0, |since| live.log().next_seq().saturating_sub(since));
                Due::GiveUp { dropped_frames }
            }
            State::Waiting { .. } | State::Finishing { .. } => Due::Nothing,
        }
    }

    /// Fills `out` with what is owed, up to `max_bytes` and as many slices as `out` takes; returns how many
    /// slices were filled. No copy, no allocation.
    pub fn slices<'a>(&self, live: &'a Live, max_bytes: usize, out: &mut [IoSlice<'a>]) -> usize {
        let log = live.log();
        let mut filled = Filled { out, count: 0, left: max_bytes };
        match self.state {
            State::Running if self.seq < log.first_seq() => log.fill(self.offset, self.partial_end, &mut filled),
            State::Finishing { .. } => log.fill(self.offset, self.partial_end, &mut filled),
            State::Running if self.takes_all(live) => log.fill(self.offset, log.end(), &mut filled),
            State::Running => {
                // Wanted frames that follow each other go as one piece.
                let mut from = self.offset;
                let mut to = self.offset;
                self.walk(live, |_, entry, is_wanted| {
                    if is_wanted && entry.offset.max(self.offset) == to {
                        to = entry.end();
                    } else if is_wanted {
                        log.fill(from, to, &mut filled);
                        from = entry.offset;
                        to = entry.end();
                    }
                    filled.has_room_beyond(to - from)
                });
                log.fill(from, to, &mut filled);
            }
            State::Waiting { .. } | State::Gone { .. } => {}
        }
        filled.count
    }

    /// Records that the kernel took `bytes` of what [`slices`](Self::slices) offered.
    pub fn on_written(&mut self, live: &Live, bytes: u64) -> Written {
        let mut written = Written::default();
        let mut left = bytes;
        if self.offset < self.partial_end {
            let taken = left.min(self.partial_end - self.offset);
            self.offset += taken;
            left -= taken;
            if self.offset < self.partial_end {
                self.pin(live);
                return written;
            }
            written.frames = 1;
            written.media_bytes = u64::from(self.partial_media);
            if let State::Running = self.state {
                self.pass(live);
            }
        }
        let State::Running = self.state else { return written };
        while left > 0 {
            self.skip_unwanted(live);
            let Some(entry) = live.log().entry(self.seq) else { break };
            let taken = left.min(u64::from(entry.len));
            left -= taken;
            self.offset = entry.offset + taken;
            if taken < u64::from(entry.len) {
                self.partial_end = entry.end();
                self.partial_media = entry.media_len;
                self.pin(live);
                break;
            }
            written.frames += 1;
            written.media_bytes += u64::from(entry.media_len);
            self.partial_end = self.offset;
            self.pass(live);
        }
        written
    }

    /// What is left of a frame that is half out; 0 at a frame's boundary.
    #[must_use]
    pub fn frame_remainder(&self) -> u64 {
        self.partial_end.saturating_sub(self.offset)
    }

    /// The headers that a player needs before it goes on from here: those that the log does not bring by itself before
    /// the first media of their track.
    pub fn missing_headers<'a>(&self, live: &'a Live) -> impl Iterator<Item = &'a Frame> + use<'a> {
        let mut coming: SmallVec<[(Track, u32); 8]> = SmallVec::new();
        let mut begun: SmallVec<[Track; 3]> = SmallVec::new();
        for seq in self.seq..self.seq.saturating_add(LEADING_HEADERS) {
            let Some(entry) = live.log().entry(seq) else { break };
            if !entry.is_header {
                begun.push(entry.track);
            } else if !begun.contains(&entry.track) {
                coming.push((entry.track, entry.media_len));
            }
        }
        live.headers().iter().filter(move |frame| {
            !coming.iter().any(|(track, len)| *track == frame.track && *len as usize == frame.payload.len())
        })
    }

    /// The timestamp of the frame at the cursor, if there is one.
    #[must_use]
    pub fn timestamp_ms(&self, live: &Live) -> Option<u64> {
        live.log().entry(self.seq).map(|entry| entry.timestamp_ms)
    }

    /// Where the next byte comes from.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes the player is behind the stream; 0 while it waits.
    #[must_use]
    pub fn lag_bytes(&self, live: &Live) -> u64 {
        match self.state {
            State::Running => live.log().end().saturating_sub(self.offset),
            State::Finishing { .. } => self.partial_end.saturating_sub(self.offset),
            State::Waiting { .. } | State::Gone { .. } => 0,
        }
    }

    /// True while there is nothing to send until a keyframe comes.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Which tracks the player wants (`receiveAudio`, `receiveVideo`). Pictures that it wants again begin
    /// with the next keyframe. Headers and metadata are sent in any case.
    pub fn set_tracks(&mut self, audio: bool, video: bool) {
        if video && !self.tracks.video {
            self.tracks.awaits_key = true;
        }
        self.tracks.audio = audio;
        self.tracks.video = video;
    }

    /// Stops and goes on. A paused player is owed nothing beyond the frame it is in the middle of. It goes on
    /// with the newest keyframe that it has not had, or where it stopped if there is none.
    pub fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
        if let (true, State::Running) = (is_paused, self.state) {
            self.leave(Why::Pause);
        }
    }

    /// From running to finishing or waiting; what is dropped is counted from the first frame that will not
    /// go out whole.
    fn leave(&mut self, why: Why) {
        self.state = if self.offset < self.partial_end {
            State::Finishing { since: self.seq + 1, why }
        } else {
            State::Waiting { since: self.seq, why }
        };
    }

    fn is_out_of_window(&mut self, live: &Live, settings: &Settings, now_ms: u64) -> bool {
        let log = live.log();
        let Some(entry) = log.entry(self.seq) else {
            return self.seq < log.first_seq();
        };
        // The frame that is next is not counted: a single one may be larger than the whole queue.
        let lag_bytes = log.end().saturating_sub(entry.end());
        let lag_ms = now_ms.saturating_sub(entry.at_ms);
        self.extra_bytes = self.extra_bytes.min(lag_bytes);
        self.extra_ms = self.extra_ms.min(lag_ms);
        lag_bytes > self.extra_bytes.saturating_add(settings.queue_bytes)
            || lag_ms > self.extra_ms.saturating_add(millis(settings.queue_time))
    }

    fn fall_out(&mut self, settings: &Settings, now_ms: u64) {
        let window_ms = millis(settings.overflow_window);
        self.overflows_at_ms.retain(|at_ms| now_ms.saturating_sub(*at_ms) <= window_ms);
        self.overflows_at_ms.push(now_ms);
        if self.overflows_at_ms.len() >= settings.overflows_max.max(1) as usize {
            self.overflows_at_ms = Vec::new();
            self.state = State::Gone { since: Some(self.seq) };
        } else {
            self.leave(Why::Overflow);
        }
    }

    /// Where a cursor that waits may go on, if there is such a place.
    fn landing(&self, live: &Live, now_ms: u64, since: u64, why: Why) -> Option<u64> {
        if self.is_paused {
            return None;
        }
        let log = live.log();
        let begin = if self.tracks.video && live.has_video(now_ms) {
            log.join_seq().filter(|seq| *seq >= since)
        } else {
            Some(live.audio_join(now_ms).max(since))
        };
        let may_resume = why == Why::Pause && since >= log.first_seq();
        begin.or_else(|| may_resume.then_some(since))
    }

    /// Goes on at `seq`, which for one that is resumed is where it stopped; true when the player must get the headers first.
    fn land(&mut self, live: &Live, now_ms: u64, seq: u64, is_resumed: bool) -> bool {
        let log = live.log();
        let entry = log.entry(seq);
        self.state = State::Running;
        self.seq = seq;
        self.offset = entry.map_or(log.end(), |entry| entry.offset);
        self.partial_end = self.offset;
        if log.join_seq() == Some(seq) {
            self.tracks.awaits_key = false;
        } else if !is_resumed {
            // One that goes on where it stopped has had the pictures that the next ones refer to; others have not.
            self.tracks.awaits_key = true;
        }
        self.extra_bytes = log.end() - self.offset;
        self.extra_ms = entry.map_or(0, |entry| now_ms.saturating_sub(entry.at_ms));
        let generation = live.headers().generation;
        std::mem::replace(&mut self.generation, generation) != generation
    }

    /// Bytes from here to the end, those of unwanted frames left out.
    fn owed(&self, live: &Live) -> u64 {
        if self.takes_all(live) {
            return live.log().end().saturating_sub(self.offset);
        }
        let mut bytes = 0;
        self.walk(live, |_, entry, is_wanted| {
            if is_wanted {
                bytes += entry.end() - entry.offset.max(self.offset);
            }
            true
        });
        bytes
    }

    /// True when every frame from here on is wanted, as for almost every player at almost every time.
    fn takes_all(&self, live: &Live) -> bool {
        let takes_video = self.tracks.video && !self.tracks.awaits_key;
        self.tracks.audio && (takes_video || !live.log().has_video_from(self.seq))
    }

    /// Visits the frames from here on until `visit` returns false, and says of each whether it is wanted.
    fn walk(&self, live: &Live, mut visit: impl FnMut(u64, &Entry, bool) -> bool) {
        let mut awaits_key = self.tracks.awaits_key;
        let mut seq = self.seq;
        while let Some(entry) = live.log().entry(seq) {
            let is_begun = seq == self.seq && self.offset < self.partial_end;
            let is_wanted = is_begun || self.wants(entry, &mut awaits_key);
            if !visit(seq, entry, is_wanted) {
                return;
            }
            seq += 1;
        }
    }

    fn wants(&self, entry: &Entry, awaits_key: &mut bool) -> bool {
        match entry.track {
            _ if entry.is_header => true,
            Track::Data => true,
            Track::Audio => self.tracks.audio,
            Track::Video => {
                *awaits_key &= !(self.tracks.video && entry.is_key);
                self.tracks.video && !*awaits_key
            }
        }
    }

    /// Steps over frames that this player does not get.
    fn skip_unwanted(&mut self, live: &Live) {
        if self.offset < self.partial_end || self.takes_all(live) {
            return;
        }
        let mut awaits_key = self.tracks.awaits_key;
        while let Some(entry) = live.log().entry(self.seq) {
            if self.wants(entry, &mut awaits_key) {
                break;
            }
            self.offset = entry.end();
            self.partial_end = self.offset;
            self.seq += 1;
        }
        self.tracks.awaits_key = awaits_key;
    }

    /// The frame is out: the next is the one that begins here.
    fn pass(&mut self, live: &Live) {
        if let Some(entry) = live.log().entry(self.seq) {
            self.generation = entry.generation;
            self.seq += 1;
        } else {
            // It was trimmed while it went out.
            self.seq = self.seq.saturating_add(1);
        }
    }

    fn pin(&self, live: &Live) {
        live.log().pin(self.offset, self.partial_end);
    }
}
