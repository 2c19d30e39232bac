//! Rates of a stream, measured over the last few seconds.

use crate::media::{Frame, Track};

/// Whole seconds looked back on, beside the one that runs.
const SECONDS: u64 = 5;

/// One for each of them, and one for the second that runs.
const BUCKETS: usize = 6;

/// Counts by the second.
#[derive(Debug, Default)]
pub(super) struct Meter {
    buckets: [Bucket; BUCKETS],
    began_ms: Option<u64>,
    last_picture: u64,
    /// Time of the newest keyframe, and pictures since, itself included.
    group: Option<(u64, u32)>,
    gop_ms: u64,
    gop_frames: u32,
    frames: u64,
}

/// One second by the clock.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    second: u64,
    video_bytes: u64,
    audio_bytes: u64,
    pictures: u32,
    first_picture: u64,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) video_bps: u64,
    pub(super) audio_bps: u64,
    pub(super) frame_rate: f64,
}

impl Meter {
    /// Another publisher begins: nothing of the last one's is mixed with it.
    pub(super) fn on_publisher(&mut self, now_ms: u64) {
        self.buckets = Default::default();
        self.began_ms = Some(now_ms);
        self.group = None;
    }

    /// Counts a frame whose timestamp is the stream's; `is_picture` if it is one of the main video track.
    pub(super) fn count(&mut self, now_ms: u64, frame: &Frame, is_picture: bool) {
        self.frames += 1;
        self.began_ms.get_or_insert(now_ms);
        let second = now_ms / 1_000;
        let time = frame.timestamp_ms;
        let place = usize::try_from(second).unwrap_or(0) % BUCKETS;
        let bucket = &mut self.buckets[place];
        if bucket.second != second {
            *bucket = Bucket { second, ..Bucket::default() };
        }
        match frame.track {
            Track::Video => bucket.video_bytes += frame.payload.len() as u64,
            Track::Audio => bucket.audio_bytes += frame.payload.len() as u64,
            Track::Data => {}
        }
        if !is_picture {
            return;
        }
        if bucket.pictures == 0 {
            bucket.first_picture = time;
        }
        bucket.pictures += 1;
        self.last_picture = time;
        if frame.flags.keyframe {
            if let Some((began, pictures)) = self.group {
                self.gop_ms = time.saturating_sub(began);
                self.gop_frames = pictures;
            }
            self.group = Some((time, 1));
        } else if let Some((_, pictures)) = &mut self.group {
            *pictures = pictures.saturating_add(1);
        }
    }

    /// The rates at `now_ms`.
    pub(super) fn rates(&self, now_ms: u64) -> Rates {
        let second = now_ms / 1_000;
        let oldest = second.saturating_sub(SECONDS);
        let mut sum = Bucket { first_picture: u64::MAX, ..Bucket::default() };
        for bucket in self.buckets.iter().filter(|bucket| (oldest..=second).contains(&bucket.second)) {
            sum.video_bytes += bucket.video_bytes;
            sum.audio_bytes += bucket.audio_bytes;
            if bucket.pictures > 0 {
                sum.pictures += bucket.pictures;
                sum.first_picture = sum.first_picture.min(bucket.first_picture);
            }
        }
        let from_ms = self.began_ms.unwrap_or(now_ms).max(oldest * 1_000);
        // The first second is not extrapolated: it begins with a burst.
        let elapsed_ms = now_ms.saturating_sub(from_ms).max(1_000);
        let span_ms = self.last_picture.saturating_sub(sum.first_picture);
        let frame_rate = match (sum.pictures, u32::try_from(span_ms)) {
            (2.., Ok(span_ms @ 1..)) => f64::from(sum.pictures - 1) * 1_000.0 / f64::from(span_ms),
            _ => 0.0,
        };
        Rates {
            video_bps: sum.video_bytes * 8_000 / elapsed_ms,
            audio_bps: sum.audio_bytes * 8_000 / elapsed_ms,
            frame_rate,
        }
    }

    /// Length in milliseconds of the newest complete group of pictures, and pictures in it.
    pub(super) fn gop(&self) -> (u64, u32) {
        (self.gop_ms, self.gop_frames)
    }

    /// Frames counted since the stream began here.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::media::FrameFlags;

    #[test]
    fn rates_of_a_steady_stream() {
        let mut meter = Meter::default();
        for n in 0..500_u64 {
            let flags = FrameFlags { keyframe: n % 50 == 0, ..FrameFlags::default() };
            let picture = Frame::new(Track::Video, n * 40, flags, Bytes::from(vec![0; 10_000]));
            meter.count(n * 40, &picture, true);
            let sound = Frame::new(Track::Audio, n * 40, FrameFlags::default(), Bytes::from(vec![0; 500]));
            meter.count(n * 40, &sound, false);
        }
        let rates = meter.rates(20_000);
        assert_eq!(meter.gop(), (2_000, 50));
        assert_eq!(meter.frames(), 1_000);
        assert!((rates.frame_rate - 25.0).abs() < 0.01, "{rates:?}");
        assert_eq!(rates.video_bps, 2_000_000);
        assert_eq!(rates.audio_bps, 100_000);
        assert_eq!(meter.rates(60_000), Rates::default(), "a stream that stopped has no rate");
    }
}
