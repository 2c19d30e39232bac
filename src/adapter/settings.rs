//! What sessions obey, whatever their protocol.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::stdx::units;

/// `[sessions]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Host names of `tcUrl` that are virtual hosts of their own. Any other host, and any address, is the `default`
    /// one: an edge has many names and one set of streams. `?vhost=` names a virtual host in any case.
    pub vhosts: Vec<String>,
    /// How long a player waits for a stream that nobody publishes. 0 = refused as soon as that is known.
    #[serde(with = "units::duration")]
    pub play_wait: Duration,
    /// How long a player of a stream that is published waits for its first keyframe.
    #[serde(with = "units::duration")]
    pub first_keyframe: Duration,
    /// Delivered media bytes after which a play session counts as started.
    #[serde(with = "units::bytes")]
    pub play_started_bytes: u64,
    /// A player to whom no byte could be written for so long is closed as `slow_consumer`.
    #[serde(with = "units::duration")]
    pub no_progress: Duration,
    /// How long a session that should move media may move none before it counts as stalling.
    #[serde(with = "units::duration")]
    pub stall_after: Duration,
    /// How far a publisher's timestamps may run ahead of the clock while somebody watches; beyond it its socket is
    /// not read. 0 = off.
    #[serde(with = "units::duration")]
    pub publish_lead_max: Duration,
    /// How often a running session reports itself in the event stream. 0 = never. Each report is an event that every
    /// consumer sees: 100,000 sessions at 30 s are 3,333 events a second.
    #[serde(with = "units::duration")]
    pub update_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            vhosts: Vec::new(),
            play_wait: Duration::from_secs(20),
            first_keyframe: Duration::from_secs(20),
            play_started_bytes: 1,
            no_progress: Duration::from_secs(10),
            stall_after: Duration::from_secs(2),
            publish_lead_max: Duration::from_secs(3),
            update_every: Duration::from_secs(30),
        }
    }
}
