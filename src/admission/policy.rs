//! What a shard can decide by itself, at once.

use std::sync::Arc;
use std::time::Instant;

use crate::admission::gate::Passage;
use crate::admission::{Bans, Decision, Gate, Request};
use crate::session::{CloseReason, Reason};

/// The local rules of a shard: bans and the gate. (Publishing has a second question, who owns the stream, which only
/// control can answer.)
pub struct Policy {
    /// Address rules and the profile; one for all shards.
    pub gate: Arc<Gate>,
    /// Who must not come back yet.
    pub bans: Bans,
}

impl Policy {
    /// Bans first, then the gate. A server without token rules, hooks and limits never answers
    /// [`Ask`](Decision::Ask).
    #[must_use]
    pub fn decide(&self, now: Instant, request: &Request) -> Decision {
        if self.bans.is_banned(now, request) {
            return Decision::Deny(Reason::Banned.into());
        }
        match self.gate.passage(request.kind, &request.key, request.remote, request.local) {
            Passage::Refused(reason) => Decision::Deny(reason),
            Passage::Asked => Decision::Ask,
            Passage::Free if self.gate.has_limits(request.kind) => Decision::Ask,
            Passage::Free => Decision::Allow,
        }
    }

    /// Why a session that passed the `old` gate may not stay behind the one of now; `None` when it may, and when the old
    /// one had refused it too, so that it was not that which let it in. The detail is the key of the setting that
    /// changed its mind.
    #[must_use]
    pub fn turned_away_since(&self, old: &Gate, request: &Request) -> Option<CloseReason> {
        let passage = |gate: &Gate| gate.passage(request.kind, &request.key, request.remote, request.local);
        match (passage(old), passage(&self.gate)) {
            (Passage::Free | Passage::Asked, Passage::Refused(CloseReason { detail, .. })) => {
                Some(CloseReason::with(Reason::ConfigChanged, detail))
            }
            _ => None,
        }
    }
}
