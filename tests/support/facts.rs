//! The facts of a session that says no more than it must.

use std::sync::Arc;
use std::time::Instant;

use sluicegate::names::{ConnectionId, Kind, Protocol, SessionId, ShardId, StreamKey};
use sluicegate::session::Facts;

/// The `n`-th connection's, over RTMP on shard 0.
pub fn facts(n: u64, id: SessionId, kind: Kind, key: StreamKey, opened_at: Instant, opened_unix_ms: u64) -> Facts {
    Facts {
        id,
        connection: ConnectionId::new(ShardId(0), n),
        shard: ShardId(0),
        kind,
        protocol: Protocol::Rtmp,
        key,
        asked_key: None,
        remote: "192.0.2.7:4000".parse().unwrap(),
        local: "192.0.2.1:1935".parse().unwrap(),
        opened_at,
        opened_unix_ms,
        query: None,
        user_agent: None,
        referrer: None,
        tc_url: None,
        swf_url: None,
        user: None,
        labels: Arc::default(),
    }
}
