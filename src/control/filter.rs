//! The one filter grammar: fields with alternatives; comma = or, several fields = and.

use crate::control::view::SessionRow;
use crate::names::{Kind, Protocol, SessionId};
use crate::session::State;

/// Which sessions. An empty list means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `id=`
    pub ids: Vec<SessionId>,
    /// `kind=`
    pub kinds: Vec<Kind>,
    /// `protocol=`
    pub protocols: Vec<Protocol>,
    /// `vhost=`
    pub vhosts: Vec<String>,
    /// `app=`
    pub apps: Vec<String>,
    /// `stream=`: the stream's name, or `app/stream`, or `vhost/app/stream`.
    pub streams: Vec<String>,
    /// `user=`
    pub users: Vec<String>,
    /// `remote=`: an address, an address with port, or a CIDR block.
    pub remotes: Vec<String>,
    /// `state=`
    pub states: Vec<State>,
}

/// Why a filter was refused: the field and one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FilterError {
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// The most bytes of a filter.
pub const FILTER_BYTES_MAX: usize = 1_024;
/// The most terms (alternatives over all fields together, ids not counted).
pub const FILTER_TERMS_MAX: usize = 8;

impl Filter {
    /// Adds `field=value`, where value may be several alternatives with commas.
    ///
    /// # Errors
    /// Unknown field, unreadable value, or too many terms.
    pub fn add(&mut self, _field: &str, _value: &str) -> Result<(), FilterError> {
        todo!("H5")
    }

    /// True without any condition.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// True when `row` meets every field.
    #[must_use]
    pub fn matches(&self, _row: &SessionRow) -> bool {
        todo!("H5")
    }
}
