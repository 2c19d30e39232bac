//! What goes into the ledger, and what of it is still to be told.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::admission::Whom;
use crate::event::{Event, Weight};
use crate::ledger::{Totals, store};
use crate::names::{Kind, Protocol, SessionId};
use crate::session::{CloseReason, Reason};
use crate::stdx::words;

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

/// Sums of finished sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Sessions that had started.
    pub sessions: u64,
    /// Bytes received from those.
    pub rx_bytes: u64,
    /// Bytes sent to those.
    pub tx_bytes: u64,
    /// All sessions, started or not; attempts, where those are counted.
    pub ended: u64,
}

/// What sums are kept by: collector, kind (empty for attempts), reason and detail.
pub type SumKey = [Cow<'static, str>; 4];

/// What sessions of a kind, or attempts, that ended for this reason are summed by.
pub fn sum_key(protocol: Protocol, kind: Option<Kind>, CloseReason { reason, detail }: CloseReason) -> SumKey {
    [protocol.collector(), kind.map_or("", Kind::as_str), reason.as_str(), detail].map(Cow::Borrowed)
}

/// What earlier lives of the server finished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// Sessions that had started, per collector and kind.
    pub totals: Totals,
    /// All sessions, by why they ended, where that is known.
    pub reasons: BTreeMap<(String, Kind, CloseReason), u64>,
    /// All sessions, per collector.
    pub ended: BTreeMap<String, u64>,
    /// Attempts, by why they were refused.
    pub attempts: BTreeMap<(String, CloseReason), u64>,
}

impl Earlier {
    /// Of what is on record. What this version does not know of is left out where it would have to be named.
    pub(super) fn new(sums: &BTreeMap<SumKey, Total>) -> Self {
        let mut earlier = Self::default();
        for ([collector, kind, reason, detail], total) in sums {
            let collector = || (**collector).to_owned();
            let reason = Reason::ALL.iter().find(|known| known.as_str() == reason);
            let reason = reason.and_then(|reason| Some(CloseReason::with(*reason, words::keep(detail)?)));
            if kind.is_empty() {
                if let Some(reason) = reason {
                    *earlier.attempts.entry((collector(), reason)).or_default() += total.ended;
                }
                continue;
            }
            *earlier.ended.entry(collector()).or_default() += total.ended;
            let Some(kind) = store::kind(kind) else { continue };
            if total.sessions > 0 {
                store::add(earlier.totals.entry((collector(), kind)).or_default(), *total);
            }
            if let Some(reason) = reason {
                *earlier.reasons.entry((collector(), kind, reason)).or_default() += total.ended;
            }
        }
        earlier
    }
}
