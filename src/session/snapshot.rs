//! An immutable copy of what changed in a shard's sessions.

use crate::names::SessionId;
use crate::session::{Counters, State};

/// One session's numbers at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSample {
    /// Whose.
    pub id: SessionId,
    /// Where in its life.
    pub state: State,
    /// Its totals.
    pub counters: Counters,
    /// Bytes waiting for this player right now; zero for a source.
    pub queue_bytes: u64,
}
