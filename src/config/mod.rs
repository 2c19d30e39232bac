//! Loads and checks the configuration; each room owns its own settings.

use serde::{Deserialize, Serialize};

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
    /// The read model.
    pub control: crate::control::Settings,
    /// The HTTP API.
    pub api: crate::api::Settings,
}
