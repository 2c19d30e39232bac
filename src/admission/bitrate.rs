//! Whether a publisher sends more than it may: measured, never taken from what it says.

use std::time::{Duration, Instant};

/// A minute of what a publisher sent, in five-second buckets.
pub struct Bitrate {
    max_bps: u64,
    /// Bits in each bucket, oldest first; the last is being filled.
    bits: [u64; BUCKETS],
    /// Buckets that are full, counted up to a minute's.
    full: usize,
    bucket_ends: Instant,
    sampled_at: Instant,
    /// What had come in all at the last sample.
    rx_bytes: u64,
    is_high: bool,
}

/// What a sample brought to light.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Above the rule over the last 10 s; said once until it was below again.
    High(u64),
    /// Above the rule over the last minute.
    TooHigh(u64),
}

const WIDTH: Duration = Duration::from_secs(5);
/// A minute, and the bucket that is being filled.
const BUCKETS: usize = 13;
const MINUTE: usize = BUCKETS - 1;
const TEN_SECONDS: usize = 2;

impl Bitrate {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(now: Instant, max_bps: u64) -> Self {
        Self {
            max_bps,
            bits: [0; BUCKETS],
            full: 0,
            bucket_ends: now + WIDTH,
            sampled_at: now,
            rx_bytes: 0,
            is_high: false,
        }
    }

    /// What the publisher may send.
    #[must_use]
    pub fn max_bps(&self) -> u64 {
        self.max_bps
    }

    /// So many bytes have come since the publisher's beginning. What came since the last time counts for all of the time
    /// between: whoever sends a picture and rests is judged by both.
    pub fn handle_received(&mut self, now: Instant, rx_bytes: u64) -> Option<Finding> {
        let ms = now.saturating_duration_since(self.sampled_at).as_millis();
        let bits = u128::from(rx_bytes.saturating_sub(self.rx_bytes)) * 8;
        // Twice in a millisecond: the next time has both.
        let bps = bits.saturating_mul(1_000).checked_div(ms)?;
        self.rx_bytes = rx_bytes;
        self.handle_sample(now, u64::try_from(bps).unwrap_or(u64::MAX))
    }

    /// `bps` was sent on average since the last sample.
    fn handle_sample(&mut self, now: Instant, bps: u64) -> Option<Finding> {
        let mut finding = None;
        // After a minute without a sample nothing older counts, so there are never more rounds than buckets.
        for _ in 0..=BUCKETS {
            let until = now.min(self.bucket_ends);
            self.fill(until, bps);
            if now < self.bucket_ends {
                return finding;
            }
            finding = self.judge().or(finding);
            self.bits.rotate_left(1);
            self.bits[BUCKETS - 1] = 0;
            self.bucket_ends += WIDTH;
        }
        (self.sampled_at, self.bucket_ends) = (now, now + WIDTH);
        finding
    }

    fn fill(&mut self, until: Instant, bps: u64) {
        let ms = until.saturating_duration_since(self.sampled_at).as_millis();
        let bits = u64::try_from(u128::from(bps) * ms / 1_000).unwrap_or(u64::MAX);
        self.bits[BUCKETS - 1] = self.bits[BUCKETS - 1].saturating_add(bits);
        self.sampled_at = self.sampled_at.max(until);
    }

    /// A bucket is full.
    fn judge(&mut self) -> Option<Finding> {
        self.full = (self.full + 1).min(MINUTE);
        if self.full >= MINUTE {
            let bps = self.average(MINUTE);
            if bps > self.max_bps {
                return Some(Finding::TooHigh(bps));
            }
        }
        if self.full < TEN_SECONDS {
            return None;
        }
        let bps = self.average(TEN_SECONDS);
        let was_high = std::mem::replace(&mut self.is_high, bps > self.max_bps);
        (self.is_high && !was_high).then_some(Finding::High(bps))
    }

    fn average(&self, buckets: usize) -> u64 {
        let sum = self.bits[BUCKETS - buckets..].iter().fold(0_u64, |sum, bits| sum.saturating_add(*bits));
        sum / (buckets as u64 * WIDTH.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples four times a second for `seconds`; what was found, and after how many seconds.
    fn run(bitrate: &mut Bitrate, from: Instant, seconds: u64, bps: u64) -> Vec<(u64, Finding)> {
        let samples = (1..=seconds * 4).map(|quarter| (quarter, from + Duration::from_millis(250 * quarter)));
        samples
            .filter_map(|(quarter, at)| bitrate.handle_sample(at, bps).map(|finding| (quarter / 4, finding)))
            .collect()
    }

    #[test]
    fn md_10_ten_times_the_rule_is_high_after_ten_seconds_and_too_high_after_sixty() {
        let start = Instant::now();
        let mut bitrate = Bitrate::new(start, 1_000_000);
        let found = run(&mut bitrate, start, 60, 10_000_000);
        assert_eq!(found, [(10, Finding::High(10_000_000)), (60, Finding::TooHigh(10_000_000))]);
    }

    #[test]
    fn at_the_rule_is_not_above_it_and_a_short_burst_is_forgiven() {
        let start = Instant::now();
        let mut bitrate = Bitrate::new(start, 1_000_000);
        assert_eq!(run(&mut bitrate, start, 120, 1_000_000), []);
        let mut at = start + Duration::from_mins(2);
        assert_eq!(run(&mut bitrate, at, 60, 800_000), []);
        at += Duration::from_mins(1);
        assert_eq!(run(&mut bitrate, at, 5, 1_600_000), [(5, Finding::High(1_200_000))]);
        at += Duration::from_secs(5);
        assert_eq!(run(&mut bitrate, at, 120, 800_000), []);
        at += Duration::from_mins(2);
        let again = run(&mut bitrate, at, 10, 1_500_000);
        assert_eq!(again.len(), 1, "it is said again once it was below: {again:?}");
    }

    #[test]
    fn a_picture_and_a_rest_are_judged_together() {
        let start = Instant::now();
        for (bytes, found) in
            [(400_000, vec![]), (950_000, vec![Finding::High(1_520_000), Finding::TooHigh(1_520_000)])]
        {
            let mut bitrate = Bitrate::new(start, 1_000_000);
            // Reports come while something comes: for a quarter of a second out of five.
            let reports = (0..24).flat_map(|picture| [(picture, 4_750, bytes / 2), (picture, 5_000, bytes)]);
            let samples = reports.map(|(picture, ms, of_it)| {
                bitrate.handle_received(start + Duration::from_millis(picture * 5_000 + ms), picture * bytes + of_it)
            });
            let mut seen: Vec<Finding> = samples.flatten().collect();
            seen.dedup();
            assert_eq!(seen, found, "{bytes} bytes every five seconds");
        }
    }

    #[test]
    fn reports_that_come_late_count_for_the_time_between_and_hours_cost_no_more_than_a_minute() {
        let start = Instant::now();
        let mut bitrate = Bitrate::new(start, 1_000_000);
        let late = bitrate.handle_sample(start + Duration::from_secs(62), 2_000_000);
        assert_eq!(late, Some(Finding::TooHigh(2_000_000)));
        let mut bitrate = Bitrate::new(start, 1_000_000);
        assert_eq!(bitrate.handle_sample(start + Duration::from_secs(1_000_000), 1), None);
        let from = start + Duration::from_secs(1_000_000);
        assert_eq!(run(&mut bitrate, from, 10, 3_000_000), [(5, Finding::High(1_500_000))]);
    }
}
