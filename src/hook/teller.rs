//! What is told in which order.

use bytes::Bytes;

use crate::event::Weight;
use crate::names::SessionId;

/// One event that is to be told to one receiver, as its spool keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Its place in the spool; grows in the order of recording.
    pub id: i64,
    /// Names the event for good.
    pub event_id: Box<str>,
    /// Whose events are told in order. Parcels of none are told in any order.
    pub session: Option<SessionId>,
    /// What may be left out.
    pub weight: Weight,
    /// What is told.
    pub body: Bytes,
}
