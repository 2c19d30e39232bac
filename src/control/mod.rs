//! The one place that sees all shards: commands, collectors, totals, the read model.
//!
//! Control is one thread with a tokio current-thread runtime. Everything the API may want is a method of
//! [`Handle`]; reading takes a lock that only this thread ever takes, so it never waits.

pub mod filter;
pub mod settings;
pub mod view;

pub use filter::Filter;
pub use settings::Settings;
pub use view::View;

use std::time::Duration;

use crate::event::{Cursor, Recorded};
use crate::names::SessionId;
use crate::session::CloseReason;

/// What the API, the metrics and the command line hold. Cheap to clone.
#[derive(Clone)]
pub struct Handle(());

/// Ending sessions.
#[derive(Clone, Debug)]
pub struct Terminate {
    /// Which.
    pub filter: Filter,
    /// Why; `kicked`, or `banned` when `ban_for` is set, unless an adapter says otherwise.
    pub reason: CloseReason,
    /// How long the same peers are refused on the same stream in the same role.
    pub ban_for: Option<Duration>,
    /// Only say which.
    pub dry_run: bool,
}

/// What came of [`Terminate`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terminated {
    /// Sessions that matched, oldest first (the first 1,000 are named).
    pub ids: Vec<SessionId>,
    /// How many matched.
    pub matched: usize,
    /// How many were closed (0 for a dry run; the rest had ended by themselves).
    pub closed: usize,
    /// Bans made.
    pub banned: usize,
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A shard did not answer within a second.
    #[error("a shard did not answer in time")]
    Timeout,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

impl Handle {
    /// Reads the model. Keep `read` short: control does nothing else meanwhile.
    pub fn view<R>(&self, _read: impl FnOnce(&View) -> R) -> R {
        todo!("H5")
    }

    /// Ends sessions. When it returns, every shard has closed its part and knows the bans.
    ///
    /// # Errors
    /// When a shard did not answer or the server is stopping.
    pub async fn terminate(&self, _what: Terminate) -> Result<Terminated, CommandError> {
        todo!("H5")
    }

    /// Begins a drain: no new sessions, goodbyes spread until `over` has passed, then exit.
    pub fn drain(&self, _over: Duration) {
        todo!("H5")
    }

    /// A cursor at the newest event, or just after event `number` for a consumer that resumes.
    #[must_use]
    pub fn subscribe(&self, _after: Option<u64>) -> Cursor {
        todo!("H5")
    }

    /// The next event and how many were missed before it; waits for one.
    pub async fn next_event(&self, _cursor: &mut Cursor) -> (u64, Recorded) {
        todo!("H5")
    }
}
