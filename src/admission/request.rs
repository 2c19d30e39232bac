//! The question and the answer.

use std::net::SocketAddr;

use crate::names::{Kind, Protocol, StreamKey};
use crate::session::CloseReason;

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
    /// The query string, where tokens travel.
    pub query: Option<Box<str>>,
}

/// A question that is still open; its answer quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They may.
    Allow,
    /// More is to be asked than a shard knows: control decides.
    Ask,
    /// They may not, and why.
    Deny(CloseReason),
}
