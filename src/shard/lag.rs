//! How late a shard is for its ticks.

use std::time::Duration;

/// The last ten seconds of ticks. One stall of any length is one late tick: what presses a server is being late all the
/// time, which is why 99 of 100 are asked about and not the worst.
///
/// A shard that is in time ticks more seldom than it could. The ticks that it went without stand as ones that were in time;
/// from the first that is late on it is to tick as often as it can, and what is judged is the same as if it always had.
pub struct Lag {
    late_us: [u32; TICKS],
    next: usize,
    /// Ticks since the last that was late.
    in_time: usize,
}

/// Ten seconds of ticks.
const TICKS: usize = 500;
/// A tick that comes no later is in time: half of what makes a server yellow.
const IN_TIME: Duration = Duration::from_millis(10);
/// So many ticks in time, two seconds, make a shard calm.
const CALM: usize = 100;

impl Default for Lag {
    fn default() -> Self {
        Self { late_us: [0; TICKS], next: 0, in_time: CALM }
    }
}

impl Lag {
    /// A tick was so late, and `skipped` before it were left out.
    pub fn record(&mut self, late: Duration, skipped: usize) {
        for _ in 0..skipped.min(TICKS) {
            self.push(0);
        }
        self.push(u32::try_from(late.as_micros()).unwrap_or(u32::MAX));
        self.in_time = if late > IN_TIME { 0 } else { self.in_time.saturating_add(skipped).saturating_add(1) };
    }

    fn push(&mut self, late_us: u32) {
        if let Some(slot) = self.late_us.get_mut(self.next) {
            *slot = late_us;
        }
        self.next = (self.next + 1) % TICKS;
    }

    /// True when the shard need not tick as often as it can to know how late it is.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.in_time >= CALM
    }

    /// How late at most, 99 times of 100. Ticks that were not yet there were in time.
    #[must_use]
    pub fn p99(&self) -> Duration {
        let mut late_us = self.late_us;
        let (_, at, _) = late_us.select_nth_unstable(TICKS - 1 - TICKS / 100);
        Duration::from_micros(u64::from(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_stalls_are_no_lag_and_steady_lateness_is() {
        let mut lag = Lag::default();
        for n in 0..1_000_u64 {
            lag.record(Duration::from_micros(n % 100), 0);
        }
        assert_eq!(lag.p99(), Duration::from_micros(98));
        for _ in 0..5 {
            lag.record(Duration::from_secs(3), 0);
        }
        assert!(lag.p99() < Duration::from_millis(1));
        lag.record(Duration::from_millis(50), 0);
        assert_eq!(lag.p99(), Duration::from_millis(50));
        // Ten seconds later it is forgotten.
        for _ in 0..TICKS {
            lag.record(Duration::ZERO, 0);
        }
        assert_eq!(lag.p99(), Duration::ZERO);
    }

    #[test]
    fn seldom_ticks_count_for_those_left_out_and_one_that_is_late_ends_the_calm() {
        let mut lag = Lag::default();
        assert!(lag.is_calm());
        for _ in 0..6 {
            lag.record(Duration::from_millis(50), 0);
        }
        assert!(!lag.is_calm());
        for _ in 0..20 {
            assert!(!lag.is_calm());
            lag.record(Duration::ZERO, 4);
        }
        assert!(lag.is_calm());
        assert_eq!(lag.p99(), Duration::from_millis(50), "two seconds are not ten");
        for _ in 0..80 {
            lag.record(Duration::ZERO, 4);
        }
        assert_eq!(lag.p99(), Duration::ZERO);
        lag.record(Duration::from_millis(11), usize::MAX);
        assert!(!lag.is_calm());
    }
}
