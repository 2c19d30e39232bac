//! A sink: somebody who is told what happens. It is a filter, an encoder, a transport and a cursor; this is the
//! interface of the first two. Transport and cursor are the business of whoever delivers.

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

use crate::admission::AppPattern;
use crate::event::{Event, StreamEvent, StreamWhat};
use crate::names::Kind;
use crate::session::What;
use crate::stdx::clock::WallAnchor;

/// Every name that an event can have.
pub const NAMES: [&str; 19] = [
    "session.opened",
    "session.authorized",
    "session.started",
    "session.updated",
    "session.altered",
    "session.overflowed",
    "session.stalled",
    "session.recovered",
    "session.denied",
    "session.closed",
    "stream.online",
    "stream.idle",
    "stream.offline",
    "attempt",
    "server.ready",
    "server.draining",
    "server.load_state",
    "server.ledger",
    "server.clock_step",
];

/// One who is told: what it wants to hear, and how it wants to hear it.
pub struct Sink {
    /// The name in the configuration, by which its outbox is kept.
    pub name: Arc<str>,
    /// What it wants to hear.
    pub filter: SinkFilter,
    /// Makes what it is told.
    pub encoder: Box<dyn Encode>,
}

impl Sink {
    /// What this sink is told of an event, if anything. `number` is the event's place in the [`Bus`](crate::event::Bus);
    /// it matters only to events that no session's sequence numbers.
    #[must_use]
    pub fn encode(&self, event: &Event, number: u64, clock: &WallAnchor) -> Option<Encoded> {
        if self.filter.matches(event) { self.encoder.encode(event, number, clock) } else { None }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("name", &self.name).field("filter", &self.filter).finish_non_exhaustive()
    }
}

/// Makes what is told of an event. Pure: the same event gives the same bytes.
pub trait Encode: Send + Sync {
    /// What is told; `None` when this form has no words for the event.
    fn encode(&self, event: &Event, number: u64, clock: &WallAnchor) -> Option<Encoded>;
}

/// What is told of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Names the event for good, see [`event_id`]: receivers know a repetition by it.
    pub event_id: String,
    /// What may be left out in need.
    pub weight: Weight,
    /// The bytes.
    pub body: Bytes,
}

/// How much an event matters to those who are told, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// A periodic report: a newer one of the same session replaces it, and it is the first to go when a spool is full.
    Update,
    /// Anything between: the oldest go next.
    Other,
    /// Starts and stops: told for ever, as far as the spool reaches.
    Must,
}

impl Weight {
    /// Every weight, the least first.
    pub const ALL: [Self; 3] = [Self::Update, Self::Other, Self::Must];

    /// The weight that an event has by itself: beginnings and ends of sessions and streams must be told.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        match event {
            Event::Session(change) => match change.what {
                What::Updated(_) => Self::Update,
                What::Opened | What::Started | What::Denied(_) | What::Closed(..) => Self::Must,
                What::Authorized | What::Altered | What::Overflowed { .. } | What::Stalled | What::Recovered => {
                    Self::Other
                }
            },
            Event::Stream(event) => match event.what {
                StreamWhat::Online { .. } | StreamWhat::Offline { .. } => Self::Must,
                StreamWhat::Idle => Self::Other,
            },
            Event::Attempt(_) | Event::Server(_) => Self::Other,
        }
    }

    /// As a number for records: 0, 1, 2.
    #[must_use]
    pub const fn rank(self) -> u8 {
        match self {
            Self::Update => 0,
            Self::Other => 1,
            Self::Must => 2,
        }
    }

    /// The weight of a number that [`rank`](Self::rank) gave. A number that it did not give is [`Weight::Must`]: what
    /// is not understood is not thrown away.
    #[must_use]
    pub const fn from_rank(rank: i64) -> Self {
        match rank {
            0 => Self::Update,
            1 => Self::Other,
            _ => Self::Must,
        }
    }
}

/// The name of an event for good: `<session id>-<seq>` for what happens to a session, so that it is the same after a
/// crash; `<session id>-offline` for the end of the stream that this session brought online, which a start after a crash
/// may have to tell; `<start>-<number>` for the rest, where `start` names this life of the server.
#[must_use]
pub fn event_id(event: &Event, start: &str, number: u64) -> String {
    match event {
        Event::Session(change) => format!("{}-{}", change.facts.id, change.seq),
        Event::Stream(StreamEvent { what: StreamWhat::Offline { publisher, .. }, .. }) => {
            format!("{publisher}-offline")
        }
        Event::Stream(_) | Event::Attempt(_) | Event::Server(_) => format!("{start}-{number}"),
    }
}

/// What a sink wants to hear. An empty list of any kind asks for everything; an event that has no app or no kind is
/// left out where the filter asks for some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkFilter {
    events: Vec<&'static str>,
    apps: Vec<AppPattern>,
    kinds: Vec<Kind>,
}

/// A pattern that no event's name matches.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of an event; write one, as \"session.closed\", or a group, as \"session.*\"")]
pub struct UnknownEvent(pub String);

impl SinkFilter {
    /// A filter on names of events (`session.closed`, `session.*`, `*`), apps and kinds.
    ///
    /// # Errors
    /// The first pattern that fits no event.
    pub fn new<T: AsRef<str>>(events: &[T], apps: &[AppPattern], kinds: &[Kind]) -> Result<Self, UnknownEvent> {
        let mut names = Vec::new();
        for pattern in events {
            let pattern = pattern.as_ref();
            let before = names.len();
            names.extend(NAMES.into_iter().filter(|name| fits(pattern, name)));
            if names.len() == before {
                return Err(UnknownEvent(pattern.to_owned()));
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(Self { events: names, apps: apps.to_vec(), kinds: kinds.to_vec() })
    }

    /// Whether the sink wants to hear of it.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        let kind = match event {
            Event::Session(change) => Some(change.facts.kind),
            Event::Attempt(attempt) => attempt.kind,
            Event::Stream(_) | Event::Server(_) => None,
        };
        (self.events.is_empty() || self.events.contains(&event.name()))
            && (self.apps.is_empty()
                || event.stream_key().is_some_and(|key| self.apps.iter().any(|app| app.matches(key))))
            && (self.kinds.is_empty() || kind.is_some_and(|kind| self.kinds.contains(&kind)))
    }
}

/// Whether a name is what a pattern asks for: itself, its group with `.*`, or `*`.
fn fits(pattern: &str, name: &str) -> bool {
    let group =
        || pattern.strip_suffix(".*").zip(name.split_once('.')).is_some_and(|(wanted, (group, _))| wanted == group);
    pattern == name || pattern == "*" || group()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::event::{Attempt, ServerEvent, ServerWhat, Wanted};
    use crate::names::{ConnectionId, Name, Protocol, SessionId, ShardId, StreamKey};
    use crate::session::{Change, Counters, Facts, Reason};

    fn session(kind: Kind, app: &str, seq: u32, what: What) -> Event {
        let name = |text| Name::app(text).unwrap();
        let address = "192.0.2.1:5000".parse().unwrap();
        let facts = Facts {
            id: SessionId::new(1_795_155_521_000, [1; 10]),
            connection: ConnectionId::new(ShardId(0), 1),
            shard: ShardId(0),
            kind,
            protocol: Protocol::Rtmp,
            key: StreamKey::new(&name("default"), &name(app), &Name::stream("cam").unwrap()),
            asked_key: None,
            remote: address,
            local: address,
            opened_at: Instant::now(),
            opened_unix_ms: 1_795_155_521_000,
            query: None,
            user_agent: None,
            referrer: None,
            tc_url: None,
            swf_url: None,
            user: None,
            labels: Arc::default(),
        };
        Event::Session(Change { facts: Arc::new(facts), seq, at: Instant::now(), what })
    }

    fn offline() -> StreamWhat {
        let publisher = SessionId::new(1_795_155_521_000, [1; 10]);
        StreamWhat::Offline { publisher, reason: Reason::StreamEnded.into() }
    }

    fn stream(app: &str, what: StreamWhat) -> Event {
        let name = |text| Name::app(text).unwrap();
        let key = StreamKey::new(&name("default"), &name(app), &Name::stream("cam").unwrap());
        Event::Stream(StreamEvent { key, at: Instant::now(), what })
    }

    fn attempt(kind: Option<Kind>) -> Event {
        let remote = "192.0.2.1:5000".parse().unwrap();
        let reason = Reason::HandshakeTimeout.into();
        Event::Attempt(Attempt {
            protocol: Protocol::Rtmp,
            kind,
            remote,
            at: Instant::now(),
            reason,
            wanted: Wanted::default(),
        })
    }

    fn ready() -> Event {
        Event::Server(ServerEvent { at: Instant::now(), what: ServerWhat::Ready })
    }

    #[test]
    fn patterns_are_names_groups_or_everything() {
        let closed = || What::Closed(Reason::ClientDone.into(), Counters::default());
        for (patterns, wanted) in [
            (&[][..], [true, true, true, true]),
            (&["*"], [true, true, true, true]),
            (&["session.*"], [true, false, false, false]),
            (&["session.closed", "server.*"], [true, false, false, true]),
            (&["session.opened"], [false, false, false, false]),
            (&["stream.*", "attempt"], [false, true, true, false]),
        ] {
            let filter = SinkFilter::new(patterns, &[], &[]).unwrap();
            let events =
                [session(Kind::Play, "live", 2, closed()), stream("live", StreamWhat::Idle), attempt(None), ready()];
            assert_eq!(events.map(|event| filter.matches(&event)), wanted, "{patterns:?}");
        }
        for bad in ["", "session", "sessions.*", "session.close", "attempt.*", "*.*", "session.**"] {
            assert_eq!(SinkFilter::new(&[bad], &[], &[]), Err(UnknownEvent(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn apps_and_kinds_leave_out_what_has_none() {
        let filter = SinkFilter::new::<&str>(&[], &[AppPattern::parse("live").unwrap()], &[]).unwrap();
        assert!(filter.matches(&session(Kind::Play, "live", 1, What::Opened)));
        assert!(filter.matches(&stream("live", offline())));
        for other in
            [session(Kind::Play, "vod", 1, What::Opened), stream("vod", StreamWhat::Idle), attempt(None), ready()]
        {
            assert!(!filter.matches(&other), "{}", other.name());
        }
        let filter = SinkFilter::new::<&str>(&[], &[], &[Kind::Publish]).unwrap();
        assert!(filter.matches(&session(Kind::Publish, "live", 1, What::Opened)));
        assert!(filter.matches(&attempt(Some(Kind::Publish))));
        for other in [session(Kind::Play, "live", 1, What::Opened), stream("live", StreamWhat::Idle), attempt(None)] {
            assert!(!filter.matches(&other), "{}", other.name());
        }
    }

    #[test]
    fn beginnings_and_ends_must_be_told_and_reports_need_not() {
        let id = SessionId::new(1, [1; 10]);
        let online = StreamWhat::Online { publisher: id, shard: ShardId(0), resumed: false };
        let closed = What::Closed(Reason::ClientDone.into(), Counters::default());
        for (event, weight) in [
            (session(Kind::Play, "live", 1, What::Opened), Weight::Must),
            (session(Kind::Play, "live", 1, What::Started), Weight::Must),
            (session(Kind::Play, "live", 1, What::Denied(Reason::AuthDenied.into())), Weight::Must),
            (session(Kind::Play, "live", 1, closed), Weight::Must),
            (session(Kind::Play, "live", 1, What::Updated(Counters::default())), Weight::Update),
            (session(Kind::Play, "live", 1, What::Stalled), Weight::Other),
            (stream("live", online), Weight::Must),
            (stream("live", offline()), Weight::Must),
            (stream("live", StreamWhat::Idle), Weight::Other),
            (attempt(None), Weight::Other),
            (ready(), Weight::Other),
        ] {
            assert_eq!(Weight::of(&event), weight, "{}", event.name());
            assert!(NAMES.contains(&event.name()));
        }
        for weight in Weight::ALL {
            assert_eq!(Weight::from_rank(weight.rank().into()), weight);
        }
        assert_eq!(Weight::from_rank(9), Weight::Must);
    }

    #[test]
    fn an_event_of_a_session_has_the_same_id_in_every_life_of_the_server() {
        let event = session(Kind::Play, "live", 7, What::Stalled);
        let id = event_id(&event, "a", 1);
        assert_eq!(id, event_id(&event, "b", 2));
        assert!(id.ends_with("-7"), "{id}");
        assert_eq!(event_id(&ready(), "a", 1), "a-1");
        // The next life tells it where this one could not.
        let offline = stream("live", offline());
        assert_eq!(event_id(&offline, "a", 1), event_id(&offline, "b", 2));
    }

    #[test]
    fn a_sink_is_told_what_its_filter_lets_through() {
        struct Name;
        impl Encode for Name {
            fn encode(&self, event: &Event, number: u64, _: &WallAnchor) -> Option<Encoded> {
                let body = Bytes::from_static(event.name().as_bytes());
                Some(Encoded { event_id: event_id(event, "start", number), weight: Weight::of(event), body })
            }
        }
        let filter = SinkFilter::new::<&str>(&["server.*"], &[], &[]).unwrap();
        let sink = Sink { name: "billing".into(), filter, encoder: Box::new(Name) };
        let clock = WallAnchor::at(Instant::now(), Duration::ZERO);
        let told = sink.encode(&ready(), 3, &clock).unwrap();
        assert_eq!((told.event_id.as_str(), &told.body[..]), ("start-3", &b"server.ready"[..]));
        assert_eq!(sink.encode(&attempt(None), 4, &clock), None);
    }
}
