//! What a back end says when it is asked, as the rules need it: checked, bounded, and free of its wire form.

use std::time::Duration;

use crate::admission::AtLimit;
use crate::names::Name;
use crate::session::Labels;

/// What came of asking a back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// They may, on these terms.
    Allow(Box<Terms>),
    /// They may not.
    Deny {
        /// The back end's words for the peer's user; at most 256 bytes, free of control characters.
        text: Option<Box<str>>,
        /// Where the peer should go instead, as sent; [`crate::admission`] checks it against the allowed hosts.
        redirect: Option<Box<str>>,
        /// How long the same question need not be asked again.
        cache_for: Option<Duration>,
    },
    /// No usable answer. What follows is a matter of policy (`robustness.md` §8.1).
    Failure(Failure),
}

/// The terms of a yes. What is absent is left to the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Who the peer is.
    pub user: Option<Box<str>>,
    /// What to attach to the session.
    pub labels: Labels,
    /// Another app in place of the one asked for.
    pub app: Option<Name>,
    /// Another stream name in place of the one asked for.
    pub stream: Option<Name>,
    /// When the session must end, in milliseconds since the Unix epoch.
    pub expires_unix_ms: Option<u64>,
    /// How often to ask again while the session runs.
    pub recheck_every: Option<Duration>,
    /// How long the same question need not be asked again.
    pub cache_for: Option<Duration>,
    /// How many sessions the user may have at once; with 0 it is refused.
    pub sessions_max: Option<u32>,
    /// What happens at that limit.
    pub at_limit: Option<AtLimit>,
    /// The longest that the session may last.
    pub duration_max: Option<Duration>,
    /// The most that a publisher may send, in bits a second.
    pub publish_bps_max: Option<u64>,
}

/// Why there is no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing, or not all of it, within the time.
    Timeout,
    /// No connection: refused, reset, no such name, TLS.
    Connect,
    /// A status that is neither yes nor no.
    Status(u16),
    /// Bytes that are no answer; a fixed word for the rule they broke.
    Malformed(&'static str),
    /// Not asked: the back end has failed too often just now.
    BreakerOpen,
    /// Not asked: too many questions wait already.
    QueueFull,
}

impl Failure {
    /// A fixed word for logs, metrics and close details.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Status(_) => "status",
            Self::Malformed(_) => "malformed",
            Self::BreakerOpen => "breaker_open",
            Self::QueueFull => "queue_full",
        }
    }
}
