//! Identifiers everyone shares.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A session's identity: a UUIDv7, and the text by which logs, events and APIs name it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Uuid);

impl SessionId {
    /// An id whose leading bits are `unix_ms` and whose tail is `random` (RFC 9562 §5.7).
    #[must_use]
    pub fn new(unix_ms: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
    }

    /// Reads the textual form; anything that is not a UUID is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Only the hyphenated form is an id of ours: an id has one spelling.
        (text.len() == 36).then(|| Uuid::try_parse(text).ok().map(Self)).flatten()
    }

    /// The id of the sixteen bytes that [`as_u128`](Self::as_u128) gave.
    #[must_use]
    pub fn from_u128(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }

    /// The sixteen bytes, for use as a cursor or a hash key.
    #[must_use]
    pub fn as_u128(self) -> u128 {
        self.0.as_u128()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Which core a thing lives on; an index from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u16);

impl ShardId {
    /// As an index into a per-shard table.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One transport association: the shard in the upper 16 bits, a count of that shard below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// The `count`-th connection of `shard`.
    #[must_use]
    pub fn new(shard: ShardId, count: u64) -> Self {
        Self((u64::from(shard.0) << 48) | (count & 0xffff_ffff_ffff))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0 >> 48, self.0 & 0xffff_ffff_ffff)
    }
}

/// How a session is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// RTMP over TCP.
    Rtmp,
}

impl Protocol {
    /// Every protocol, in display order.
    pub const ALL: [Self; 1] = [Self::Rtmp];

    /// The name used in APIs, logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
        }
    }

    /// The collector that sums sessions of this protocol.
    #[must_use]
    pub fn collector(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
        }
    }
}

/// The part a peer plays on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Media flows from the peer to us.
    Source,
    /// Media flows from us to the peer.
    Sink,
}

/// Role × initiator: what a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The peer came to us and sends.
    Publish,
    /// The peer came to us and receives.
    Play,
    /// We went to the peer and receive from it.
    Ingest,
    /// We went to the peer and send to it.
    Push,
}

impl Kind {
    /// Every kind, in display order.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Play, Self::Ingest, Self::Push];

    /// True when media flows from the peer to us.
    #[must_use]
    pub fn is_source(self) -> bool {
        self.role() == Role::Source
    }

    /// The direction of media.
    #[must_use]
    pub fn role(self) -> Role {
        match self {
            Self::Publish | Self::Ingest => Role::Source,
            Self::Play | Self::Push => Role::Sink,
        }
    }

    /// The name used in APIs, logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Play => "play",
            Self::Ingest => "ingest",
            Self::Push => "push",
        }
    }
}

/// The vhost of a stream when the peer names none.
pub const DEFAULT_VHOST: &str = "default";

/// The full name of a stream: `vhost/app/stream`. Cheap to clone and to send to another core.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey(Arc<KeyParts>);

#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct KeyParts {
    vhost: Box<str>,
    app: Box<str>,
    stream: Box<str>,
}

impl StreamKey {
    /// Joins three validated names.
    #[must_use]
    pub fn new(vhost: &Name, app: &Name, stream: &Name) -> Self {
        Self(Arc::new(KeyParts {
            vhost: vhost.as_str().into(),
            app: app.as_str().into(),
            stream: stream.as_str().into(),
        }))
    }

    /// The virtual host, `default` when the peer named none.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.0.vhost
    }

    /// The application.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.0.app
    }

    /// The stream's name within its application.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.0.stream
    }
}

/// Whether `path` names this stream: as `stream`, `app/stream` or `vhost/app/stream`. Names may have slashes of their
/// own, so the parts are taken off from the end rather than split. No allocation: this runs once for each session
/// listed.
#[must_use]
pub fn is_path(path: &str, vhost: &str, app: &str, stream: &str) -> bool {
    let Some(rest) = path.strip_suffix(stream) else { return false };
    if rest.is_empty() {
        return true;
    }
    let Some(rest) = rest.strip_suffix('/').and_then(|rest| rest.strip_suffix(app)) else { return false };
    rest.is_empty() || rest.strip_suffix('/') == Some(vhost)
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.0.vhost, self.0.app, self.0.stream)
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The longest vhost or app, in bytes.
pub const APP_BYTES_MAX: usize = 256;
/// The longest stream name, in bytes.
pub const STREAM_BYTES_MAX: usize = 512;

/// A name that came from a peer and passed the one validator every protocol uses: before a name is
/// compared, stored, logged or put in a path it is one of these.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Box<str>);

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left of it.
    #[error("the name is empty")]
    Empty,
    /// Longer than its field may be.
    #[error("the name is longer than {limit} bytes")]
    TooLong {
        /// The field's limit in bytes.
        limit: usize,
    },
    /// A character no name may have: control, backslash, quotes, `?`, `#`, percent, bidi marks.
    #[error("the name has a character that no name may have")]
    BadCharacter,
    /// A path segment that is empty, `.` or `..`.
    #[error("the name has an empty, '.' or '..' segment")]
    BadSegment,
    /// A blank at either end.
    #[error("the name begins or ends with a blank")]
    Blank,
}

impl Name {
    /// Validates `text` as a vhost or app (slashes make hierarchical apps).
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn app(text: &str) -> Result<Self, NameError> {
        Self::parse(text, APP_BYTES_MAX)
    }

    /// Validates `text` as a stream name.
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn stream(text: &str) -> Result<Self, NameError> {
        Self::parse(text, STREAM_BYTES_MAX)
    }

    fn parse(text: &str, limit: usize) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > limit {
            return Err(NameError::TooLong { limit });
        }
        if text.chars().any(is_forbidden) {
            return Err(NameError::BadCharacter);
        }
        if text.trim() != text {
            return Err(NameError::Blank);
        }
        if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(NameError::BadSegment);
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Percent is refused rather than decoded: decoding happens once, in the protocol that defines it
/// (RTMP defines none), and a name that still carries an escape would be read twice.
fn is_forbidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\\' | '"' | '\'' | '<' | '>' | '`' | '?' | '#' | '%' | '|' | '^' | '{' | '}')
        // Bidirectional marks, zero-width characters, the byte-order mark, line separators: two names
        // that look alike must not be two streams.
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{061c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rt_49_hostile_names_are_refused() {
        for bad in [
            "..",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            "a\\b",
            "%2e%2e",
            "a\0b",
            "a\nb",
            " a",
            "a ",
            "a\u{202e}b",
            "a\u{7f}b",
            "a?b",
            "a#b",
            "./a",
        ] {
            assert!(Name::stream(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "cam-1_hd.main", "a/b", "ключ", "日本", "a b", "a=b&c", "user@host:1"] {
            assert!(Name::stream(good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn rt_50_name_at_limit_and_one_past_it() {
        assert!(Name::app(&"a".repeat(APP_BYTES_MAX)).is_ok());
        assert_eq!(Name::app(&"a".repeat(APP_BYTES_MAX + 1)), Err(NameError::TooLong { limit: APP_BYTES_MAX }));
        assert!(Name::stream(&"a".repeat(STREAM_BYTES_MAX)).is_ok());
        assert!(Name::stream(&"a".repeat(STREAM_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_session_id_has_one_spelling() {
        let id = SessionId::new(1_795_155_521_000, [7; 10]);
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        assert_eq!(SessionId::parse(&id.to_string().replace('-', "")), None);
        assert_eq!(SessionId::parse("../../etc/passwd"), None);
    }
}
