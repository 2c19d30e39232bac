//! How often something may happen.

use std::time::Duration;

/// So many a second or a minute, and so many at once after a pause. Its whole state is one number that the caller
/// keeps: the microsecond at which everything let through so far would be paid for. That fits an atomic, so that one
/// rate may be shared by all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What one costs, in microseconds.
    every_us: u64,
    /// How far ahead of the clock the state may run.
    ahead_us: u64,
}

impl Rate {
    /// `count` in each `per`, and `burst` at once; `None` for a count of 0, which is no limit.
    #[must_use]
    pub fn new(count: u32, per: Duration, burst: u32) -> Option<Self> {
        let per_us = u64::try_from(per.as_micros()).unwrap_or(u64::MAX);
        let every_us = per_us.checked_div(u64::from(count))?.max(1);
        Some(Self { every_us, ahead_us: every_us.saturating_mul(u64::from(burst.max(1))) })
    }

    /// The state after one more at `now_us`, or `None` when it does not fit.
    #[must_use]
    pub fn take(self, state_us: u64, now_us: u64) -> Option<u64> {
        let next = state_us.max(now_us).saturating_add(self.every_us);
        (next <= now_us.saturating_add(self.ahead_us)).then_some(next)
    }

    /// How many fit at `now_us`.
    #[must_use]
    pub fn room(self, state_us: u64, now_us: u64) -> u64 {
        let free = now_us.saturating_add(self.ahead_us).saturating_sub(state_us.max(now_us));
        free / self.every_us
    }

    /// How long until there is room for one.
    #[must_use]
    pub fn wait(self, state_us: u64, now_us: u64) -> Duration {
        let next = state_us.max(now_us).saturating_add(self.every_us);
        Duration::from_micros(next.saturating_sub(now_us.saturating_add(self.ahead_us)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn taken(rate: Rate, state: &mut u64, now: u64, tries: u32) -> usize {
        let mut count = 0;
        for _ in 0..tries {
            if let Some(next) = rate.take(*state, now) {
                *state = next;
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_burst_passes_and_then_only_the_rate() {
        let rate = Rate::new(200, Duration::from_secs(1), 400).unwrap();
        let mut state = 0;
        assert_eq!(taken(rate, &mut state, 5 * SECOND, 1_000), 400);
        assert_eq!(rate.room(state, 5 * SECOND), 0);
        assert_eq!(rate.wait(state, 5 * SECOND), Duration::from_millis(5));
        assert_eq!(taken(rate, &mut state, 6 * SECOND, 1_000), 200);
        assert_eq!(rate.room(state, 100 * SECOND), 400);
        assert_eq!(rate.wait(state, 100 * SECOND), Duration::ZERO);
    }

    #[test]
    fn nothing_is_no_limit_and_a_clock_that_stands_still_refills_nothing() {
        assert_eq!(Rate::new(0, Duration::from_secs(1), 1), None);
        let rate = Rate::new(1, Duration::from_secs(1), 3).unwrap();
        let mut state = 0;
        assert_eq!(taken(rate, &mut state, 0, 10), 3);
        assert_eq!(taken(rate, &mut state, 0, 10), 0);
    }
}
