//! Our sessions in Core's terms.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::api::settings::Datarhei;
use crate::control::View;
use crate::control::view::{SessionRow, Totals};
use crate::names::{Kind, Role, StreamKey};
use crate::session::State;

/// What was asked for, copied out of the model.
pub struct Collected {
    now: Instant,
    active: BTreeMap<&'static str, Vec<SessionRow>>,
    finished: BTreeMap<&'static str, Finished>,
}

/// A collector's history.
#[derive(Default)]
pub struct Finished {
    /// By kind, stream and peer.
    pub history: Vec<(Kind, StreamKey, SocketAddr, Totals)>,
    /// What is no longer kept apart.
    pub folded: Totals,
}

/// A session as Core shows it.
pub struct Session {
    /// Unique within its collector: the path of a publisher, the address of a player.
    pub id: String,
    /// The channel.
    pub reference: String,
    /// Unix seconds of first contact.
    pub created_at: u64,
    /// `publish:<path>` or `play:<path>`.
    pub local: String,
    /// `ip:port`.
    pub remote: String,
    /// Received.
    pub bytes_rx: u64,
    /// Sent.
    pub bytes_tx: u64,
    /// Bits a second received.
    pub rx_bps: f64,
    /// Bits a second sent.
    pub tx_bps: f64,
}

impl Collected {
    /// The collectors of `names`; those that do not exist collect nothing.
    #[must_use]
    pub fn new(view: &View, settings: &Datarhei, names: &BTreeSet<Vec<u8>>, with_history: bool) -> Self {
        let wanted = |name: &str| names.contains(name.as_bytes());
        let seen = |remote: SocketAddr| !is_ignored(settings, remote.ip());
        let mut active: BTreeMap<&'static str, Vec<SessionRow>> = BTreeMap::new();
        if view.collectors.keys().any(|name| wanted(name)) {
            for row in view.sessions.values() {
                let name = row.facts.protocol.collector();
                // Core calls pending what has not begun, and shows nothing of it.
                let begun = matches!(row.state, State::Running | State::Stalling);
                if begun && wanted(name) && seen(row.facts.remote) {
                    active.entry(name).or_default().push(row.clone());
                }
            }
        }
        let mut finished = BTreeMap::new();
        if with_history {
            for (name, collector) in view.collectors.iter().filter(|(name, _)| wanted(name)) {
                let history = collector.history.iter().filter(|((_, _, remote), _)| seen(*remote));
                let history = history.map(|((kind, key, remote), totals)| (*kind, key.clone(), *remote, *totals));
                finished.insert(*name, Finished { history: history.collect(), folded: collector.history_other });
            }
        }
        Self { now: Instant::now(), active, finished }
    }

    /// How much there is to render.
    #[must_use]
    pub fn len(&self) -> usize {
        self.active.values().map(Vec::len).sum::<usize>()
            + self.finished.values().map(|finished| finished.history.len()).sum::<usize>()
    }

    /// True without anything to render.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The running sessions of a collector, oldest first.
    #[must_use]
    pub fn sessions(&self, name: &str, settings: &Datarhei) -> Vec<Session> {
        let mut rows: Vec<&SessionRow> = self.active.get(name).into_iter().flatten().collect();
        rows.sort_by_key(|row| row.facts.opened_at);
        rows.into_iter().map(|row| Session::new(row, settings, self.now)).collect()
    }

    /// What has ended in a collector.
    #[must_use]
    pub fn finished(&self, name: &str) -> Option<&Finished> {
        self.finished.get(name)
    }
}

impl Session {
    fn new(row: &SessionRow, settings: &Datarhei, now: Instant) -> Self {
        let facts = &row.facts;
        let remote = address(facts.remote);
        // Core averages over completed seconds, of which there is none in the first.
        let has_rate = now.saturating_duration_since(facts.opened_at) >= Duration::from_secs(1);
        let rate = |windows: [f64; 3]| if has_rate { windows[1] } else { 0.0 };
        Self {
            id: match facts.kind.role() {
                Role::Source => path(&facts.key),
                Role::Sink => remote.clone(),
            },
            reference: reference(&facts.key, settings),
            created_at: facts.opened_unix_ms / 1_000,
            local: location(facts.kind, &facts.key),
            remote,
            bytes_rx: row.counters.rx_bytes,
            bytes_tx: row.counters.tx_bytes,
            rx_bps: rate(row.rates.rx_bps),
            tx_bps: rate(row.rates.tx_bps),
        }
    }
}

/// A stream's path. Core has one namespace: the virtual host is not part of it.
fn path(key: &StreamKey) -> String {
    format!("/{}/{}", key.app(), key.stream())
}

/// What is consumed or fed here.
#[must_use]
pub fn location(kind: Kind, key: &StreamKey) -> String {
    let word = match kind.role() {
        Role::Source => "publish",
        Role::Sink => "play",
    };
    format!("{word}:{}", path(key))
}

/// The path without its extension and without the configured app in front. With the app `/`, its default, the
/// prefix would be `//`, which no path has, so the slash stays.
#[must_use]
pub fn reference(key: &StreamKey, settings: &Datarhei) -> String {
    let path = path(key);
    let name_at = path.rfind('/').map_or(0, |slash| slash + 1);
    let end = path.get(name_at..).and_then(|name| name.rfind('.')).map_or(path.len(), |dot| name_at + dot);
    let stem = path.get(..end).unwrap_or(&path);
    let stem = stem.strip_prefix(&format!("{}/", settings.rtmp_app)).unwrap_or(stem);
    stem.to_owned()
}

/// A peer as `ip:port`, as Go writes it: IPv4 in IPv6 as IPv4.
#[must_use]
pub fn address(remote: SocketAddr) -> String {
    SocketAddr::new(remote.ip().to_canonical(), remote.port()).to_string()
}

fn is_ignored(settings: &Datarhei, address: IpAddr) -> bool {
    let address = address.to_canonical();
    settings.ip_ignorelist.iter().any(|block| block.contains(&address))
}
