//! Counters that leak: how often something may happen.

use std::time::{Duration, Instant};

/// A leaky counter. It costs no timer: the leak is worked out when something is added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    /// Thousandths, so that slow leaks lose nothing to rounding.
    filled_milli: u64,
    at: Instant,
}

impl Meter {
    /// An empty counter.
    pub(super) fn new(now: Instant) -> Self {
        Self { filled_milli: 0, at: now }
    }

    /// Adds `amount` to a counter that leaks `per_second` and holds `cap`; false, and nothing added,
    /// when it does not fit.
    pub(super) fn add(&mut self, now: Instant, amount: u32, per_second: u32, cap: u32) -> bool {
        let passed = u64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.filled_milli = self.filled_milli.saturating_sub(passed.saturating_mul(u64::from(per_second)));
        self.at = self.at.max(now);
        let filled = self.filled_milli.saturating_add(u64::from(amount).saturating_mul(1_000));
        let fits = filled <= u64::from(cap).saturating_mul(1_000);
        if fits {
            self.filled_milli = filled;
        }
        fits
    }
}

/// `now + wait`. Settings are bounded far inside the clock's range.
pub(super) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}

/// A deadline that was set for a wait of `before`, as it would be for one of `wait`.
pub(super) fn moved(deadline: Instant, before: Duration, wait: Duration) -> Instant {
    deadline.checked_sub(before).map_or(deadline, |began_at| after(began_at, wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_only_the_rate() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        assert_eq!((0..200).filter(|_| meter.add(start, 1, 50, 100)).count(), 100);
        let later = after(start, Duration::from_secs(1));
        assert_eq!((0..200).filter(|_| meter.add(later, 1, 50, 100)).count(), 50);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_refills_nothing() {
        let start = Instant::now();
        let late = after(start, Duration::from_secs(5));
        let mut meter = Meter::new(late);
        assert!(meter.add(late, 10, 1, 10));
        assert!(!meter.add(start, 1, 1, 10));
        assert!(!meter.add(late, 1, 1, 10));
    }
}
