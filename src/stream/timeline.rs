//! One line of time for a stream's players, however its publishers count theirs.
//!
//! Publishers come and go, wrap, restart from zero or jump by a day. Players see timestamps that go on
//! where they were. Within [`JUMP_MS`] nothing is touched: tracks interleave, decode times are not always
//! in order, and a publisher's own times are the best there are.

use crate::media::{Frame, Track};

/// A step of more than this, either way, is no stream going on.
pub(super) const JUMP_MS: u64 = 60_000;

/// How far behind the last frame the next one is put when nothing is known of the distance.
const STEP_MS: u64 = 40;

/// Maps publishers' timestamps to the stream's.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// What is added to a publisher's timestamp; `None` until its first media frame.
    shift: Option<i128>,
    /// What was added before the last jump. Frames of another track that were sent before the jump may
    /// arrive behind it, and still belong to the time before.
    shift_before: Option<i128>,
    /// The newest time of each of sound and pictures.
    audio: Option<u64>,
    video: Option<u64>,
    /// When the newest of them came, on the stream's clock.
    at_ms: u64,
    /// The present publisher's first media frame: its time, and when it came.
    began: Option<(u64, u64)>,
    discontinuities: u64,
}

impl Timeline {
    /// Another publisher begins.
    pub(super) fn on_publisher(&mut self) {
        self.shift = None;
        self.shift_before = None;
        self.began = None;
    }

    /// Jumps that were smoothed over, changes of publisher included.
    pub(super) fn discontinuities(&self) -> u64 {
        self.discontinuities
    }

    /// How far media time runs ahead of the clock since the publisher began.
    pub(super) fn lead_ms(&self, now_ms: u64) -> u64 {
        let (Some((time, at_ms)), Some(newest)) = (self.began, self.newest()) else { return 0 };
        newest.saturating_sub(time).saturating_sub(now_ms.saturating_sub(at_ms))
    }

    /// The stream's time of `frame`.
    pub(super) fn place(&mut self, now_ms: u64, frame: &Frame) -> u64 {
        let is_media = frame.track != Track::Data && !frame.flags.sequence_header && !frame.info.no_media;
        let sent = i128::from(frame.timestamp_ms);
        if !is_media {
            // Headers and data often say zero wherever they stand. They follow the stream and never move it.
            return match (self.shift, self.newest()) {
                (Some(shift), Some(newest)) => near(sent + shift, newest).unwrap_or(newest),
                (None, Some(newest)) => newest,
                _ => frame.timestamp_ms,
            };
        }
        let time = self.place_media(now_ms, sent, frame.timestamp_ms);
        match frame.track {
            Track::Audio => self.audio = Some(time),
            Track::Video | Track::Data => self.video = Some(time),
        }
        self.at_ms = now_ms;
        if self.began.is_none() {
            self.began = Some((time, now_ms));
        }
        time
    }

    fn place_media(&mut self, now_ms: u64, sent: i128, timestamp_ms: u64) -> u64 {
        let Some(newest) = self.newest() else {
            self.shift = Some(0);
            return timestamp_ms;
        };
        let Some(shift) = self.shift else {
            // A publisher's first frame on a stream that has had one before: as far behind the last frame as
            // the clock says.
            let gap = now_ms.saturating_sub(self.at_ms).clamp(STEP_MS, JUMP_MS);
            return self.rebase(sent, newest.saturating_add(gap));
        };
        if let Some(time) = near(sent + shift, newest) {
            return time;
        }
        if let Some(time) = self.shift_before.and_then(|shift| near(sent + shift, newest)) {
            return time;
        }
        self.shift_before = Some(shift);
        self.rebase(sent, newest.saturating_add(STEP_MS))
    }

    fn rebase(&mut self, sent: i128, time: u64) -> u64 {
        self.discontinuities += 1;
        self.shift = Some(i128::from(time) - sent);
        time
    }

    fn newest(&self) -> Option<u64> {
        self.audio.max(self.video)
    }
}

/// `time` if it is within a jump of `newest`. A little before the beginning counts as the beginning.
fn near(time: i128, newest: u64) -> Option<u64> {
    let distance = (time - i128::from(newest)).unsigned_abs();
    (distance <= u128::from(JUMP_MS)).then(|| u64::try_from(time.max(0)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::media::FrameFlags;

    fn frame(track: Track, timestamp_ms: u64) -> Frame {
        Frame::new(track, timestamp_ms, FrameFlags::default(), Bytes::from_static(b"x"))
    }

    fn place(line: &mut Timeline, now_ms: u64, track: Track, timestamp_ms: u64) -> u64 {
        line.place(now_ms, &frame(track, timestamp_ms))
    }

    #[test]
    fn a_stream_going_on_is_not_touched() {
        let mut line = Timeline::default();
        for (now, track, time) in [
            (0, Track::Audio, 5_000),
            (0, Track::Video, 4_900),
            (40, Track::Video, 5_100),
            (40, Track::Audio, 5_023),
            (80, Track::Video, 65_000),
            (90, Track::Video, 5_200),
        ] {
            assert_eq!(place(&mut line, now, track, time), time);
        }
        assert_eq!(line.discontinuities(), 0);
    }

    #[test]
    fn rt_38_jumps_are_smoothed_and_counted() {
        let mut line = Timeline::default();
        let hour = 3_600_000;
        assert_eq!(place(&mut line, 0, Track::Video, 2 * hour), 2 * hour);
        // Back an hour.
        assert_eq!(place(&mut line, 40, Track::Video, hour), 2 * hour + 40);
        assert_eq!(place(&mut line, 80, Track::Video, hour + 40), 2 * hour + 80);
        // The other track's last frame from before the jump, then its first from behind it: no jump of its own.
        assert_eq!(place(&mut line, 80, Track::Audio, 2 * hour + 20), 2 * hour + 20);
        assert_eq!(place(&mut line, 90, Track::Audio, hour + 10), 2 * hour + 50);
        assert_eq!(line.discontinuities(), 1);
        // A day ahead, and to zero.
        assert_eq!(place(&mut line, 120, Track::Video, 25 * hour), 2 * hour + 120);
        assert_eq!(place(&mut line, 160, Track::Video, 0), 2 * hour + 160);
        assert_eq!(line.discontinuities(), 3);
        assert_eq!(line.lead_ms(160), 0);
    }

    #[test]
    fn another_publisher_continues_where_the_last_one_ended() {
        let mut line = Timeline::default();
        place(&mut line, 0, Track::Video, 10_000);
        place(&mut line, 40, Track::Audio, 10_020);
        line.on_publisher();
        let header =
            Frame { flags: FrameFlags { sequence_header: true, ..FrameFlags::default() }, ..frame(Track::Video, 0) };
        assert_eq!(line.place(3_000, &header), 10_020, "a header follows and does not move anything");
        assert_eq!(place(&mut line, 3_040, Track::Video, 0), 13_020);
        assert_eq!(place(&mut line, 3_040, Track::Audio, 5), 13_025);
        assert_eq!(line.discontinuities(), 1);
        assert_eq!(place(&mut line, 3_040, Track::Data, 0), 13_020);
    }

    #[test]
    fn lead_is_media_time_less_clock_time() {
        let mut line = Timeline::default();
        assert_eq!(line.lead_ms(0), 0);
        place(&mut line, 1_000, Track::Video, 7_000);
        place(&mut line, 1_100, Track::Video, 9_000);
        assert_eq!(line.lead_ms(1_100), 1_900);
        assert_eq!(line.lead_ms(2_000), 1_000);
        assert_eq!(line.lead_ms(9_000), 0);
    }

    proptest! {
        #[test]
        fn rt_38_random_times_neither_underflow_nor_run_away(
            times in prop::collection::vec((any::<u64>(), any::<bool>(), any::<bool>()), 1..200)
        ) {
            let mut line = Timeline::default();
            let mut last: Option<u64> = None;
            for (now, (time, is_audio, is_new)) in times.into_iter().enumerate() {
                if is_new {
                    line.on_publisher();
                }
                let track = if is_audio { Track::Audio } else { Track::Video };
                let placed = place(&mut line, now as u64, track, time >> (time % 64));
                if let Some(last) = last {
                    prop_assert!(placed.abs_diff(last) <= 2 * JUMP_MS, "{last} to {placed}");
                }
                last = Some(placed);
            }
        }
    }
}
