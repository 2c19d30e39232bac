//! Sessions to test with.

use std::net::SocketAddr;
use std::time::Instant;

use sluicegate::names::{ConnectionId, Kind, Name, Protocol, SessionId, ShardId, StreamKey};
use sluicegate::session::{Change, Facts, Table, What};

pub fn stream_key() -> StreamKey {
    let name = |text| Name::app(text).unwrap();
    StreamKey::new(&name("default"), &name("live"), &Name::stream("cam").unwrap())
}

/// A player with what a browser-less player usually says about itself; `count` makes its id.
pub fn facts(count: u64, now: Instant, key: &StreamKey) -> Facts {
    let mut random = [0; 10];
    for (to, from) in random.iter_mut().skip(2).zip(count.to_be_bytes()) {
        *to = from;
    }
    Facts {
        id: SessionId::new(1_795_155_521_000, random),
        connection: ConnectionId::new(ShardId(0), count),
        shard: ShardId(0),
        kind: Kind::Play,
        protocol: Protocol::Rtmp,
        key: key.clone(),
        asked_key: None,
        remote: SocketAddr::from(([192, 0, 2, 1], 40_000)),
        local: SocketAddr::from(([192, 0, 2, 2], 1935)),
        opened_at: now,
        opened_unix_ms: 1_795_155_521_000,
        query: None,
        user_agent: Some("LNX 9,0,124,2".into()),
        referrer: None,
        tc_url: Some("rtmp://media.example/live".into()),
        swf_url: None,
        user: None,
        labels: std::sync::Arc::default(),
    }
}

/// Everything that is reported and not yet read.
pub fn drain(table: &mut Table) -> Vec<Change> {
    std::iter::from_fn(|| table.poll_change()).collect()
}

/// The same, without the numbers.
pub fn drain_what(table: &mut Table) -> Vec<What> {
    drain(table).into_iter().map(|change| change.what).collect()
}
