//! What happened: one enum, one ordered bus.

pub mod bus;

pub use bus::{Bus, Cursor, Recorded};

use std::time::Instant;

use crate::names::{Kind, Protocol, SessionId, ShardId, StreamKey};
use crate::session::{Change, CloseReason};

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
    /// The resume window passed.
    Offline,
}

/// A connection or request that was refused before it became a session.
#[derive(Clone, Copy, Debug)]
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
}
