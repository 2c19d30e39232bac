//! Asking back ends.

use std::sync::Arc;

pub use crate::admission::Why;
use crate::admission::{Answer, Failure};
use crate::hook::Settings;
use crate::session::{Counters, Facts};
use crate::stdx::clock::WallAnchor;

/// The back ends that are asked. One per process; clones are the same.
#[derive(Clone)]
pub struct Asks(Arc<()>);

impl Asks {
    /// Makes ready to ask. `node` is how this server names itself to back ends.
    ///
    /// # Errors
    /// When TLS cannot be set up, or a URL is none.
    pub fn new(_settings: &Settings, _node: &str, _wall: WallAnchor) -> Result<Self, StartError> {
        Ok(Self(Arc::new(())))
    }

    /// Asks the `hook`-th of `hook.ask`. Takes no longer than `hook.decide_timeout`.
    #[allow(clippy::unused_async)]
    pub async fn ask(&self, _hook: usize, _question: &Question) -> Answer {
        Answer::Failure(Failure::Connect)
    }
}

/// Why a back end cannot be spoken to at all.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who wants what.
    pub facts: Arc<Facts>,
    /// Its totals so far, while it runs.
    pub counters: Option<Counters>,
    /// Why it is asked.
    pub why: Why,
    /// When, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

