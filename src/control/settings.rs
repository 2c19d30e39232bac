//! What control obeys.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::stdx::units;

/// `[control]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Events kept for consumers that resume. Each takes about 200 bytes.
    pub events_kept: usize,
    /// Finished sessions kept for `GET /v1/sessions/{id}` after their end.
    pub finished_kept: usize,
    /// Distinct `local:remote:reference` keys kept in a collector's history; beyond it the least recently
    /// finished are folded into one `other` entry and counted.
    pub history_keys_max: usize,
    /// How long an order to a shard may take.
    #[serde(with = "units::duration")]
    pub order_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            events_kept: 65_536,
            finished_kept: 10_000,
            history_keys_max: 100_000,
            order_timeout: Duration::from_secs(1),
        }
    }
}
