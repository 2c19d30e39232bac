//! What is counted of one back end.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::hook::breaker::BreakerState;

/// The upper ends of the histogram's buckets, in milliseconds; what took longer is in one more.
pub const BUCKETS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000];

/// What is known of a back end at one instant.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its name in the configuration.
    pub name: Box<str>,
    /// Requests by what came of them: the words of [`Failure`](crate::admission::Failure), and beside them `allow` and
    /// `deny` of a question, `taken` and `refused` of what is told.
    pub requests: Vec<(&'static str, u64)>,
    /// How long requests took that went out.
    pub seconds: Seconds,
    /// Questions that wait or are under way; events held in memory.
    pub queue: usize,
    /// Whether it is left alone.
    pub breaker: BreakerState,
    /// Events told, requests made again, reports replaced, events given up; zeros of a back end that is asked.
    pub told: crate::hook::teller::Counts,
}

/// A histogram of times.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seconds {
    /// How many fell into each bucket of [`BUCKETS_MS`] (and not into an earlier one), and beyond the last.
    pub counts: [u64; BUCKETS_MS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl Seconds {
    fn add(&mut self, time: Duration) {
        let bucket = BUCKETS_MS.iter().take_while(|end| time > Duration::from_millis(**end)).count();
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.sum = self.sum.saturating_add(time);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Counts the requests to one back end.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    requests: BTreeMap<&'static str, u64>,
    seconds: Seconds,
}

impl Meter {
    /// A request that took so long, or that never went out.
    pub(crate) fn add(&mut self, result: &'static str, took: Option<Duration>) {
        let count = self.requests.entry(result).or_default();
        *count = count.saturating_add(1);
        if let Some(took) = took {
            self.seconds.add(took);
        }
    }

    pub(crate) fn requests(&self) -> Vec<(&'static str, u64)> {
        self.requests.iter().map(|(result, count)| (*result, *count)).collect()
    }

    pub(crate) fn seconds(&self) -> Seconds {
        self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_bucket_whose_end_it_does_not_exceed() {
        let mut meter = Meter::default();
        for (ms, bucket) in [(0, 0), (1, 0), (2, 1), (3, 2), (5_000, 11), (5_001, 12), (1_000_000, 12)] {
            let before = meter.seconds().counts[bucket];
            meter.add("allow", Some(Duration::from_millis(ms)));
            assert_eq!(meter.seconds().counts[bucket], before + 1, "{ms}");
        }
        meter.add("queue_full", None);
        assert_eq!((meter.seconds().count(), meter.requests()), (7, vec![("allow", 7), ("queue_full", 1)]));
    }
}
