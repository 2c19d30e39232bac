//! The read model: what control knows, in the form that answers need.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::names::{SessionId, ShardId, StreamKey};
use crate::session::{CloseReason, Counters, Facts, State};
use crate::shard::mail::ShardLoad;
use crate::stdx::clock::WallAnchor;
use crate::stream::StreamSample;

/// One session, running or finished.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// What does not change.
    pub facts: Arc<Facts>,
    /// Where in its life.
    pub state: State,
    /// When it started, if it did.
    pub started_at: Option<Instant>,
    /// Its totals as of the last report; final once finished.
    pub counters: Counters,
    /// Bytes waiting for this player.
    pub queue_bytes: u64,
    /// Bits a second, received and sent, over the last 1, 10 and 30 seconds.
    pub rates: Rates,
    /// When and why it ended.
    pub closed: Option<(Instant, CloseReason)>,
}

/// Bits a second over three windows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Received, over 1, 10 and 30 s.
    pub rx_bps: [f64; 3],
    /// Sent, over 1, 10 and 30 s.
    pub tx_bps: [f64; 3],
}

/// Sums of one key of history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sessions finished.
    pub sessions: u64,
    /// Bytes received from them.
    pub rx_bytes: u64,
    /// Bytes sent to them.
    pub tx_bytes: u64,
}

/// One collector: the sums of one protocol family.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    /// Sessions that were started and have finished.
    pub finished: Totals,
    /// The same by (`kind`, stream key, remote as `ip:port`).
    pub history: HashMap<(crate::names::Kind, StreamKey, std::net::SocketAddr), Totals>,
    /// Finished sessions by reason.
    pub reasons: BTreeMap<(crate::names::Kind, CloseReason), u64>,
    /// Attempts that never became a session, by reason.
    pub attempts: BTreeMap<CloseReason, u64>,
    /// Sessions opened since the start.
    pub opened: u64,
}

/// One stream over all shards.
#[derive(Clone, Debug)]
pub struct StreamRow {
    /// Numbers of its home shard (or of the last shard that was).
    pub sample: StreamSample,
    /// Who publishes, where.
    pub publisher: Option<(SessionId, ShardId)>,
    /// Since when.
    pub online_at: Option<Instant>,
    /// Players on each shard that has any.
    pub players: BTreeMap<ShardId, usize>,
}

/// One shard.
#[derive(Clone, Debug)]
pub struct ShardRow {
    /// Its last report.
    pub load: ShardLoad,
    /// When that was.
    pub reported_at: Option<Instant>,
}

/// Everything.
pub struct View {
    /// Labels for instants.
    pub wall: WallAnchor,
    /// When the server started.
    pub started_at: Instant,
    /// Sessions not finished, by id (which is by time of opening).
    pub sessions: BTreeMap<SessionId, SessionRow>,
    /// The last finished sessions, newest last.
    pub finished: std::collections::VecDeque<SessionRow>,
    /// Streams that are published, played, or in their resume window.
    pub streams: BTreeMap<StreamKey, StreamRow>,
    /// Collectors by name; `rtmp` is the one that exists.
    pub collectors: BTreeMap<&'static str, Collector>,
    /// Shards by index.
    pub shards: Vec<ShardRow>,
    /// No new sessions.
    pub draining: bool,
    /// All listeners are armed.
    pub ready: bool,
    /// Publishers that took a stream over.
    pub publish_replaced: u64,
}
