//! What answers look like. Inner types are not wire types: this is where the one becomes the other.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::query::decode;
use crate::control::view::{Rates, SessionRow, Totals};
use crate::session::{CloseReason, Facts, State};
use crate::stdx::clock::WallAnchor;

/// A session, running or finished.
#[derive(Serialize, ToSchema)]
pub struct Session {
    /// Its identity, a UUIDv7.
    #[schema(format = Uuid)]
    pub id: String,
    /// What it is: role and initiator.
    #[schema(example = "publish", inline)]
    pub kind: KindName,
    /// How it is carried.
    #[schema(inline)]
    pub protocol: ProtocolName,
    /// Where it is in its life.
    #[schema(inline)]
    pub state: StateName,
    /// The stream's virtual host.
    pub vhost: String,
    /// The stream's application.
    pub app: String,
    /// The stream's name.
    pub stream: String,
    /// The peer's address and port.
    pub remote: String,
    /// Our end.
    pub local: String,
    /// The peer's software, as it names itself.
    pub user_agent: Option<String>,
    /// The page that embeds the player; values that may be secrets read `***`.
    pub referrer: Option<String>,
    /// RTMP `tcUrl`; values that may be secrets read `***`.
    pub tc_url: Option<String>,
    /// Who the peer is, as admission said.
    pub user: Option<String>,
    /// What a token or a back end said of it.
    pub labels: BTreeMap<String, String>,
    /// The query string of app and stream; values that may be secrets read `***`.
    pub query: Option<String>,
    /// First contact.
    #[schema(format = DateTime)]
    pub opened_at: String,
    /// First media; null before it.
    #[schema(format = DateTime)]
    pub started_at: Option<String>,
    /// From first contact until now, or until the end.
    pub duration_ms: u64,
    /// TCP payload, handshake included.
    pub bytes: Both,
    /// Of that, bodies of media messages.
    pub media_bytes: Both,
    /// Media frames.
    pub frames: Both,
    /// Frames that a slow player did not get.
    pub dropped_frames: u64,
    /// How often a player fell out of the window.
    pub overflows: u64,
    /// Bytes waiting for the player.
    pub queue_bytes: u64,
    /// The most that ever waited.
    pub queue_peak_bytes: u64,
    /// Bits a second over three windows; zeros once finished.
    pub rates: WireRates,
    /// The core that owns it.
    pub shard: u16,
    /// The transport association that opened it.
    pub connection: String,
    /// When it ended; null while it runs.
    #[schema(format = DateTime)]
    pub closed_at: Option<String>,
    /// Why it ended.
    pub reason: Option<&'static str>,
    /// The rule, limit or cause within the reason.
    pub detail: Option<&'static str>,
    /// Whose side it was.
    #[schema(inline)]
    pub side: Option<SideName>,
}

/// A quantity in both directions, seen from the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Both {
    /// Received.
    pub rx: u64,
    /// Sent.
    pub tx: u64,
}

/// Bits a second in both directions over three windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Rates)]
pub struct WireRates {
    /// Received, over 1 s.
    pub rx_bps_1s: u64,
    /// Received, over 10 s.
    pub rx_bps_10s: u64,
    /// Received, over 30 s.
    pub rx_bps_30s: u64,
    /// Sent, over 1 s.
    pub tx_bps_1s: u64,
    /// Sent, over 10 s.
    pub tx_bps_10s: u64,
    /// Sent, over 30 s.
    pub tx_bps_30s: u64,
}

/// What finished sessions amount to.
#[derive(Serialize, ToSchema)]
#[schema(as = Totals)]
pub struct WireTotals {
    /// How many.
    pub sessions: u64,
    /// Their bytes.
    pub bytes: Both,
}

macro_rules! names {
    ($(#[$doc:meta])* $name:ident of $inner:path { $($variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $(#[doc = $text] $variant,)* }

        impl From<$inner> for $name {
            fn from(inner: $inner) -> Self {
                use $inner as Inner;
                match inner { $(Inner::$variant => Self::$variant,)* }
            }
        }
    };
}

names! {
    /// Role and initiator.
    KindName of crate::names::Kind {
        Publish = "The peer came to us and sends.",
        Play = "The peer came to us and receives.",
        Ingest = "We went to the peer and receive.",
        Push = "We went to the peer and send.",
    }
}

names! {
    /// How a session is carried.
    ProtocolName of crate::names::Protocol { Rtmp = "RTMP over TCP." }
}

names! {
    /// Where a session is in its life.
    StateName of crate::session::State {
        Establishing = "Waits for a verdict or for first media.",
        Running = "Media flows.",
        Stalling = "Media should flow and does not.",
        Finished = "Closed.",
    }
}

names! {
    /// Whose side ended a session.
    SideName of crate::session::Side {
        Client = "The peer.",
        Server = "This server.",
        Policy = "A rule.",
        Network = "The path between.",
    }
}

impl Session {
    /// The session of `row`, as of `now`.
    #[must_use]
    pub fn new(row: &SessionRow, wall: &WallAnchor, now: Instant) -> Self {
        let Facts { id, connection, shard, kind, protocol, key, remote, local, .. } = &*row.facts;
        let facts = &*row.facts;
        let counters = &row.counters;
        let ended = row.closed.map(|(at, _)| at);
        let reason: Option<CloseReason> = row.closed.map(|(_, reason)| reason);
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        Self {
            id: id.to_string(),
            kind: (*kind).into(),
            protocol: (*protocol).into(),
            state: row.state.into(),
            vhost: key.vhost().to_owned(),
            app: key.app().to_owned(),
            stream: key.stream().to_owned(),
            remote: remote.to_string(),
            local: local.to_string(),
            user_agent: text(&facts.user_agent),
            referrer: facts.referrer.as_deref().map(mask_url),
            tc_url: facts.tc_url.as_deref().map(mask_url),
            user: text(&facts.user),
            labels: facts.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            query: facts.query.as_deref().map(mask_query),
            opened_at: rfc3339(Duration::from_millis(facts.opened_unix_ms)),
            started_at: row.started_at.map(|at| rfc3339(wall.since_epoch(at))),
            duration_ms: millis(ended.unwrap_or(now).saturating_duration_since(facts.opened_at)),
            bytes: Both { rx: counters.rx_bytes, tx: counters.tx_bytes },
            media_bytes: Both { rx: counters.rx_media_bytes, tx: counters.tx_media_bytes },
            frames: Both { rx: counters.rx_frames, tx: counters.tx_frames },
            dropped_frames: counters.dropped_frames,
            overflows: counters.overflows,
            queue_bytes: row.queue_bytes,
            queue_peak_bytes: counters.queue_peak_bytes,
            rates: if row.state == State::Finished { WireRates::default() } else { row.rates.into() },
            shard: shard.0,
            connection: connection.to_string(),
            closed_at: ended.map(|at| rfc3339(wall.since_epoch(at))),
            reason: reason.map(|reason| reason.reason.as_str()),
            detail: reason.map(|reason| reason.detail).filter(|detail| !detail.is_empty()),
            side: reason.map(|reason| reason.reason.side().into()),
        }
    }
}

impl From<Rates> for WireRates {
    fn from(rates: Rates) -> Self {
        let [rx_bps_1s, rx_bps_10s, rx_bps_30s] = rates.rx_bps.map(whole);
        let [tx_bps_1s, tx_bps_10s, tx_bps_30s] = rates.tx_bps.map(whole);
        Self { rx_bps_1s, rx_bps_10s, rx_bps_30s, tx_bps_1s, tx_bps_10s, tx_bps_30s }
    }
}

impl From<&Totals> for WireTotals {
    fn from(totals: &Totals) -> Self {
        Self { sessions: totals.sessions, bytes: Both { rx: totals.rx_bytes, tx: totals.tx_bytes } }
    }
}

/// A rate without its fraction, which nothing that is measured has.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` saturates, and rates are not negative.
pub fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

/// Whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC with milliseconds, of a time since the Unix epoch.
#[must_use]
pub fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a civil date, by counting years from 1 March, so that the leap day is the last of its year, in eras
    // of 400 years, which all have the same number of days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60,
        since_epoch.subsec_millis()
    )
}

/// Parts of a parameter's name that say its value lets somebody in.
const SECRET_PARTS: [&str; 16] = [
    "token", "sign", "secret", "key", "pass", "pwd", "pw", "auth", "hash", "md5", "sha", "jwt", "sig", "hmac", "cred",
    "code",
];

/// A query string with the values that may be secrets replaced by `***`. A part without a name is one, for all
/// anybody can tell.
#[must_use]
pub fn mask_query(query: &str) -> String {
    let mut out = String::with_capacity(query.len());
    for piece in query.split_inclusive(['&', ';', '?']) {
        let (pair, separator) = match piece.char_indices().next_back() {
            Some((at, '&' | ';' | '?')) => piece.split_at(at),
            _ => (piece, ""),
        };
        match pair.split_once('=') {
            None if pair.is_empty() => {}
            None => out.push_str("***"),
            Some((name, "")) => {
                out.push_str(name);
                out.push('=');
            }
            Some((name, value)) => {
                let plain = decode(name, true).map(|name| name.to_lowercase());
                let secret = plain.is_none_or(|name| SECRET_PARTS.iter().any(|part| name.contains(part)));
                out.push_str(name);
                out.push('=');
                out.push_str(if secret { "***" } else { value });
            }
        }
        out.push_str(separator);
    }
    out
}

/// A URL with the secrets of its query, its user part and its fragment replaced by `***`.
#[must_use]
pub fn mask_url(url: &str) -> String {
    let (before, fragment) = url.split_once('#').map_or((url, None), |(before, fragment)| (before, Some(fragment)));
    let (path, query) = before.split_once('?').map_or((before, None), |(path, query)| (path, Some(query)));
    let mut out = match path.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            match authority.rsplit_once('@') {
                Some((_, host)) => format!("{scheme}://***@{host}{tail}"),
                None => path.to_owned(),
            }
        }
        None => path.to_owned(),
    };
    if let Some(query) = query {
        out.push('?');
        out.push_str(&mask_query(query));
    }
    if fragment.is_some_and(|fragment| !fragment.is_empty()) {
        out.push_str("#***");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_as_rfc_3339() {
        let at = |ms| rfc3339(Duration::from_millis(ms));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(951_868_800_000), "2000-03-01T00:00:00.000Z");
        assert_eq!(at(1_795_155_521_042), "2026-11-20T06:18:41.042Z");
        assert_eq!(at(4_107_542_399_000), "2100-02-28T23:59:59.000Z");
        assert_eq!(at(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn ap_14_values_that_may_be_secrets_are_masked() {
        for (query, masked) in [
            ("token=abc&x=1", "token=***&x=1"),
            ("x=1&Stream%4bey=abc", "x=1&Stream%4bey=***"),
            ("sign=a=b", "sign=***"),
            ("x=1;authKey=2", "x=1;authKey=***"),
            ("vhost=a?token=b", "vhost=a?token=***"),
            ("justatoken", "***"),
            ("password=", "password="),
            ("%zz=1", "%zz=***"),
            ("quality=high", "quality=high"),
            ("", ""),
        ] {
            assert_eq!(mask_query(query), masked);
        }
        assert_eq!(mask_url("rtmp://u:p@h/live?token=x#t"), "rtmp://***@h/live?token=***#***");
        assert_eq!(mask_url("rtmp://h:1935/live"), "rtmp://h:1935/live");
        assert_eq!(mask_url("not a url"), "not a url");
    }
}
