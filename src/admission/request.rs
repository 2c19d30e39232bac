//! The question and the answer.

use std::net::SocketAddr;

use crate::names::{Kind, Protocol, StreamKey};
use crate::session::{CloseReason, Facts};

/// Who asks for what.
#[derive(Clone, Debug)]
pub struct Request {
    /// What they want to do.
    pub kind: Kind,
    /// How they speak.
    pub protocol: Protocol,
    /// On which stream.
    pub key: StreamKey,
    /// From where.
    pub remote: SocketAddr,
    /// To where: our end, by which a rule knows the listener.
    pub local: SocketAddr,
    /// The query string, where tokens travel.
    pub query: Option<Box<str>>,
}

impl Request {
    /// The question that a session is the answer to, with the stream that the peer asked for.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        Self {
            kind: facts.kind,
            protocol: facts.protocol,
            key: facts.asked().clone(),
            remote: facts.remote,
            local: facts.local,
            query: facts.query.clone(),
        }
    }
}

/// A question that is still open; its answer quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They may.
    Allow,
    /// They may not, and why.
    Deny(CloseReason),
    /// A shard cannot say: tokens, hooks or limits hold for this app and kind, and [`crate::admission::Desk`] knows
    /// those.
    Ask,
}
