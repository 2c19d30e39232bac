//! What does not change about a session.

use std::net::SocketAddr;
use std::time::Instant;

use crate::names::{ConnectionId, Kind, Protocol, SessionId, ShardId, StreamKey};

/// Everything known about a session at the moment it opened. Shared as an `Arc`, never edited.
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
}
