//! Our own words for what we ask and tell: JSON, described in `docs/guide/hooks.md` and `docs/guide/hooks.schema.json`.
//!
//! What peers say of themselves is cut to a length and escaped by the serializer. The query string and the queries of
//! URLs, where tokens travel, are part of a question and never of what is told.

use bytes::Bytes;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::event::{
    Attempt, Encode, Encoded, Event, ServerEvent, ServerWhat, StreamEvent, StreamWhat, Weight, event_id,
};
use crate::hook::ask::{Question, Why};
use crate::names::StreamKey;
use crate::session::{Change, CloseReason, Counters, Facts, Labels, Reason, What};
use crate::stdx::clock::WallAnchor;

/// The version of every document here. Members may be added to it; what is there keeps its meaning.
pub const VERSION: u32 = 1;
/// The longest query string, in bytes.
pub const QUERY_BYTES_MAX: usize = 4_096;
/// The longest other text of a peer, in bytes.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// The native encoder of what is told.
#[derive(Clone, Debug)]
pub struct Webhook {
    node: Box<str>,
    start: Box<str>,
}

impl Webhook {
    /// An encoder for the server `node`. `start` names this life of it (a UUID) in the ids of events that belong to no
    /// session.
    #[must_use]
    pub fn new(node: &str, start: &str) -> Self {
        Self { node: node.into(), start: start.into() }
    }
}

impl Encode for Webhook {
    fn encode(&self, event: &Event, number: u64, clock: &WallAnchor) -> Option<Encoded> {
        let id = event_id(event, &self.start, number);
        let told = Told {
            v: VERSION,
            name: event.name(),
            event_id: &id,
            time_unix_ms: clock.unix_ms(event.at()),
            node: &self.node,
            ..Told::of(event)
        };
        let body = serde_json::to_vec(&told).ok()?;
        Some(Encoded { event_id: id, weight: Weight::of(event), body: Bytes::from(body) })
    }
}

/// Several events as one document, in the given order; each is a whole one.
#[must_use]
pub fn batch<'a>(bodies: impl Iterator<Item = &'a [u8]>) -> Bytes {
    let mut out = format!("{{\"v\":{VERSION},\"events\":[").into_bytes();
    for (index, body) in bodies.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(body);
    }
    out.extend_from_slice(b"]}");
    Bytes::from(out)
}

/// A question. `id` names it once and for all.
#[must_use]
pub fn question(question: &Question, id: &str, node: &str) -> Bytes {
    let asked = Asked {
        v: VERSION,
        name: "ask",
        event_id: id,
        time_unix_ms: question.unix_ms,
        node,
        why: match question.why {
            Why::Open => "open",
            Why::Recheck => "recheck",
        },
        session: Session::of(&question.facts, Detail::Everything),
        counters: question.counters.map(Totals::from),
    };
    // It holds texts and numbers only; neither can fail.
    serde_json::to_vec(&asked).unwrap_or_default().into()
}

#[derive(Serialize)]
struct Asked<'a> {
    v: u32,
    #[serde(rename = "type")]
    name: &'static str,
    event_id: &'a str,
    time_unix_ms: u64,
    node: &'a str,
    why: &'static str,
    session: Session<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<Totals>,
}

#[derive(Default, Serialize)]
struct Told<'a> {
    v: u32,
    #[serde(rename = "type")]
    name: &'static str,
    event_id: &'a str,
    time_unix_ms: u64,
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Session<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<Totals>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_frames: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<Key<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<Tried>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    side: Option<&'static str>,
    /// True when the end was not seen but concluded after a crash.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    /// What the server, or the part of it that is meant, has become.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// By how much the wall clock moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_ms: Option<i64>,
}

impl<'a> Told<'a> {
    fn of(event: &'a Event) -> Self {
        match event {
            Event::Session(change) => Self::of_session(change),
            Event::Stream(StreamEvent { key, what, .. }) => {
                let told = match what {
                    StreamWhat::Offline { reason, .. } => Self {
                        recovered: (reason.reason == Reason::ServerCrash).then_some(true),
                        ..Self::of_reason(*reason)
                    },
                    StreamWhat::Online { .. } | StreamWhat::Idle => Self::default(),
                };
                Self { stream: Some(Key::of(key, *what)), ..told }
            }
            Event::Attempt(Attempt { protocol, kind, remote, reason, .. }) => {
                let attempt = Tried {
                    protocol: protocol.as_str(),
                    kind: kind.map(crate::names::Kind::as_str),
                    remote: remote.to_string(),
                };
                Self { attempt: Some(attempt), ..Self::of_reason(*reason) }
            }
            Event::Server(ServerEvent { what, .. }) => {
                let by_ms = match what {
                    ServerWhat::ClockStep { by_ms } => Some(*by_ms),
                    _ => None,
                };
                Self { state: what.state(), by_ms, ..Self::default() }
            }
        }
    }

    fn of_session(change: &'a Change) -> Self {
        let session = Some(Session::of(&change.facts, Detail::WithoutTokens));
        let told = match change.what {
            What::Updated(counters) => Self { counters: Some(counters.into()), ..Self::default() },
            What::Overflowed { dropped_frames } => Self { dropped_frames: Some(dropped_frames), ..Self::default() },
            What::Denied(reason) => Self::of_reason(reason),
            What::Closed(reason, counters) => Self {
                counters: Some(counters.into()),
                recovered: (reason.reason == Reason::ServerCrash).then_some(true),
                ..Self::of_reason(reason)
            },
            What::Opened | What::Authorized | What::Started | What::Altered | What::Stalled | What::Recovered => {
                Self::default()
            }
        };
        Self { seq: Some(change.seq), session, ..told }
    }

    fn of_reason(reason: CloseReason) -> Self {
        Self {
            reason: Some(reason.reason.as_str()),
            detail: Some(reason.detail).filter(|detail| !detail.is_empty()),
            side: Some(reason.reason.side().as_str()),
            ..Self::default()
        }
    }
}

/// How much of a session is said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// Also what peers prove themselves with.
    Everything,
    WithoutTokens,
}

#[derive(Serialize)]
struct Session<'a> {
    id: String,
    kind: &'static str,
    protocol: &'static str,
    vhost: &'a str,
    app: &'a str,
    stream: &'a str,
    remote: String,
    local: String,
    connection: String,
    shard: u16,
    opened_unix_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Pairs<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referrer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tc_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swf_url: Option<&'a str>,
}

impl<'a> Session<'a> {
    fn of(facts: &'a Facts, detail: Detail) -> Self {
        let url = |url: &'a Option<Box<str>>| {
            let url = url.as_deref()?;
            let bare = url.split(['?', '#']).next().unwrap_or_default();
            let told = if detail == Detail::Everything { url } else { bare };
            Some(clip(told, TEXT_BYTES_MAX))
        };
        Self {
            id: facts.id.to_string(),
            kind: facts.kind.as_str(),
            protocol: facts.protocol.as_str(),
            vhost: facts.key.vhost(),
            app: facts.key.app(),
            stream: facts.key.stream(),
            remote: facts.remote.to_string(),
            local: facts.local.to_string(),
            connection: facts.connection.to_string(),
            shard: facts.shard.0,
            opened_unix_ms: facts.opened_unix_ms,
            user: facts.user.as_deref(),
            labels: (!facts.labels.is_empty()).then_some(Pairs(&facts.labels)),
            query: facts
                .query
                .as_deref()
                .filter(|_| detail == Detail::Everything)
                .map(|query| clip(query, QUERY_BYTES_MAX)),
            user_agent: facts.user_agent.as_deref().map(|text| clip(text, TEXT_BYTES_MAX)),
            referrer: url(&facts.referrer),
            tc_url: url(&facts.tc_url),
            swf_url: url(&facts.swf_url),
        }
    }
}

/// Labels as an object, in their order.
struct Pairs<'a>(&'a Labels);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Totals {
    rx_bytes: u64,
    tx_bytes: u64,
    rx_media_bytes: u64,
    tx_media_bytes: u64,
    rx_frames: u64,
    tx_frames: u64,
    dropped_frames: u64,
    overflows: u64,
    queue_peak_bytes: u64,
}

impl From<Counters> for Totals {
    fn from(counters: Counters) -> Self {
        let Counters {
            rx_bytes,
            tx_bytes,
            rx_media_bytes,
            tx_media_bytes,
            rx_frames,
            tx_frames,
            dropped_frames,
            overflows,
            queue_peak_bytes,
        } = counters;
        Self {
            rx_bytes,
            tx_bytes,
            rx_media_bytes,
            tx_media_bytes,
            rx_frames,
            tx_frames,
            dropped_frames,
            overflows,
            queue_peak_bytes,
        }
    }
}

#[derive(Serialize)]
struct Key<'a> {
    vhost: &'a str,
    app: &'a str,
    stream: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    publisher: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<bool>,
}

impl<'a> Key<'a> {
    fn of(key: &'a StreamKey, what: StreamWhat) -> Self {
        let (publisher, resumed) = match what {
            StreamWhat::Online { publisher, resumed, .. } => (Some(publisher.to_string()), Some(resumed)),
            StreamWhat::Offline { publisher, .. } => (Some(publisher.to_string()), None),
            StreamWhat::Idle => (None, None),
        };
        Self { vhost: key.vhost(), app: key.app(), stream: key.stream(), publisher, resumed }
    }
}

#[derive(Serialize)]
struct Tried {
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    remote: String,
}

/// The beginning of a text, cut between two characters.
fn clip(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}
