//! What a shard can decide by itself, at once.

use std::time::Instant;

use crate::admission::{Access, Bans, Decision, Request, Settings};
use crate::names::Kind;
use crate::session::{CloseReason, Reason};

/// The local rules of a shard: bans and the static profile. (Publishing has a second question, who owns
/// the stream, which only control can answer.)
pub struct Policy {
    /// The rules.
    pub settings: Settings,
    /// Who must not come back yet.
    pub bans: Bans,
}

impl Policy {
    /// Bans first, then the profile. The detail of a refusal is the key of the setting that made it.
    #[must_use]
    pub fn decide(&self, now: Instant, request: &Request) -> Decision {
        if self.bans.is_banned(now, request) {
            return Decision::Deny(Reason::Banned.into());
        }
        let (access, setting) = match request.kind {
            Kind::Publish => (self.settings.publish, "admission.publish"),
            Kind::Play => (self.settings.play, "admission.play"),
            // We went to the peer: whoever configured that has already decided.
            Kind::Ingest | Kind::Push => return Decision::Allow,
        };
        match access {
            Access::Open => Decision::Allow,
            // A dual-stack listener sees 127.0.0.1 as ::ffff:127.0.0.1.
            Access::Loopback if request.remote.ip().to_canonical().is_loopback() => Decision::Allow,
            Access::Loopback => Decision::Deny(CloseReason::with(Reason::IpDenied, setting)),
            Access::Deny => Decision::Deny(CloseReason::with(Reason::AuthDenied, setting)),
        }
    }
}
