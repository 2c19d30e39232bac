//! What does not change about a session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::names::{ConnectionId, Kind, Protocol, SessionId, ShardId, StreamKey};

/// Everything known about a session. Shared as an `Arc`, never edited: what a verdict adds (stream, user, labels)
/// makes new facts, which are the session's from `authorized` on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The session's own identity.
    pub id: SessionId,
    /// The connection that opened it.
    pub connection: ConnectionId,
    /// The shard that owns it.
    pub shard: ShardId,
    /// What it is.
    pub kind: Kind,
    /// How it is carried.
    pub protocol: Protocol,
    /// The stream it is on.
    pub key: StreamKey,
    /// The stream that the peer asked for, where a verdict gave it another; `None` where that is the same.
    pub asked_key: Option<StreamKey>,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// When first contact was made (the accept of its connection, or the end of that connection's
    /// previous session).
    pub opened_at: Instant,
    /// The same on the wall clock, in milliseconds since the Unix epoch; a label.
    pub opened_unix_ms: u64,
    /// The query string that came with app and stream name, without `?`: where tokens travel.
    pub query: Option<Box<str>>,
    /// The peer's software as it names itself (RTMP `flashVer`, HTTP `User-Agent`).
    pub user_agent: Option<Box<str>>,
    /// The page that embeds the player (RTMP `pageUrl`, HTTP `Referer`).
    pub referrer: Option<Box<str>>,
    /// RTMP `tcUrl`, as sent.
    pub tc_url: Option<Box<str>>,
    /// RTMP `swfUrl`, as sent.
    pub swf_url: Option<Box<str>>,
    /// Who the peer is, as the admission decision said.
    pub user: Option<Box<str>>,
    /// What the back end attached to the session: at most 16 pairs of at most 64 bytes a side.
    pub labels: Labels,
}

/// Names and values that a back end attaches to a session, in its order. Cheap to clone.
pub type Labels = Arc<[(Box<str>, Box<str>)]>;

/// What a verdict says of a session's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The stream it is on from now on: the one it asked for, unless the verdict renamed it.
    pub key: StreamKey,
    /// Who the peer is.
    pub user: Option<Box<str>>,
    /// What the back end attached.
    pub labels: Labels,
}

impl Facts {
    /// These facts with what a verdict said.
    #[must_use]
    pub fn identified(&self, identity: Identity) -> Self {
        let Identity { key, user, labels } = identity;
        let asked_key = Some(self.asked()).filter(|asked| **asked != key).cloned();
        Self { key, asked_key, user, labels, ..self.clone() }
    }

    /// The stream that the peer asked for: what it will ask for when it comes again.
    #[must_use]
    pub fn asked(&self) -> &StreamKey {
        self.asked_key.as_ref().unwrap_or(&self.key)
    }
}
