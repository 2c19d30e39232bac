//! What shards obey.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::stdx::units;

/// `[shard]`: cores, sockets and the pump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many shards; 0 means one for each core that the process may run on.
    pub count: usize,
    /// Where RTMP listens.
    pub rtmp_listen: Vec<SocketAddr>,
    /// Pending connections the kernel holds for each listener.
    pub backlog: u32,
    /// The most time that bytes due for a player may wait for others to go out with them. A longer time saves
    /// system calls under load (their number falls in proportion); an idle shard does not wait at all.
    #[serde(with = "units::duration")]
    pub latency_max: Duration,
    /// How strongly load turns into waiting. The wait before a round of writes is `latency_max` × this × the share of
    /// the core that writing each frame by itself would take, at most `latency_max`. 0 writes every frame at once.
    pub merge_factor: u32,
    /// How often a shard reports its numbers to control.
    #[serde(with = "units::duration")]
    pub report_every: Duration,
    /// Connections of all shards together; 0 = 80% of the descriptor limit.
    pub connections_max: usize,
    /// Connections from one source (an IPv4 address or an IPv6 /64); 0 = off.
    pub connections_per_ip: usize,
    /// Of those, connections that have not been admitted to publish or play.
    pub unauthenticated_per_ip: usize,
    /// Entries of each of a shard's rings. Ring memory is locked; `sluicegate check` prints the sum.
    pub ring_depth: usize,
    /// Over how long a drain spreads its goodbyes.
    #[serde(with = "units::duration")]
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            count: 0,
            rtmp_listen: vec![SocketAddr::from(([0, 0, 0, 0], 1935))],
            backlog: 4_096,
            latency_max: Duration::from_millis(40),
            merge_factor: 6,
            report_every: Duration::from_millis(250),
            connections_max: 0,
            connections_per_ip: 0,
            unauthenticated_per_ip: 64,
            ring_depth: 512,
            drain_timeout: Duration::from_secs(30),
        }
    }
}
