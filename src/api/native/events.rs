//! `GET /v1/events`: what happens, as server-sent events.
//!
//! A subscriber holds a place in control's ring of events and nothing else: one that does not read costs no
//! memory. When the ring has overtaken it, it is told how many events it missed and its stream ends; it may come
//! back with `Last-Event-ID`. An id is `<start>-<number>`: numbers count from the server's start, and the first
//! part tells one start from another.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_lite::{future, stream};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::api::native::sessions::FilterParams;
use crate::api::native::wire::{Both, KindName, ProtocolName, SideName, rfc3339};
use crate::api::query::{Params, unknown};
use crate::api::{Problem, Shared};
use crate::control::Filter;
use crate::control::filter::FILTER_FIELDS;
use crate::control::view::{Rates, SessionRow};
use crate::event::sink::NAMES;
use crate::event::{Attempt, Cursor, Event, Recorded, ServerEvent, ServerWhat, StreamEvent, StreamWhat};
use crate::session::{Change, CloseReason, Counters, State as Life, What};
use crate::stdx::clock::WallAnchor;
use crate::stdx::units::parse_duration;

/// A comment goes out when nothing else did for so long, so that no proxy takes the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events put in one piece.
const BATCH: usize = 64;
/// Names of whole groups.
const GROUPS: [&str; 3] = ["session", "stream", "server"];

/// An event as it is sent.
#[derive(ToSchema)]
#[allow(dead_code)] // Read by the description only.
pub struct ServerSentEvent {
    /// Where to resume; absent from gaps, and from what comes ahead of events that wait for their record.
    #[schema(required = false, pattern = "^[0-9a-f]{1,16}-[0-9]{1,19}$")]
    id: String,
    /// Its name, or `gap`.
    event: String,
    /// JSON: an `Event`, or `{"missed":n}`.
    data: String,
}

/// The data of an event. Which members there are depends on the event's name.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventBody {
    /// The event's name.
    #[serde(rename = "event")]
    name: &'static str,
    /// When it happened.
    #[schema(format = DateTime)]
    at: String,
    /// The session, of `session.*`; the publisher's, of `stream.online` and `stream.offline`.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// Counts from 1 within the session, without gaps.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u32>,
    /// What the session is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    kind: Option<KindName>,
    /// How it is carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    protocol: Option<ProtocolName>,
    /// The stream's virtual host.
    #[serde(skip_serializing_if = "Option::is_none")]
    vhost: Option<String>,
    /// The stream's application.
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    /// The stream's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    /// The peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
    /// Who the peer is, as admission said.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// The core.
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<u16>,
    /// Totals, of `session.updated` and `session.closed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<Both>,
    /// Media frames, of `session.updated` and `session.closed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<Both>,
    /// Frames skipped, of `session.overflowed`; all of them, of `session.updated` and `session.closed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_frames: Option<u64>,
    /// Viewers were kept from before, of `stream.online`.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<bool>,
    /// How hard pressed the server is, of `server.load_state`: `green`, `yellow`, `orange` or `red`; how the ledger is, of
    /// `server.ledger`: `ok` or `degraded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// By how much the wall clock moved, of `server.clock_step`.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_ms: Option<i64>,
    /// Why, of `session.closed`, `session.denied`, `stream.offline` and `attempt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The rule, limit or cause within the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    /// Whose side it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    side: Option<SideName>,
}

/// What happens, as server-sent events (`text/event-stream`). Each has an `id`, a name and JSON data. A `gap` event
/// says how many were missed (`{"missed":n}`, or null after a restart of the server); after a gap in its midst the
/// stream ends, and the client may resume with `Last-Event-ID`. A comment comes every 15 s of silence. Filters hold for
/// events of sessions; with any of them, other events are left out.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(
        ("after" = Option<String>, Query, pattern = "^[0-9a-f]{1,16}-[0-9]{1,19}$",
            description = "Begin after the event with this id. Without it the stream begins now."),
        ("Last-Event-ID" = Option<String>, Header, pattern = "^([0-9a-f]{1,16}-[0-9]{1,19})?$",
            description = "The same, as browsers send it; it wins over `after`."),
        ("event" = Option<String>, Query,
            pattern = "^(session(\\.(opened|authorized|started|updated|altered|overflowed|stalled|recovered|denied|closed))?|stream(\\.(online|idle|offline))?|attempt|server(\\.(ready|draining))?)$",
            description = "Events of these names, or groups: `session`, `session.closed`, `stream`, `attempt`, `server`. \
                Several with commas."),
        ("for" = Option<String>, Query, pattern = "^[1-9][0-9]{0,2}(ms|s)$",
            description = "End the stream after this time, as `10s`. Without it the stream does not end."),
        FilterParams),
    responses((status = 200, description = "Events", body = ServerSentEvent, content_type = "text/event-stream"),
        (status = 503, description = "Too many event streams")))]
pub(crate) async fn events(
    State(api): State<Shared>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &[&FILTER_FIELDS, &["after", "event", "for"]])?;
    let mut after = params.take("after").map(|text| ("after", text));
    if let Some(value) = headers.get("last-event-id") {
        let text = value.to_str().map_err(|_| bad_id("Last-Event-ID"))?;
        // A browser that has not seen an id yet sends none, or an empty one.
        if !text.is_empty() {
            after = Some(("Last-Event-ID", text.to_owned()));
        }
    }
    let names = params.take("event").map(|text| read_names(&text)).transpose()?.unwrap_or_default();
    let until = match params.take("for") {
        None => None,
        Some(text) => {
            let duration = parse_duration(&text).map_err(|message| Problem::parameter("for", message))?;
            if duration.is_zero() {
                return Err(Problem::parameter("for", "write a time longer than zero"));
            }
            Instant::now().checked_add(duration)
        }
    };
    let filter = params.take_filter()?;
    let (wall, epoch) = api.control.view(|view| (view.wall, view.wall.unix_ms(view.started_at)));
    let permit = std::sync::Arc::clone(&api.event_streams).try_acquire_owned().map_err(|_| {
        let problem =
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", "too many event streams are open");
        Problem { retry_after: Some(10), ..problem }
    })?;
    let mut first = VecDeque::new();
    let cursor = match after {
        None => api.control.subscribe(None),
        Some((field, text)) => {
            let (start, number) = read_id(&text).ok_or_else(|| bad_id(field))?;
            if start == epoch {
                // A cursor is the number of the next event.
                if number >= api.control.subscribe(None).next {
                    return Err(Problem::parameter(field, "no event has had this number yet"));
                }
                api.control.subscribe(Some(number))
            } else {
                // The server has started anew since: whatever was missed then is beyond counting.
                first.push_back(gap(None).into());
                api.control.subscribe(Some(0))
            }
        }
    };
    first.push_back(Bytes::from_static(b": welcome\n\n"));
    let feed =
        Feed { api, cursor, epoch, wall, names, filter, until, first, begun: false, ended: false, _permit: permit };
    let body = Body::from_stream(stream::unfold(feed, |mut feed| async move {
        let piece = feed.next().await?;
        Some((Ok::<_, Infallible>(piece), feed))
    }));
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], body).into_response())
}

/// One subscriber.
struct Feed {
    api: Shared,
    cursor: Cursor,
    epoch: u64,
    wall: WallAnchor,
    names: Vec<&'static str>,
    filter: Filter,
    until: Option<Instant>,
    /// What goes out before events.
    first: VecDeque<Bytes>,
    /// An event has been seen, so that another gap is the subscriber's own.
    begun: bool,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Feed {
    /// The next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(piece) = self.first.pop_front() {
            return Some(piece);
        }
        if self.ended {
            return None;
        }
        let keep_alive = Instant::now() + KEEP_ALIVE;
        let deadline = self.until.map_or(keep_alive, |until| until.min(keep_alive));
        let mut piece = String::new();
        for taken in 1_usize.. {
            // Once there is something to say, only what is there already goes with it.
            let next = if piece.is_empty() {
                tokio::time::timeout_at(deadline, self.api.control.next_event(&mut self.cursor)).await.ok()
            } else {
                future::poll_once(self.api.control.next_event(&mut self.cursor)).await
            };
            let Some((missed, recorded)) = next else { break };
            if missed > 0 {
                piece.push_str(&gap(Some(missed)));
                if self.begun {
                    self.ended = true;
                    break;
                }
            }
            self.begun = true;
            self.write(&recorded, &mut piece);
            if taken % BATCH == 0 {
                if !piece.is_empty() {
                    break;
                }
                // Events that nobody asked for may be many; others have their turn between them.
                tokio::task::yield_now().await;
                if deadline <= Instant::now() {
                    break;
                }
            }
        }
        if piece.is_empty() {
            self.ended = self.until.is_some_and(|until| until <= Instant::now());
            return (!self.ended).then(|| Bytes::from_static(b":\n\n"));
        }
        Some(piece.into())
    }

    /// Appends an event, if it was asked for.
    fn write(&self, recorded: &Recorded, out: &mut String) {
        let event = &*recorded.event;
        let name = event.name();
        if !self.names.is_empty() && !self.names.contains(&name) {
            return;
        }
        if !self.filter.is_empty() {
            match event {
                Event::Session(change) if self.filter.matches(&self.row(change)) => {}
                _ => return,
            }
        }
        let body = EventBody::new(event, name, &self.wall);
        if let Ok(data) = serde_json::to_string(&body) {
            // What came ahead of its place is none to resume at: what waits before it would be passed over.
            if recorded.number < self.cursor.next {
                let _ = writeln!(out, "id: {:x}-{}", self.epoch, recorded.number);
            }
            let _ = write!(out, "event: {name}\ndata: {data}\n\n");
        }
    }

    /// What a filter looks at: the session as it was told of in the event.
    fn row(&self, change: &Change) -> SessionRow {
        let state = match change.what {
            What::Opened | What::Authorized | What::Denied(_) => Life::Establishing,
            What::Started | What::Recovered | What::Altered | What::Overflowed { .. } => Life::Running,
            What::Stalled => Life::Stalling,
            What::Closed(..) => Life::Finished,
            // The one that comes in more than one state.
            What::Updated(_) => {
                self.api.control.view(|view| view.sessions.get(&change.facts.id).map_or(Life::Running, |row| row.state))
            }
        };
        SessionRow {
            facts: std::sync::Arc::clone(&change.facts),
            state,
            started_at: None,
            counters: Counters::default(),
            queue_bytes: 0,
            rates: Rates::default(),
            closed: None,
        }
    }
}

impl EventBody {
    fn new(event: &Event, name: &'static str, wall: &WallAnchor) -> Self {
        let at = |at| rfc3339(wall.since_epoch(at));
        match event {
            Event::Session(change) => Self { name, at: at(change.at), ..Self::of_session(change) },
            Event::Stream(StreamEvent { key, at: when, what }) => {
                let (publisher, online) = match what {
                    StreamWhat::Online { publisher, shard, resumed } => (Some(publisher), Some((shard, resumed))),
                    StreamWhat::Offline { publisher, .. } => (Some(publisher), None),
                    StreamWhat::Idle => (None, None),
                };
                let told = match what {
                    StreamWhat::Offline { reason, .. } => Self::of_reason(*reason),
                    StreamWhat::Online { .. } | StreamWhat::Idle => Self::default(),
                };
                Self {
                    name,
                    at: at(*when),
                    vhost: Some(key.vhost().to_owned()),
                    app: Some(key.app().to_owned()),
                    stream: Some(key.stream().to_owned()),
                    session: publisher.map(ToString::to_string),
                    shard: online.map(|(shard, _)| shard.0),
                    resumed: online.map(|(_, resumed)| *resumed),
                    ..told
                }
            }
            Event::Attempt(Attempt { protocol, kind, remote, at: when, reason, .. }) => Self {
                name,
                at: at(*when),
                protocol: Some((*protocol).into()),
                kind: kind.map(Into::into),
                remote: Some(remote.to_string()),
                ..Self::of_reason(*reason)
            },
            Event::Server(ServerEvent { at: when, what }) => {
                let by_ms = match what {
                    ServerWhat::ClockStep { by_ms } => Some(*by_ms),
                    _ => None,
                };
                Self { name, at: at(*when), state: what.state(), by_ms, ..Self::default() }
            }
        }
    }

    fn of_session(change: &Change) -> Self {
        let facts = &change.facts;
        let totals = match &change.what {
            What::Updated(counters) | What::Closed(_, counters) => Some(counters),
            _ => None,
        };
        let reason = match &change.what {
            What::Denied(reason) | What::Closed(reason, _) => Some(*reason),
            _ => None,
        };
        let skipped = match &change.what {
            What::Overflowed { dropped_frames } => Some(*dropped_frames),
            _ => totals.map(|totals| totals.dropped_frames),
        };
        Self {
            session: Some(facts.id.to_string()),
            seq: Some(change.seq),
            kind: Some(facts.kind.into()),
            protocol: Some(facts.protocol.into()),
            vhost: Some(facts.key.vhost().to_owned()),
            app: Some(facts.key.app().to_owned()),
            stream: Some(facts.key.stream().to_owned()),
            remote: Some(facts.remote.to_string()),
            user: facts.user.as_deref().map(str::to_owned),
            shard: Some(facts.shard.0),
            bytes: totals.map(|totals| Both { rx: totals.rx_bytes, tx: totals.tx_bytes }),
            frames: totals.map(|totals| Both { rx: totals.rx_frames, tx: totals.tx_frames }),
            dropped_frames: skipped,
            ..reason.map(Self::of_reason).unwrap_or_default()
        }
    }

    fn of_reason(reason: CloseReason) -> Self {
        Self {
            reason: Some(reason.reason.as_str()),
            detail: Some(reason.detail).filter(|detail| !detail.is_empty()),
            side: Some(reason.reason.side().into()),
            ..Self::default()
        }
    }
}

/// The names that `text` means.
fn read_names(text: &str) -> Result<Vec<&'static str>, Problem> {
    let mut names = Vec::new();
    for wanted in text.split(',') {
        let before = names.len();
        names.extend(NAMES.iter().copied().filter(|name| {
            *name == wanted
                || (GROUPS.contains(&wanted) && name.split_once('.').is_some_and(|(group, _)| group == wanted))
        }));
        if names.len() == before {
            return Err(Problem::parameter("event", unknown(wanted, GROUPS.into_iter().chain(NAMES))));
        }
    }
    Ok(names)
}

fn read_id(text: &str) -> Option<(u64, u64)> {
    let (start, number) = text.split_once('-')?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !plain(start) || !plain(number) {
        return None;
    }
    Some((u64::from_str_radix(start, 16).ok()?, number.parse().ok()?))
}

fn bad_id(field: &'static str) -> Problem {
    Problem::parameter(field, "this is not the id of an event")
}

fn gap(missed: Option<u64>) -> String {
    match missed {
        Some(missed) => format!("event: gap\ndata: {{\"missed\":{missed}}}\n\n"),
        None => "event: gap\ndata: {\"missed\":null}\n\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_groups_are_read() {
        assert_eq!(read_names("stream").unwrap(), ["stream.online", "stream.idle", "stream.offline"]);
        assert_eq!(read_names("attempt,session.closed").unwrap(), ["attempt", "session.closed"]);
        assert!(read_names("session.close").unwrap_err().detail.contains("session.closed"));
        assert!(read_names("").is_err());
    }

    #[test]
    fn ids_are_read_strictly() {
        assert_eq!(read_id("1a-12"), Some((26, 12)));
        for bad in ["", "1", "-", "1-", "-1", "1-a", "+1-1", "1-+1", "1-1-1", "g-1", "1-99999999999999999999"] {
            assert_eq!(read_id(bad), None, "{bad:?}");
        }
    }
}
