//! The answer to the question that goes beyond a shard: may this session, as whom, and for how long.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::names::StreamKey;
use crate::session::{CloseReason, Identity, Labels};

/// Yes with its terms, or why not.
pub type Verdict = Result<Box<Grant>, Box<Refusal>>;

/// What an admitted session may do, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The stream: the one asked for, or the one that the verdict put in its place.
    pub key: StreamKey,
    /// Who the peer is, where that is known.
    pub user: Option<Box<str>>,
    /// What the back end attached.
    pub labels: Labels,
    /// When the session must end: the token's own expiry, or the back end's word, whichever comes first.
    pub expires_at: Option<Instant>,
    /// How often the question is asked again while the session runs.
    pub recheck_every: Option<Duration>,
    /// The most that a publisher may send, in bits a second, measured over a minute.
    pub publish_bps_max: Option<u64>,
}

impl Grant {
    /// A yes to what was asked, without terms.
    #[must_use]
    pub fn plain(key: StreamKey) -> Self {
        Self {
            key,
            user: None,
            labels: Labels::default(),
            expires_at: None,
            recheck_every: None,
            publish_bps_max: None,
        }
    }

    /// The same peer is refused after all.
    #[must_use]
    pub fn refused(self, reason: CloseReason) -> Refusal {
        Refusal { user: self.user, labels: self.labels, ..Refusal::from(reason) }
    }

    /// What the session becomes.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { key: self.key.clone(), user: self.user.clone(), labels: Labels::clone(&self.labels) }
    }
}

/// Why not, and what to tell the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For the record.
    pub reason: CloseReason,
    /// The back end's own words for the peer's user; at most 256 bytes, free of control characters.
    pub text: Option<Box<str>>,
    /// Where the peer should go instead: a URL whose host the configuration allows.
    pub redirect: Option<Box<str>>,
    /// Who the peer is, as far as that was known by then: a limit refuses whom a token or a back end has named.
    pub user: Option<Box<str>>,
    /// What the back end attached by then.
    pub labels: Labels,
}

impl From<CloseReason> for Refusal {
    fn from(reason: CloseReason) -> Self {
        Self { reason, text: None, redirect: None, user: None, labels: Labels::default() }
    }
}

/// What a newcomer meets when a limit on sessions is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtLimit {
    /// The newcomer is refused.
    #[default]
    RejectNew,
    /// The oldest session under the limit is ended, and the newcomer is admitted when it is gone.
    EvictOldest,
}
