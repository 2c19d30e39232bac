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
        Self::profile(&self.settings, request)
    }

    /// Why a session that was let in under the `old` settings may not stay under those of now; `None` when it may, and
    /// when the old ones had refused it too, so that it was not they who let it in. The detail is the key of the
    /// setting that changed its mind.
    #[must_use]
    pub fn turned_away_since(&self, old: &Settings, request: &Request) -> Option<CloseReason> {
        match (Self::profile(old, request), Self::profile(&self.settings, request)) {
            (Decision::Allow, Decision::Deny(CloseReason { detail, .. })) => {
                Some(CloseReason::with(Reason::ConfigChanged, detail))
            }
            _ => None,
        }
    }

    /// What the static profile says.
    fn profile(settings: &Settings, request: &Request) -> Decision {
        let (access, setting) = match request.kind {
            Kind::Publish => (settings.publish, "admission.publish"),
            Kind::Play => (settings.play, "admission.play"),
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
