//! Instants and the labels people read.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Ties the monotonic clock, which all durations use, to the wall clock, which only labels. Taken
/// once at start and handed down, so that everything below can be run on virtual time.
#[derive(Clone, Copy, Debug)]
pub struct WallAnchor {
    instant: Instant,
    since_epoch: Duration,
}

impl WallAnchor {
    /// Reads both clocks. Only `main`, the shards' start and tests call this.
    #[must_use]
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), since_epoch }
    }

    /// An anchor at chosen times, for tests.
    #[must_use]
    pub fn at(instant: Instant, since_epoch: Duration) -> Self {
        Self { instant, since_epoch }
    }

    /// The wall time of `instant` as a duration since the Unix epoch.
    #[must_use]
    pub fn since_epoch(&self, instant: Instant) -> Duration {
        match instant.checked_duration_since(self.instant) {
            Some(later) => self.since_epoch.saturating_add(later),
            None => self.since_epoch.saturating_sub(self.instant.duration_since(instant)),
        }
    }

    /// The wall time of `instant` in whole milliseconds since the Unix epoch.
    #[must_use]
    pub fn unix_ms(&self, instant: Instant) -> u64 {
        u64::try_from(self.since_epoch(instant).as_millis()).unwrap_or(u64::MAX)
    }
}
