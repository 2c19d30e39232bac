//! What goes into the ledger, and what of it is still to be told.

use std::sync::Arc;

use bytes::Bytes;

use crate::admission::Whom;
use crate::event::{Event, Weight};
use crate::names::SessionId;

/// One event for the ledger, with what its sinks are to be told of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The event's number on the bus. Entries come in the order of their numbers.
    pub number: u64,
    /// The event.
    pub event: Arc<Event>,
    /// What is committed together with it.
    pub tells: Vec<Tell>,
}

/// What one sink is to be told of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tell {
    /// The sink's name in the configuration.
    pub sink: Arc<str>,
    /// Names the event for ever, so that a receiver can tell a repeat from news. A second tell of the same sink and
    /// event is the same one.
    pub event_id: String,
    /// What becomes of it when there is too much.
    pub weight: Weight,
    /// Whose events are told in order.
    pub session: Option<SessionId>,
    /// As it will be sent.
    pub body: Bytes,
}

/// A tell on record that its sink has not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its place in the order of recording over all files; never given twice while the process lives.
    pub id: i64,
    /// See [`Tell::event_id`].
    pub event_id: Box<str>,
    /// See [`Tell::session`].
    pub session: Option<SessionId>,
    /// See [`Tell::weight`].
    pub weight: Weight,
    /// See [`Tell::body`].
    pub body: Bytes,
}

/// A ban that outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBan {
    /// Whom.
    pub whom: Whom,
    /// Until when, in milliseconds since the Unix epoch.
    pub until_unix_ms: u64,
}

/// Sums of finished sessions that had started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Sessions.
    pub sessions: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}
