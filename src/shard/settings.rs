//! What shards obey.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::admission::sources::Limits;
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
    /// The same for a shard that could not write each frame by itself even with all of its core: the bound grows with what it
    /// would lack, and is this for one that would need two cores. It saves a third of the CPU there, and players see frames
    /// that much later. No more than `latency_max` keeps that whatever the load.
    #[serde(with = "units::duration")]
    pub latency_max_busy: Duration,
    /// How strongly load turns into waiting. The wait before a round of writes is `latency_max` × this × the share of
    /// the core that writing each frame by itself would take, at most that. 0 writes every frame at once.
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
    /// Connections of all sources that have not been admitted, in percent of `connections_max`. Beyond it a newcomer
    /// takes the place of the one that has been a stranger for longest.
    pub unauthenticated_percent: u32,
    /// Connections that one source may open in a second; twice as many at once. Beyond it they are closed. 0 = off.
    pub accept_rate_per_ip: u32,
    /// Connections that one shard accepts in a second; a tenth of it at once. What is beyond waits in the kernel's
    /// backlog. 0 = off.
    pub accept_rate: u32,
    /// Refusals of one source in a minute (twice as many at once) beyond which it is refused for a minute without
    /// anybody being asked. 0 = off.
    pub auth_failures_per_ip: u32,
    /// Sources known at once, about 50 bytes each. The one not seen for longest is forgotten first.
    pub source_table: usize,
    /// Memory that the process may use before it sheds load; 0 = the limit of its control group, or 80% of the
    /// machine's if that is less.
    #[serde(with = "units::bytes")]
    pub memory_max: u64,
    /// How late a shard may be for its work, 99 times of 100, before the server sheds load: here it is red, at a quarter
    /// orange, at a tenth yellow. 0 = lateness is no load.
    #[serde(with = "units::duration")]
    pub loop_lag_max: Duration,
    /// Entries of each of a shard's rings. Ring memory is locked; `sluicegate check` prints the sum.
    pub ring_depth: usize,
    /// Over how long a drain spreads its goodbyes.
    #[serde(with = "units::duration")]
    pub drain_timeout: Duration,
}

impl Settings {
    /// What each source may do, where all shards together may hold `connections`.
    #[must_use]
    pub fn source_limits(&self, connections: usize) -> Limits {
        let share = connections as u128 * u128::from(self.unauthenticated_percent) / 100;
        Limits {
            connections_per_ip: self.connections_per_ip,
            unauthenticated_per_ip: self.unauthenticated_per_ip,
            accept_rate_per_ip: self.accept_rate_per_ip,
            auth_failures_per_ip: self.auth_failures_per_ip,
            table: self.source_table,
            unauthenticated: usize::try_from(share).unwrap_or(usize::MAX).max(1),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            count: 0,
            rtmp_listen: vec![SocketAddr::from(([0, 0, 0, 0], 1935))],
            backlog: 4_096,
            latency_max: Duration::from_millis(40),
            latency_max_busy: Duration::from_millis(80),
            merge_factor: 6,
            report_every: Duration::from_millis(250),
            connections_max: 0,
            connections_per_ip: 0,
            unauthenticated_per_ip: 64,
            unauthenticated_percent: 20,
            accept_rate_per_ip: 200,
            accept_rate: 10_000,
            auth_failures_per_ip: 10,
            source_table: 1_000_000,
            memory_max: 0,
            loop_lag_max: Duration::from_millis(200),
            ring_depth: 512,
            drain_timeout: Duration::from_secs(30),
        }
    }
}
