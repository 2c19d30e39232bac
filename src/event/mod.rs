//! What happened: one enum, one ordered bus, and what those who are told of it agree on.

pub mod bus;
pub mod sink;

pub use bus::{Bus, Cursor, Recorded};
pub use sink::{Encode, Encoded, Sink, SinkFilter, Weight, event_id};

use std::time::Instant;

use crate::admission::LoadState;
use crate::names::{ConnectionId, Kind, Protocol, SessionId, ShardId, StreamKey};
use crate::session::{Change, CloseReason, What};

/// Everything that can happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// To a session.
    Session(Change),
    /// To a stream.
    Stream(StreamEvent),
    /// A connection that never became a session.
    Attempt(Attempt),
    /// To the server.
    Server(ServerEvent),
}

impl Event {
    /// The type of the event as logs, streams and hooks name it: `session.opened`, `stream.online`, `attempt`,
    /// `server.ready`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Session(change) => match change.what {
                What::Opened => "session.opened",
                What::Authorized => "session.authorized",
                What::Started => "session.started",
                What::Updated(_) => "session.updated",
                What::Altered => "session.altered",
                What::Overflowed { .. } => "session.overflowed",
                What::Stalled => "session.stalled",
                What::Recovered => "session.recovered",
                What::Denied(_) => "session.denied",
                What::Closed(..) => "session.closed",
            },
            Self::Stream(event) => match event.what {
                StreamWhat::Online { .. } => "stream.online",
                StreamWhat::Idle => "stream.idle",
                StreamWhat::Offline { .. } => "stream.offline",
            },
            Self::Attempt(_) => "attempt",
            Self::Server(event) => match event.what {
                ServerWhat::Ready => "server.ready",
                ServerWhat::Draining => "server.draining",
                ServerWhat::Load(_) => "server.load_state",
                ServerWhat::Ledger(_) => "server.ledger",
                ServerWhat::ClockStep { .. } => "server.clock_step",
            },
        }
    }

    /// When it happened, which may be a little before it was recorded.
    #[must_use]
    pub fn at(&self) -> Instant {
        match self {
            Self::Session(change) => change.at,
            Self::Stream(event) => event.at,
            Self::Attempt(attempt) => attempt.at,
            Self::Server(event) => event.at,
        }
    }

    /// The session it happened to, or the publisher that brought a stream online and was its last.
    #[must_use]
    pub fn session_id(&self) -> Option<SessionId> {
        match self {
            Self::Session(change) => Some(change.facts.id),
            Self::Stream(StreamEvent {
                what: StreamWhat::Online { publisher, .. } | StreamWhat::Offline { publisher, .. },
                ..
            }) => Some(*publisher),
            Self::Stream(_) | Self::Attempt(_) | Self::Server(_) => None,
        }
    }

    /// The stream it concerns.
    #[must_use]
    pub fn stream_key(&self) -> Option<&StreamKey> {
        match self {
            Self::Session(change) => Some(&change.facts.key),
            Self::Stream(event) => Some(&event.key),
            Self::Attempt(_) | Self::Server(_) => None,
        }
    }
}

/// What happened to a stream.
#[derive(Clone, Debug)]
pub struct StreamEvent {
    /// Which.
    pub key: StreamKey,
    /// When.
    pub at: Instant,
    /// What.
    pub what: StreamWhat,
}

/// See [`StreamEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamWhat {
    /// A publisher began; also when it came back within the resume window (`resumed`).
    Online {
        /// Its session.
        publisher: SessionId,
        /// Where.
        shard: ShardId,
        /// Viewers were kept from before.
        resumed: bool,
    },
    /// The publisher left; the resume window runs.
    Idle,
    /// It is over: the resume window passed, the server ends, or an earlier life of it died.
    Offline {
        /// The session that brought it online last.
        publisher: SessionId,
        /// Why.
        reason: CloseReason,
    },
}

/// A connection or request that was refused before it became a session.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// How it spoke.
    pub protocol: Protocol,
    /// What it wanted, where that was known.
    pub kind: Option<Kind>,
    /// From where.
    pub remote: std::net::SocketAddr,
    /// When.
    pub at: Instant,
    /// Why it ended.
    pub reason: CloseReason,
    /// As far as that was known, for the log.
    pub wanted: Wanted,
}

/// Where an [`Attempt`] went to, as far as that was known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The connection, where there is one.
    pub connection: Option<ConnectionId>,
    /// The app that it named.
    pub app: Option<Box<str>>,
    /// The stream that it named.
    pub stream: Option<Box<str>>,
}

/// What happened to the server.
#[derive(Clone, Copy, Debug)]
pub struct ServerEvent {
    /// When.
    pub at: Instant,
    /// What.
    pub what: ServerWhat,
}

/// See [`ServerEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerWhat {
    /// All listeners are armed.
    Ready,
    /// The server stops taking sessions and ends those it has.
    Draining,
    /// It is harder pressed than before, or less.
    Load(LoadState),
    /// Records reach the disk again (true), or have to wait in memory (false).
    Ledger(bool),
    /// The wall clock was set, or ran away. The expiry of tokens and the ends of bans on disk follow it; durations do not,
    /// and labels keep to the clock of the start, so that their order stays that of what happened.
    ClockStep {
        /// By how many milliseconds it is ahead of where it should be.
        by_ms: i64,
    },
}

impl ServerWhat {
    /// What the server, or the part of it that the event is about, has become.
    #[must_use]
    pub fn state(&self) -> Option<&'static str> {
        match self {
            Self::Load(state) => Some(state.as_str()),
            Self::Ledger(true) => Some("ok"),
            Self::Ledger(false) => Some("degraded"),
            Self::Ready | Self::Draining | Self::ClockStep { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Name;

    #[test]
    fn an_event_says_its_type_its_time_and_whom_it_concerns() {
        let at = Instant::now();
        let key =
            StreamKey::new(&Name::app("default").unwrap(), &Name::app("live").unwrap(), &Name::stream("cam").unwrap());
        let publisher = SessionId::new(1_795_155_521_000, [1; 10]);
        let online = StreamWhat::Online { publisher, shard: ShardId(0), resumed: false };
        let stream = |what| Event::Stream(StreamEvent { key: key.clone(), at, what });
        let attempt = Event::Attempt(Attempt {
            protocol: Protocol::Rtmp,
            kind: None,
            remote: "192.0.2.1:5000".parse().unwrap(),
            at,
            reason: crate::session::Reason::HandshakeTimeout.into(),
            wanted: Wanted::default(),
        });
        let server = |what| Event::Server(ServerEvent { at, what });
        for (event, name, session, has_stream) in [
            (stream(online), "stream.online", Some(publisher), true),
            (stream(StreamWhat::Idle), "stream.idle", None, true),
            (
                stream(StreamWhat::Offline { publisher, reason: crate::session::Reason::StreamEnded.into() }),
                "stream.offline",
                Some(publisher),
                true,
            ),
            (attempt, "attempt", None, false),
            (server(ServerWhat::Ready), "server.ready", None, false),
            (server(ServerWhat::Draining), "server.draining", None, false),
            (server(ServerWhat::Load(LoadState::Red)), "server.load_state", None, false),
            (server(ServerWhat::Ledger(false)), "server.ledger", None, false),
            (server(ServerWhat::ClockStep { by_ms: -3_600_000 }), "server.clock_step", None, false),
        ] {
            assert_eq!(event.name(), name);
            assert_eq!(event.at(), at, "{name}");
            assert_eq!(event.session_id(), session, "{name}");
            assert_eq!(event.stream_key(), has_stream.then_some(&key), "{name}");
        }
    }
}
