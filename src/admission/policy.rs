//! What a shard can decide by itself, at once.

use std::time::Instant;

use crate::admission::{Bans, Decision, Request, Settings};

/// The local rules of a shard: bans and the static profile. (Publishing has a second question, who owns
/// the stream, which only control can answer.)
pub struct Policy {
    /// The rules.
    pub settings: Settings,
    /// Who must not come back yet.
    pub bans: Bans,
}

impl Policy {
    /// Bans first, then the profile.
    #[must_use]
    pub fn decide(&self, _now: Instant, _request: &Request) -> Decision {
        todo!("H3")
    }
}
