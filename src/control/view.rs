//! The read model: what control knows, in the form that answers need.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::load::Pressure;
use crate::admission::{Bans, Counts, Load};
use crate::control::Filter;
use crate::ledger;
use crate::names::{Kind, Protocol, SessionId, ShardId, StreamKey};
use crate::session::{CloseReason, Counters, Facts, State};
use crate::shard::mail::ShardLoad;
use crate::stdx::clock::WallAnchor;
use crate::stdx::histogram::Histogram;
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

/// What a collector's history is kept by: kind, stream, and remote as address and port.
pub type HistoryKey = (Kind, StreamKey, SocketAddr);

/// One collector: the sums of one protocol family.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    /// Sessions that were started and have finished.
    pub finished: Totals,
    /// The same by (`kind`, stream key, remote as `ip:port`).
    pub history: HashMap<HistoryKey, Totals>,
    /// What was folded out of `history` because it had too many keys.
    pub history_other: Totals,
    /// How many keys were folded.
    pub history_folded: u64,
    /// Closed sessions by reason, started or not.
    pub reasons: BTreeMap<(Kind, CloseReason), u64>,
    /// Attempts that never became a session, by reason.
    pub attempts: BTreeMap<CloseReason, u64>,
    /// Everything that sessions of a kind have moved since the server's start: running and closed, started or
    /// not. Never falls.
    pub moved: BTreeMap<Kind, Counters>,
    /// Sessions opened, those that earlier lives finished included.
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

impl StreamRow {
    /// What the publisher sends, in bits a second.
    fn bps(&self) -> u64 {
        self.sample.video_bps.saturating_add(self.sample.audio_bps)
    }

    fn egress_bps(&self) -> u64 {
        let players = u64::try_from(self.players.values().sum::<usize>()).unwrap_or(u64::MAX);
        players.saturating_mul(self.bps())
    }
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
    pub finished: VecDeque<SessionRow>,
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
    /// Who must not come back yet.
    pub bans: Bans,
    /// What was decided about those who asked, a moment ago.
    pub decisions: Counts,
    /// Which configuration is in force: 1 is that of the start, and each reload that takes effect makes the next.
    pub config_generation: u64,
    /// Reloads that were refused because something was wrong with the configuration.
    pub reloads_refused: u64,
    /// How hard pressed the server is.
    pub load: Load,
    /// What that comes from.
    pub pressure: Pressure,
    /// Histograms.
    pub times: Times,
    /// Sums over the streams, once somebody has asked for them.
    sums: RefCell<Option<Sums>>,
}

/// What players are sent, in bits a second, as of when it was first asked for.
#[derive(Default)]
struct Sums {
    server: u64,
    /// By vhost, then by app.
    apps: BTreeMap<Box<str>, BTreeMap<Box<str>, u64>>,
}

/// What was measured of sessions, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// From a player's first contact to its first media, in microseconds.
    pub first_media: Histogram<10>,
    /// From an order to end sessions to its completion on every shard, in microseconds.
    pub kick: Histogram<7>,
    /// Bytes that waited for a player, at each report of its shard in which its numbers changed.
    pub queue: Histogram<10>,
}

/// A shard that has not reported for so long is not healthy (`robustness.md` §10.3).
const REPORT_AGE_MAX: Duration = Duration::from_secs(2);

impl View {
    /// A view of `shards` shards that have not reported yet.
    #[must_use]
    pub fn new(wall: WallAnchor, started_at: Instant, shards: usize) -> Self {
        let collectors = Protocol::ALL.iter().map(|protocol| (protocol.collector(), Collector::default())).collect();
        Self {
            wall,
            started_at,
            sessions: BTreeMap::new(),
            finished: VecDeque::new(),
            streams: BTreeMap::new(),
            collectors,
            shards: vec![ShardRow { load: ShardLoad::default(), reported_at: None }; shards],
            draining: false,
            ready: false,
            publish_replaced: 0,
            bans: Bans::default(),
            decisions: Counts::default(),
            config_generation: 1,
            reloads_refused: 0,
            load: Load::default(),
            pressure: Pressure::default(),
            times: Times::default(),
            sums: RefCell::default(),
        }
    }

    /// Another configuration is in force: counts it, and tells its generation.
    pub fn reload_applied(&mut self) -> u64 {
        self.config_generation += 1;
        self.config_generation
    }

    /// Takes in what earlier lives of the server finished, of which `was` is in the sums already: they go on where they
    /// were. By whom is in the ledger's history, and here among the rest.
    pub fn carry_over(&mut self, was: &ledger::Earlier, is: &ledger::Earlier) {
        for (key, is) in &is.totals {
            let was = was.totals.get(key).copied().unwrap_or_default();
            // A collector of a protocol that this version does not have is nobody's.
            let collector = self.collectors.iter_mut().find(|(name, _)| **name == key.0);
            let Some((_, collector)) = collector else { continue };
            for sum in [&mut collector.finished, &mut collector.history_other] {
                sum.sessions = sum.sessions.saturating_add(is.sessions).saturating_sub(was.sessions);
                sum.rx_bytes = sum.rx_bytes.saturating_add(is.rx_bytes).saturating_sub(was.rx_bytes);
                sum.tx_bytes = sum.tx_bytes.saturating_add(is.tx_bytes).saturating_sub(was.tx_bytes);
            }
        }
        let grow = |sum: &mut u64, is: &u64, was: Option<&u64>| {
            *sum = sum.saturating_add(*is).saturating_sub(was.copied().unwrap_or(0));
        };
        for (name, collector) in &mut self.collectors {
            if let Some(ended) = is.ended.get(*name) {
                grow(&mut collector.opened, ended, was.ended.get(*name));
            }
        }
        for (key @ (name, kind, reason), count) in &is.reasons {
            if let Some(collector) = self.collectors.get_mut(name.as_str()) {
                grow(collector.reasons.entry((*kind, *reason)).or_default(), count, was.reasons.get(key));
            }
        }
        for (key @ (name, reason), count) in &is.attempts {
            if let Some(collector) = self.collectors.get_mut(name.as_str()) {
                grow(collector.attempts.entry(*reason).or_default(), count, was.attempts.get(key));
            }
        }
    }

    /// True while every shard has reported within two seconds (or the server is younger than that).
    #[must_use]
    pub fn healthy(&self, now: Instant) -> bool {
        self.shards.iter().all(|shard| {
            let heard_at = shard.reported_at.unwrap_or(self.started_at);
            now.saturating_duration_since(heard_at) <= REPORT_AGE_MAX
        })
    }

    /// Running sessions that meet `filter`, oldest first. The cost is that of one pass over the sessions, or
    /// over the filter's ids where it has some.
    #[must_use]
    pub fn select<'a>(&'a self, filter: &'a Filter) -> Box<dyn Iterator<Item = &'a SessionRow> + 'a> {
        self.select_after(filter, None)
    }

    /// The same, beginning behind a session: how a list goes on from its cursor.
    pub fn select_after<'a>(
        &'a self,
        filter: &'a Filter,
        after: Option<SessionId>,
    ) -> Box<dyn Iterator<Item = &'a SessionRow> + 'a> {
        if filter.ids.is_empty() {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let rows = self.sessions.range((from, Bound::Unbounded)).map(|(_, row)| row);
            return Box::new(rows.filter(|row| filter.matches_but_id(row)));
        }
        let ids: BTreeSet<_> = filter.ids.iter().copied().filter(|id| after.is_none_or(|after| *id > after)).collect();
        let rows = ids.into_iter().filter_map(|id| self.sessions.get(&id));
        Box::new(rows.filter(|row| filter.matches_but_id(row)))
    }

    /// A session by its id, running or among the last finished.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&SessionRow> {
        self.sessions.get(&id).or_else(|| self.finished.iter().rev().find(|row| row.facts.id == id))
    }

    /// What a stream's publisher sends, in bits a second.
    #[must_use]
    pub fn stream_bps(&self, key: &StreamKey) -> u64 {
        self.streams.get(key).map_or(0, StreamRow::bps)
    }

    /// What the players of a stream are sent, in bits a second: their number times what the stream brings, which is
    /// known as soon as they are here.
    #[must_use]
    pub fn egress_bps_of(&self, key: &StreamKey) -> u64 {
        self.streams.get(key).map_or(0, StreamRow::egress_bps)
    }

    /// The same of all streams of an app, by vhost and name, or of the whole server. Summed once for all who ask
    /// until [`forget_sums`](Self::forget_sums): ten thousand newcomers a second must not each cost a pass over the
    /// streams.
    #[must_use]
    pub fn egress_bps_over(&self, app: Option<(&str, &str)>) -> u64 {
        let mut sums = self.sums.borrow_mut();
        let sums = sums.get_or_insert_with(|| self.sum());
        match app {
            None => sums.server,
            Some((vhost, app)) => sums.apps.get(vhost).and_then(|apps| apps.get(app)).copied().unwrap_or(0),
        }
    }

    /// What is summed is summed anew for the next who asks.
    pub fn forget_sums(&mut self) {
        self.sums.get_mut().take();
    }

    fn sum(&self) -> Sums {
        let mut sums = Sums::default();
        for (key, row) in &self.streams {
            let bps = row.egress_bps();
            if bps > 0 {
                sums.server = sums.server.saturating_add(bps);
                let app = sums.apps.entry(key.vhost().into()).or_default().entry(key.app().into()).or_default();
                *app = app.saturating_add(bps);
            }
        }
        sums
    }

    /// Players of a stream over all shards, as of the last reports.
    #[must_use]
    pub fn players(&self, key: &StreamKey) -> usize {
        self.streams.get(key).map_or(0, |row| row.players.values().sum())
    }
}
