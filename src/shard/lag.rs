//! How late a shard is for its ticks.

use std::time::Duration;

/// The last ten seconds of ticks. One stall of any length is one late tick: what presses a server is being late all the
/// time, which is why 99 of 100 are asked about and not the worst.
pub struct Lag {
    late_us: [u32; TICKS],
    next: usize,
}

/// Ten seconds of ticks.
const TICKS: usize = 500;

impl Default for Lag {
    fn default() -> Self {
        Self { late_us: [0; TICKS], next: 0 }
    }
}

impl Lag {
    /// A tick was so late.
    pub fn record(&mut self, late: Duration) {
        if let Some(slot) = self.late_us.get_mut(self.next) {
            *slot = u32::try_from(late.as_micros()).unwrap_or(u32::MAX);
        }
        self.next = (self.next + 1) % TICKS;
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
            lag.record(Duration::from_micros(n % 100));
        }
        assert_eq!(lag.p99(), Duration::from_micros(98));
        for _ in 0..5 {
            lag.record(Duration::from_secs(3));
        }
        assert!(lag.p99() < Duration::from_millis(1));
        lag.record(Duration::from_millis(50));
        assert_eq!(lag.p99(), Duration::from_millis(50));
        // Ten seconds later it is forgotten.
        for _ in 0..TICKS {
            lag.record(Duration::ZERO);
        }
        assert_eq!(lag.p99(), Duration::ZERO);
    }
}
