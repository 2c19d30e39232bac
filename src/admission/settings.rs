//! What admission obeys.

use serde::{Deserialize, Serialize};

/// Who may do a thing when nothing else decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Anyone.
    Open,
    /// Only peers on a loopback address.
    Loopback,
    /// Nobody.
    #[default]
    Deny,
}

/// `[admission]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Who may publish. A server without a configuration file runs the development profile, which is `open`
    /// on listeners that are bound to loopback; a configuration file must say so itself.
    pub publish: Access,
    /// Who may play.
    pub play: Access,
    /// What a second publisher of a busy stream meets.
    pub duplicate_publish: DuplicatePublish,
    /// Bans held at once; at the limit the one that ends first leaves.
    pub bans_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            publish: Access::Deny,
            play: Access::Open,
            duplicate_publish: DuplicatePublish::default(),
            bans_max: 100_000,
        }
    }
}

/// What a second publisher of a busy stream meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DuplicatePublish {
    /// The newcomer is refused.
    Reject,
    /// The newcomer takes over if it is the same publisher come back (same user where known, else same
    /// address and same query), and is refused otherwise.
    #[default]
    TakeoverSameIdentity,
    /// The newcomer takes over.
    Takeover,
}
