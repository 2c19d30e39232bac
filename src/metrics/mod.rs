//! The same view, rendered for scraping.
//!
//! The names are those of `robustness.md` §10.4 that apply now. Labels come from closed sets only: protocols,
//! roles, reasons, directions, causes, pools and the shards' numbers. No label ever bears a name that a peer
//! gave, so a peer can neither grow the number of series nor write into the page.

mod decisions;
mod dependencies;
pub mod process;
pub mod text;

pub use process::Process;
pub use text::CONTENT_TYPE;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::admission::LoadState;
use crate::control::Dependencies;
use crate::control::view::{ShardRow, View};
use crate::metrics::text::{Page, Type};
use crate::names::{Kind, Protocol};
use crate::proto::rtmp::Glitch;
use crate::session::{Reason, State};
use crate::stdx::histogram::Histogram;

/// What the page says that the view does not hold.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// What the kernel says about the process.
    pub process: Process,
    /// Events recorded.
    pub events: u64,
    /// The API can be reached from other machines and is not encrypted.
    pub api_plaintext: bool,
    /// How those are on whom control depends.
    pub dependencies: Dependencies,
}

/// Renders a view as of `now`. One pass over the running sessions, the rest is constant work.
#[must_use]
pub fn render(view: &View, beside: &Beside, now: Instant) -> String {
    let mut page = Page::default();
    server(&mut page, view, beside, now);
    sessions(&mut page, view);
    streams(&mut page, view);
    shards(&mut page, view, now);
    decisions::render(&mut page, &view.decisions);
    dependencies::render(&mut page, &beside.dependencies);
    page.finish()
}

fn server(page: &mut Page, view: &View, beside: &Beside, now: Instant) {
    let process = &beside.process;
    page.family("sluicegate_build_info", Type::Gauge, "The version that runs; always 1.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family("sluicegate_uptime_seconds", Type::Gauge, "Time since the server's start.");
    page.sample(&[], now.saturating_duration_since(view.started_at).as_secs_f64());
    page.family(
        "sluicegate_ready",
        Type::Gauge,
        "1 while all listeners are armed, no drain runs and the load is not red.",
    );
    page.sample(&[], u8::from(view.ready && !view.draining && view.load.state < LoadState::Red));
    page.family("sluicegate_draining", Type::Gauge, "1 while the server ends its sessions and takes no new ones.");
    page.sample(&[], u8::from(view.draining));
    page.family(
        "sluicegate_config_generation",
        Type::Gauge,
        "Which configuration is in force: 1 is that of the start, each reload that takes effect makes the next.",
    );
    page.sample(&[], view.config_generation);
    page.family("sluicegate_config_reloads_total", Type::Counter, "Reloads, by what came of them.");
    page.sample(&[("result", "applied")], view.config_generation.saturating_sub(1));
    page.sample(&[("result", "refused")], view.reloads_refused);
    page.family(
        "sluicegate_load_state",
        Type::Gauge,
        "How hard pressed the server is: 0 green, 1 yellow, 2 orange, 3 red.",
    );
    page.sample(&[], view.load.state.level());
    page.family("sluicegate_load_pressure", Type::Gauge, "The worst of memory, descriptors and lateness, as a share.");
    page.sample(&[], f64::from(view.pressure.0) / 1_000.0);
    page.family("sluicegate_events_total", Type::Counter, "Events recorded on the bus.");
    page.sample(&[], beside.events);
    page.family(
        "sluicegate_api_plaintext",
        Type::Gauge,
        "1 if the API can be reached from other machines and is not encrypted.",
    );
    page.sample(&[], u8::from(beside.api_plaintext));
    page.family("sluicegate_memory_bytes", Type::Gauge, "Memory in use: resident, and packaged media held by shards.");
    if let Some(bytes) = process.resident_bytes {
        page.sample(&[("pool", "resident")], bytes);
    }
    page.sample(&[("pool", "media")], view.shards.iter().map(|shard| shard.load.log_bytes).sum::<u64>());
    if let Some(fds) = process.fds {
        page.family("sluicegate_fds", Type::Gauge, "Open descriptors.");
        page.sample(&[], fds);
    }
    if let Some(max) = process.fds_max {
        page.family("sluicegate_fds_max", Type::Gauge, "The most descriptors the process may open.");
        page.sample(&[], max);
    }
}

fn sessions(page: &mut Page, view: &View) {
    let mut open: BTreeMap<(Protocol, Kind), u64> = BTreeMap::new();
    let mut viewers: BTreeMap<Protocol, u64> = Protocol::ALL.iter().map(|protocol| (*protocol, 0)).collect();
    let mut queued = 0u64;
    for row in view.sessions.values() {
        let facts = &row.facts;
        *open.entry((facts.protocol, facts.kind)).or_default() += 1;
        if facts.kind == Kind::Play && matches!(row.state, State::Running | State::Stalling) {
            *viewers.entry(facts.protocol).or_default() += 1;
        }
        queued = queued.saturating_add(row.queue_bytes);
    }
    let every: Vec<(Protocol, Kind)> = Protocol::ALL
        .into_iter()
        .flat_map(|protocol| Kind::ALL.into_iter().map(move |kind| (protocol, kind)))
        .collect();
    let collector = |protocol: Protocol| view.collectors.get(protocol.collector());

    page.family("sluicegate_sessions", Type::Gauge, "Sessions not closed.");
    for &(protocol, kind) in &every {
        let count = open.get(&(protocol, kind)).copied().unwrap_or_default();
        page.sample(&[("proto", protocol.as_str()), ("role", kind.as_str())], count);
    }
    page.family("sluicegate_viewers", Type::Gauge, "Players that receive media.");
    for (protocol, count) in viewers {
        page.sample(&[("proto", protocol.as_str())], count);
    }
    page.family("sluicegate_viewers_queue_bytes", Type::Gauge, "Bytes waiting for all players together.");
    page.sample(&[], queued);
    page.family(
        "sluicegate_viewer_queue_bytes",
        Type::Histogram,
        "Bytes waiting for one player, counted whenever its shard reports it.",
    );
    page.histogram(&[], &view.times.queue, whole);
    page.family(
        "sluicegate_time_to_first_media_seconds",
        Type::Histogram,
        "From a player's first contact to its first media.",
    );
    page.histogram(&[], &view.times.first_media, seconds);
    page.family(
        "sluicegate_kick_seconds",
        Type::Histogram,
        "From an order to end sessions to its completion on every shard.",
    );
    page.histogram(&[], &view.times.kick, seconds);

    page.family("sluicegate_session_opens_total", Type::Counter, "Sessions opened.");
    for protocol in Protocol::ALL {
        let opened = collector(protocol).map_or(0, |collector| collector.opened);
        page.sample(&[("proto", protocol.as_str())], opened);
    }

    // Details are fixed texts, but many; by reason is enough here.
    page.family("sluicegate_session_closes_total", Type::Counter, "Sessions closed.");
    for protocol in Protocol::ALL {
        let mut closes: BTreeMap<(Kind, &str), u64> = BTreeMap::new();
        for ((kind, reason), count) in collector(protocol).into_iter().flat_map(|collector| &collector.reasons) {
            *closes.entry((*kind, reason.reason.as_str())).or_default() += count;
        }
        for ((kind, reason), count) in closes {
            page.sample(&[("proto", protocol.as_str()), ("role", kind.as_str()), ("reason", reason)], count);
        }
    }
    page.family("sluicegate_attempts_total", Type::Counter, "Connections that ended before they became a session.");
    for protocol in Protocol::ALL {
        let mut attempts: BTreeMap<&str, u64> = BTreeMap::new();
        for (reason, count) in collector(protocol).into_iter().flat_map(|collector| &collector.attempts) {
            *attempts.entry(reason.reason.as_str()).or_default() += count;
        }
        for (reason, count) in attempts {
            page.sample(&[("proto", protocol.as_str()), ("reason", reason)], count);
        }
    }

    limit_hits(page, view);

    let moved = |protocol: Protocol, kind: Kind| {
        collector(protocol).and_then(|collector| collector.moved.get(&kind)).copied().unwrap_or_default()
    };
    page.family("sluicegate_bytes_total", Type::Counter, "Bytes of sessions on the wire, handshakes included.");
    for &(protocol, kind) in &every {
        let counters = moved(protocol, kind);
        let labels = [("proto", protocol.as_str()), ("role", kind.as_str())];
        page.sample(&[labels[0], labels[1], ("dir", "rx")], counters.rx_bytes);
        page.sample(&[labels[0], labels[1], ("dir", "tx")], counters.tx_bytes);
    }
    page.family("sluicegate_media_bytes_total", Type::Counter, "Of the bytes of sessions, those of media.");
    for &(protocol, kind) in &every {
        let counters = moved(protocol, kind);
        let labels = [("proto", protocol.as_str()), ("role", kind.as_str())];
        page.sample(&[labels[0], labels[1], ("dir", "rx")], counters.rx_media_bytes);
        page.sample(&[labels[0], labels[1], ("dir", "tx")], counters.tx_media_bytes);
    }
}

/// What ended sessions and attempts because a limit was hit, by the limit: its key, which is the reason's detail and
/// so a text of ours. The same ends are counted by reason above.
fn limit_hits(page: &mut Page, view: &View) {
    let ends = view.collectors.values().flat_map(|collector| {
        let closes = collector.reasons.iter().map(|((_, reason), count)| (reason, count));
        closes.chain(&collector.attempts)
    });
    let mut hits: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, count) in ends {
        let is_limit = match reason.reason {
            Reason::LimitExceeded | Reason::ConcurrencyLimit => true,
            Reason::Overload => matches!(reason.detail, "connections" | "unauthenticated"),
            _ => false,
        };
        if is_limit {
            *hits.entry(reason.detail).or_default() += count;
        }
    }
    // Nobody is refused by this one: peers wait in the kernel's backlog.
    let waits = view.shards.iter().map(|shard| shard.load.accept_rate_hits).sum::<u64>();
    if waits > 0 {
        hits.insert("accept_rate", waits);
    }
    page.family(
        "sluicegate_limit_hits_total",
        Type::Counter,
        "Sessions and attempts ended by a limit, and times that accept_rate let peers wait.",
    );
    for (limit, count) in hits {
        page.sample(&[("limit", limit)], count);
    }
}

fn streams(page: &mut Page, view: &View) {
    page.family("sluicegate_streams", Type::Gauge, "Streams with a publisher.");
    page.sample(&[], view.streams.values().filter(|row| row.publisher.is_some()).count());
    page.family("sluicegate_publish_replaced_total", Type::Counter, "Publishers that took a stream over.");
    page.sample(&[], view.publish_replaced);
    page.family("sluicegate_frames_dropped_total", Type::Counter, "Frames dropped, by what they were dropped for.");
    let sum = |of: fn(&ShardRow) -> u64| view.shards.iter().map(of).sum::<u64>();
    page.sample(&[("cause", "slow_player")], sum(|shard| shard.load.dropped_frames));
    page.sample(&[("cause", "relay_full")], sum(|shard| shard.load.relay_dropped));
}

fn shards(page: &mut Page, view: &View, now: Instant) {
    page.family("sluicegate_glitches_total", Type::Counter, "Legal but suspicious things seen on connections.");
    for (place, rule) in Glitch::ALL.into_iter().enumerate() {
        let count = |shard: &ShardRow| shard.load.glitches.iter().nth(place).map_or(0, |(_, count)| count);
        page.sample(&[("rule", rule.as_str())], view.shards.iter().map(count).sum::<u64>());
    }
    let mut fanout = Histogram::default();
    for shard in &view.shards {
        fanout.add(&shard.load.fanout);
    }
    page.family(
        "sluicegate_fanout_seconds",
        Type::Histogram,
        "From the arrival of a frame to its last player's socket on the shard, once for each stream and round.",
    );
    page.histogram(&[], &fanout, seconds);
    page.family(
        "sluicegate_session_types_disabled",
        Type::Gauge,
        "Protocols in a role that are refused because two of their sessions met a defect of ours within a second.",
    );
    page.sample(&[], view.shards.iter().map(|shard| shard.load.types_disabled).max().unwrap_or_default());

    // Every shard holds every ban.
    page.family("sluicegate_bans", Type::Gauge, "Bans in force.");
    page.sample(&[], view.shards.iter().map(|shard| shard.load.bans).max().unwrap_or_default());

    let mut family = |name: &str, kind: Type, help: &str, value: &dyn Fn(&ShardRow) -> Value| {
        page.family(name, kind, help);
        for (worker, shard) in view.shards.iter().enumerate() {
            page.sample(&[("worker", &worker.to_string())], value(shard));
        }
    };
    family("sluicegate_ban_hits_total", Type::Counter, "Requests refused by a ban.", &|shard| {
        Count(shard.load.ban_hits)
    });
    family("sluicegate_internal_errors_total", Type::Counter, "Defects of ours; each closed one session.", &|shard| {
        Count(shard.load.internal_errors)
    });
    family(
        "sluicegate_loop_lag_seconds",
        Type::Gauge,
        "How late a shard was for its tick, at worst, lately.",
        &|shard| Seconds(shard.load.loop_lag_max),
    );
    family(
        "sluicegate_loop_lag_p99_seconds",
        Type::Gauge,
        "How late a shard was at most for 99 of 100 ticks of the last ten seconds.",
        &|shard| Seconds(shard.load.loop_lag_p99),
    );
    family("sluicegate_report_age_seconds", Type::Gauge, "Time since a shard was last heard of.", &|shard| {
        Seconds(now.saturating_duration_since(shard.reported_at.unwrap_or(view.started_at)))
    });
    family("sluicegate_cpu_seconds_total", Type::Counter, "CPU time of a shard's thread.", &|shard| {
        Seconds(shard.load.cpu)
    });
    family("sluicegate_connections", Type::Gauge, "Connections open.", &|shard| count(shard.load.connections));
    family("sluicegate_connections_unauthenticated", Type::Gauge, "Of those, not yet admitted.", &|shard| {
        count(shard.load.unauthenticated)
    });
    family("sluicegate_accepted_total", Type::Counter, "Connections accepted.", &|shard| Count(shard.load.accepted));
    family("sluicegate_refused_total", Type::Counter, "Connections refused when they were accepted.", &|shard| {
        Count(shard.load.refused)
    });
    family(
        "sluicegate_accept_pauses_total",
        Type::Counter,
        "Times that accepting paused for want of descriptors.",
        &|shard| Count(shard.load.accept_pauses),
    );
    family(
        "sluicegate_accept_paused_seconds_total",
        Type::Counter,
        "Time in which a shard's listeners took nobody, for want of descriptors, by rate, or under load.",
        &|shard| Seconds(shard.load.accept_paused),
    );
    family("sluicegate_reads_total", Type::Counter, "Read calls.", &|shard| Count(shard.load.reads));
    family("sluicegate_writes_total", Type::Counter, "Write calls.", &|shard| Count(shard.load.writes));
    family("sluicegate_read_bytes_total", Type::Counter, "Bytes read from peers, sessions or not.", &|shard| {
        Count(shard.load.rx_bytes)
    });
    family("sluicegate_written_bytes_total", Type::Counter, "Bytes written to peers, sessions or not.", &|shard| {
        Count(shard.load.tx_bytes)
    });
    family("sluicegate_rounds_total", Type::Counter, "Rounds of the pump.", &|shard| Count(shard.load.rounds));
    family(
        "sluicegate_turns_cut_total",
        Type::Counter,
        "Turns that ended with messages left for the next.",
        &|shard| Count(shard.load.turns_cut),
    );
    family("sluicegate_wakeups_total", Type::Counter, "Times that mail or a relay woke a shard.", &|shard| {
        Count(shard.load.wakeups)
    });
    family("sluicegate_mail_backlog", Type::Gauge, "Mail that waits for room in the queue to control.", &|shard| {
        count(shard.load.mail_backlog)
    });
}

/// Microseconds as the page has them.
fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

/// Sums beyond 2^53 lose their last digits, which nobody reads.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn whole(count: u64) -> f64 {
    count as f64
}

/// A value of one shard: counts stay whole, whatever their size.
enum Value {
    Count(u64),
    Seconds(Duration),
}
use Value::{Count, Seconds};

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Count(count) => count.fmt(f),
            Seconds(time) => time.as_secs_f64().fmt(f),
        }
    }
}

/// Of what is open at once; no machine has more than 64 bits of it.
fn count(value: usize) -> Value {
    Count(u64::try_from(value).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
