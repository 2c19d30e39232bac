//! Loads and checks the configuration; each room owns its own settings.
//!
//! [`load()`] reads a file (or takes the development profile), substitutes the environment, finds unknown keys and
//! wrong values with their places, and [`check`]s ranges and contradictions. Nothing here looks at the machine;
//! that is `sluicegate check`.

pub mod check;
pub mod load;
pub mod log;
pub mod problem;
pub mod reload;

pub use load::{Loaded, Origin, Overrides, load};
pub use log::Settings as LogSettings;
pub use problem::{Position, Problem, Refused, Severity};

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::admission::gate::is_kind;
use crate::admission::settings::{Access, AddressRule, Effect};
use crate::names::Kind;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Cores, sockets, the pump.
    pub shard: crate::shard::Settings,
    /// The RTMP engine.
    pub rtmp: crate::proto::rtmp::Settings,
    /// Caches and queues.
    pub stream: crate::stream::Settings,
    /// What sessions obey, whatever their protocol.
    pub sessions: crate::adapter::Settings,
    /// Who may.
    pub admission: crate::admission::Settings,
    /// The calls that we make: to ask, and to tell.
    pub hook: crate::hook::Settings,
    /// The durable record.
    pub ledger: crate::ledger::Settings,
    /// The read model.
    pub control: crate::control::Settings,
    /// The HTTP API.
    pub api: crate::api::Settings,
    /// What is written about it all.
    pub log: LogSettings,
}

impl Config {
    /// What no configuration file means: everything on loopback, and anyone there may publish and play.
    #[must_use]
    pub fn development() -> Self {
        let mut config = Self::default();
        config.shard.rtmp_listen = vec![SocketAddr::from(([127, 0, 0, 1], 1935))];
        config.admission.publish = Access::Open;
        config.admission.play = Access::Open;
        config
    }

    /// True when a rule or a hook decides about sessions of this kind on some app, whatever the profile says of the
    /// rest.
    #[must_use]
    pub fn is_decided(&self, kind: Kind) -> bool {
        let admission = &self.admission;
        let opens = |rule: &AddressRule| rule.effect != Effect::Deny && is_kind(&rule.kinds, kind);
        admission.rules.iter().any(opens)
            || admission.keys.iter().any(|rule| is_kind(&rule.kinds, kind))
            || admission.signed.iter().any(|rule| is_kind(&rule.kinds, kind))
            || admission.jwt.iter().any(|rule| is_kind(&rule.kinds, kind))
            || self.hook.ask.iter().any(|hook| is_kind(&hook.kinds, kind))
    }

    /// True when at least one RTMP listener can be reached from other machines.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.shard.rtmp_listen.iter().any(|at| !at.ip().is_loopback())
    }
}
