//! What answers about the past look like.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::native::wire::{Both, mask_url, rfc3339};
use crate::ledger::history::{Field, Group, Point, Record, Summary, SummaryQuery, Sums, Timeline, TimelineQuery};
use crate::names::ConnectionId;

/// A page of sessions of the past, the newest first.
#[derive(Serialize, ToSchema)]
pub struct HistoryPage {
    /// The sessions.
    pub(super) sessions: Vec<HistorySession>,
    /// Where the next page begins, as in `next`; null on the last.
    pub(super) cursor: Option<String>,
    /// The address of the next page; null on the last.
    pub(super) next: Option<String>,
}

/// A session as it is on record. What it has in common with a session of now means the same. The query string is not
/// shown: it may hold a token.
#[derive(Serialize, ToSchema)]
pub struct HistorySession {
    /// Its identity, a `UUIDv7`.
    #[schema(format = Uuid)]
    pub(super) id: String,
    /// What it was: `publish`, `play`, `ingest` or `push`.
    #[schema(example = "play")]
    pub(super) kind: String,
    /// How it was carried.
    #[schema(example = "rtmp")]
    pub(super) protocol: String,
    /// `open` while it runs, then `closed`.
    #[schema(example = "closed")]
    pub(super) state: &'static str,
    /// The stream's virtual host.
    pub(super) vhost: String,
    /// The stream's application.
    pub(super) app: String,
    /// The stream's name.
    pub(super) stream: String,
    /// Who the peer was, as admission said.
    pub(super) user: Option<String>,
    /// What the back end attached.
    pub(super) labels: BTreeMap<String, String>,
    /// The peer's address and port.
    pub(super) remote: String,
    /// Our end.
    pub(super) local: String,
    /// The peer's software, as it named itself.
    pub(super) user_agent: Option<String>,
    /// The page that embedded the player; values that may be secrets read `***`.
    pub(super) referrer: Option<String>,
    /// RTMP `tcUrl`; values that may be secrets read `***`.
    pub(super) tc_url: Option<String>,
    /// First contact.
    #[schema(format = DateTime)]
    pub(super) opened_at: String,
    /// When it was let in.
    #[schema(format = DateTime)]
    pub(super) authorized_at: Option<String>,
    /// First media.
    #[schema(format = DateTime)]
    pub(super) started_at: Option<String>,
    /// The end; null while it runs.
    #[schema(format = DateTime)]
    pub(super) closed_at: Option<String>,
    /// When the numbers below were so: the end, or the last checkpoint of a session that runs.
    #[schema(format = DateTime)]
    pub(super) as_of: String,
    /// From first contact to `as_of`.
    pub(super) duration_ms: u64,
    /// TCP payload, handshake included.
    pub(super) bytes: Both,
    /// Of that, bodies of media messages.
    pub(super) media_bytes: Both,
    /// Media frames.
    pub(super) frames: Both,
    /// Frames that a slow player did not get.
    pub(super) dropped_frames: u64,
    /// How often a player fell out of the window.
    pub(super) overflows: u64,
    /// The most bytes that ever waited for the player.
    pub(super) queue_peak_bytes: u64,
    /// The core that owned it.
    pub(super) shard: u16,
    /// The transport association that opened it.
    pub(super) connection: String,
    /// Why it ended.
    pub(super) reason: Option<String>,
    /// The rule, limit or cause within the reason.
    pub(super) detail: Option<String>,
    /// Whose side it was: `client`, `server`, `policy` or `network`.
    pub(super) side: Option<String>,
    /// Its end was not seen, but concluded on the start after a crash.
    pub(super) recovered: bool,
}

/// Sums over sessions of the past.
#[derive(Serialize, ToSchema)]
pub struct HistorySummary {
    /// The range's first moment; null is the beginning of the record.
    #[schema(format = DateTime)]
    from: Option<String>,
    /// The moment after its last; null is now.
    #[schema(format = DateTime)]
    to: Option<String>,
    /// Until when sessions that run have lasted. Their bytes are those of their last checkpoint.
    #[schema(format = DateTime)]
    as_of: String,
    /// Sessions among them that run.
    running: u64,
    /// All of them.
    total: HistoryTotal,
    /// The groups; empty when nothing was grouped by.
    groups: Vec<HistoryGroup>,
    /// The groups beyond `limit`; null when there are none.
    other: Option<HistoryOther>,
}

/// The sums of all sessions.
#[derive(Serialize, ToSchema)]
pub struct HistoryTotal {
    /// The sums.
    sums: HistorySums,
    /// The same for each hour or day in which anybody was there; empty when nothing was split.
    times: Vec<HistoryTime>,
}

/// The sums of one group.
#[derive(Serialize, ToSchema)]
pub struct HistoryGroup {
    /// What its sessions have in common, by field. A stream has three: `vhost`, `app` and `stream`.
    key: BTreeMap<&'static str, Option<String>>,
    /// The sums.
    sums: HistorySums,
    /// The same for each hour or day in which anybody was there; empty when nothing was split.
    times: Vec<HistoryTime>,
}

/// What other groups sum up to.
#[derive(Serialize, ToSchema)]
pub struct HistoryOther {
    /// How many groups.
    groups: usize,
    /// Their sums.
    sums: HistorySums,
}

/// The sums of one hour or day.
#[derive(Serialize, ToSchema)]
pub struct HistoryTime {
    /// Its first moment.
    #[schema(format = DateTime)]
    from: String,
    /// The sums.
    sums: HistorySums,
}

/// Sums. Bytes of a session that was there before or after the range, or in several hours, are spread evenly over its
/// time; all other numbers are exact.
#[derive(Serialize, ToSchema)]
pub struct HistorySums {
    /// Sessions, each counted once: in the hour or day in which it opened, or in the first of the range.
    sessions: u64,
    /// TCP payload, handshake included.
    bytes: Both,
    /// From opening to end, all sessions together.
    duration_ms: u64,
    /// From first media to end, of those that played.
    watch_ms: u64,
    /// The most sessions at once; null where sums were added up.
    peak: Option<u64>,
    /// Users that were there; null where sums were added up, or there were too many to tell apart.
    users: Option<u64>,
    /// Addresses that were there; null as with users.
    addresses: Option<u64>,
}

/// Sessions of the past over time.
#[derive(Serialize, ToSchema)]
pub struct HistoryTimeline {
    /// Its first moment.
    #[schema(format = DateTime)]
    from: String,
    /// The moment after its last.
    #[schema(format = DateTime)]
    to: String,
    /// Until when sessions that run have lasted. Their bytes are those of their last checkpoint.
    #[schema(format = DateTime)]
    as_of: String,
    /// The length of a bucket; the last may be shorter.
    bucket_ms: u64,
    /// One point for each bucket.
    points: Vec<HistoryPoint>,
}

/// One bucket.
#[derive(Serialize, ToSchema)]
pub struct HistoryPoint {
    /// Its first moment.
    #[schema(format = DateTime)]
    from: String,
    /// The most sessions at once.
    peak: u64,
    /// How many there were on average.
    mean: f64,
    /// Sessions that opened.
    opened: u64,
    /// Sessions that ended.
    closed: u64,
    /// Bits a second, each session's bytes spread evenly over its time.
    bps: Both,
}

impl From<&Record> for HistorySession {
    fn from(record: &Record) -> Self {
        // A destructuring, so that a field added there is thought of here.
        let Record {
            id,
            kind,
            protocol,
            vhost,
            app,
            stream,
            user,
            labels,
            remote_ip,
            remote_port,
            local,
            connection,
            shard,
            user_agent,
            referrer,
            tc_url,
            opened_ms,
            authorized_ms,
            started_ms,
            updated_ms,
            closed_ms,
            rx_bytes,
            tx_bytes,
            rx_media_bytes,
            tx_media_bytes,
            rx_frames,
            tx_frames,
            dropped_frames,
            overflows,
            queue_peak_bytes,
            reason,
            detail,
            side,
            recovered,
        } = record;
        let as_of = closed_ms.unwrap_or(*updated_ms);
        Self {
            id: id.to_string(),
            kind: kind.clone(),
            protocol: protocol.clone(),
            state: if closed_ms.is_some() { "closed" } else { "open" },
            vhost: vhost.clone(),
            app: app.clone(),
            stream: stream.clone(),
            user: user.clone(),
            labels: labels.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
            remote: match remote_ip.parse::<IpAddr>() {
                Ok(ip) => SocketAddr::new(ip, *remote_port).to_string(),
                Err(_) => format!("{remote_ip}:{remote_port}"),
            },
            local: local.clone(),
            user_agent: user_agent.clone(),
            referrer: referrer.as_deref().map(mask_url),
            tc_url: tc_url.as_deref().map(mask_url),
            opened_at: moment(*opened_ms),
            authorized_at: authorized_ms.map(moment),
            started_at: started_ms.map(moment),
            closed_at: closed_ms.map(moment),
            as_of: moment(as_of),
            duration_ms: as_of.saturating_sub(*opened_ms),
            bytes: Both { rx: *rx_bytes, tx: *tx_bytes },
            media_bytes: Both { rx: *rx_media_bytes, tx: *tx_media_bytes },
            frames: Both { rx: *rx_frames, tx: *tx_frames },
            dropped_frames: *dropped_frames,
            overflows: *overflows,
            queue_peak_bytes: *queue_peak_bytes,
            shard: *shard,
            connection: ConnectionId(*connection).to_string(),
            reason: reason.clone(),
            detail: detail.clone().filter(|detail| !detail.is_empty()),
            side: side.clone(),
            recovered: *recovered,
        }
    }
}

impl HistorySummary {
    pub(super) fn new(query: &SummaryQuery, summary: Summary) -> Self {
        let Summary { total, groups, other, running } = summary;
        let names: Vec<&'static str> = query.group_by.iter().flat_map(|field| names(*field)).copied().collect();
        Self {
            from: query.filter.from_ms.map(moment),
            to: query.filter.to_ms.map(moment),
            as_of: moment(query.now_ms),
            running,
            total: HistoryTotal { sums: (&total.sums).into(), times: times(&total) },
            groups: groups
                .into_iter()
                .map(|group| HistoryGroup {
                    sums: (&group.sums).into(),
                    times: times(&group),
                    key: names.iter().copied().zip(group.key).collect(),
                })
                .collect(),
            other: other.map(|(groups, sums)| HistoryOther { groups, sums: (&sums).into() }),
        }
    }
}

fn names(field: Field) -> &'static [&'static str] {
    match field {
        Field::User => &["user"],
        Field::Stream => &["vhost", "app", "stream"],
        Field::App => &["app"],
        Field::Vhost => &["vhost"],
        Field::Remote => &["remote"],
        Field::Kind => &["kind"],
        Field::Protocol => &["protocol"],
        Field::Reason => &["reason"],
    }
}

fn times(group: &Group) -> Vec<HistoryTime> {
    group.times.iter().map(|(from_ms, sums)| HistoryTime { from: moment(*from_ms), sums: sums.into() }).collect()
}

impl From<&Sums> for HistorySums {
    fn from(sums: &Sums) -> Self {
        Self {
            sessions: sums.sessions,
            bytes: Both { rx: sums.rx_bytes, tx: sums.tx_bytes },
            duration_ms: sums.duration_ms,
            watch_ms: sums.watch_ms,
            peak: sums.peak,
            users: sums.users,
            addresses: sums.addresses,
        }
    }
}

impl HistoryTimeline {
    pub(super) fn new(query: &TimelineQuery, line: &Timeline) -> Self {
        Self {
            from: moment(query.from_ms),
            to: moment(query.to_ms.max(query.from_ms)),
            as_of: moment(query.now_ms),
            bucket_ms: line.bucket_ms,
            points: line.points.iter().map(HistoryPoint::from).collect(),
        }
    }
}

impl From<&Point> for HistoryPoint {
    #[allow(clippy::cast_precision_loss)] // Below 2^53 for some hundred thousand years of sessions.
    fn from(point: &Point) -> Self {
        let length = point.length_ms.max(1);
        let bps = |bytes: u64| u64::try_from(u128::from(bytes) * 8_000 / u128::from(length)).unwrap_or(u64::MAX);
        let thousandths = (u128::from(point.there_ms) * 1_000 / u128::from(length)) as f64;
        Self {
            from: moment(point.from_ms),
            peak: point.peak,
            mean: thousandths / 1_000.0,
            opened: point.opened,
            closed: point.closed,
            bps: Both { rx: bps(point.rx_bytes), tx: bps(point.tx_bytes) },
        }
    }
}

fn moment(unix_ms: u64) -> String {
    rfc3339(Duration::from_millis(unix_ms))
}
