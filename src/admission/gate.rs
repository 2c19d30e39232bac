//! What every shard knows by itself, compiled once and shared.

use std::fmt;
use std::net::SocketAddr;

use crate::admission::address::AddressRules;
use crate::admission::pattern::is_among;
use crate::admission::settings::Effect;
use crate::admission::{Access, AppPattern, HookRule, Settings};
use crate::names::{Kind, StreamKey};
use crate::session::{CloseReason, Reason};

/// The address rules, the profile, and which questions are beyond a shard.
pub struct Gate {
    publish: Access,
    play: Access,
    rules: AddressRules,
    /// Apps and kinds for which a token rule or a hook holds.
    asked: Vec<(Vec<AppPattern>, Vec<Kind>)>,
    limits_publish: bool,
    limits_play: bool,
}

/// What the gate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// They may not.
    Refused(CloseReason),
    /// They may, within the limits; no token or hook is asked.
    Free,
    /// Token rules or a hook hold here, and they decide.
    Asked,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(&Settings::default(), &[])
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("publish", &self.publish).field("play", &self.play).finish_non_exhaustive()
    }
}

impl Gate {
    /// Compiles what the settings say. `hooks` are those of [`crate::admission::Desk::new`].
    #[must_use]
    pub fn new(settings: &Settings, hooks: &[HookRule]) -> Self {
        let keys = settings.keys.iter().map(|rule| (rule.apps.clone(), rule.kinds.clone()));
        let signed = settings.signed.iter().map(|rule| (rule.apps.clone(), rule.kinds.clone()));
        let jwt = settings.jwt.iter().map(|rule| (rule.apps.clone(), rule.kinds.clone()));
        let hooks = hooks.iter().map(|rule| (rule.apps.clone(), rule.kinds.clone()));
        let limits = &settings.limits;
        let sessions = [
            limits.sessions_per_user,
            limits.sessions_per_token,
            limits.sessions_per_address,
            limits.sessions_per_stream,
            limits.sessions_per_app,
            limits.sessions_per_server,
        ];
        let egress = [limits.egress_bps_per_stream, limits.egress_bps_per_app, limits.egress_bps_per_server];
        let both = sessions.iter().any(|limit| *limit > 0) || !limits.duration_max.is_zero();
        Self {
            publish: settings.publish,
            play: settings.play,
            rules: AddressRules::new(&settings.rules),
            asked: keys.chain(signed).chain(jwt).chain(hooks).collect(),
            limits_publish: both || limits.publish_bps_max > 0,
            limits_play: both || egress.iter().any(|limit| *limit > 0),
        }
    }

    /// Address rules first, then whether somebody else decides, then the profile. The detail of a refusal is the key
    /// of the setting that made it.
    #[must_use]
    pub fn passage(&self, kind: Kind, key: &StreamKey, remote: SocketAddr, local: SocketAddr) -> Passage {
        let (access, setting) = match kind {
            Kind::Publish => (self.publish, "admission.publish"),
            Kind::Play => (self.play, "admission.play"),
            // We went to the peer: whoever configured that has already decided.
            Kind::Ingest | Kind::Push => return Passage::Free,
        };
        let effect = self.rules.effect(kind, key, remote.ip(), local);
        match effect {
            Some(Effect::Deny) => {
                return Passage::Refused(CloseReason::with(Reason::IpDenied, "admission.rules"));
            }
            Some(Effect::Trust) => return Passage::Free,
            Some(Effect::Allow) | None => {}
        }
        if self.asked.iter().any(|(apps, kinds)| is_kind(kinds, kind) && is_among(apps, key)) {
            return Passage::Asked;
        }
        match access {
            _ if effect == Some(Effect::Allow) => Passage::Free,
            Access::Open => Passage::Free,
            // A dual-stack listener sees 127.0.0.1 as ::ffff:127.0.0.1.
            Access::Loopback if remote.ip().to_canonical().is_loopback() => Passage::Free,
            Access::Loopback => Passage::Refused(CloseReason::with(Reason::IpDenied, setting)),
            Access::Deny => Passage::Refused(CloseReason::with(Reason::AuthDenied, setting)),
        }
    }

    /// True when limits hold for sessions of this kind, which only the desk can count.
    #[must_use]
    pub fn has_limits(&self, kind: Kind) -> bool {
        match kind {
            Kind::Publish => self.limits_publish,
            Kind::Play => self.limits_play,
            Kind::Ingest | Kind::Push => false,
        }
    }
}

/// True when `kind` is among the kinds of a rule, of which none means publish and play.
#[must_use]
pub fn is_kind(kinds: &[Kind], kind: Kind) -> bool {
    if kinds.is_empty() { matches!(kind, Kind::Publish | Kind::Play) } else { kinds.contains(&kind) }
}
