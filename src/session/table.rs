//! A shard's sessions: opened, moved through their life, closed exactly once.

use std::sync::Arc;
use std::time::Instant;

use crate::names::SessionId;
use crate::session::{CloseReason, Counters, Facts, SessionSample, State};

/// A session's place in the table; refers to nothing once the session is closed, even if the place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    index: u32,
    generation: u32,
}

/// One thing that happened to a session, in the order it happened.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whose.
    pub facts: Arc<Facts>,
    /// Counts from 1 within the session, without gaps.
    pub seq: u32,
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// First contact led to a request. Always first.
    Opened,
    /// The verdict was yes.
    Authorized,
    /// Media flows.
    Started,
    /// Periodic report.
    Updated(Counters),
    /// Bitrate or media changed.
    Altered,
    /// The cursor fell out of the window; frames skipped.
    Overflowed {
        /// Frames skipped.
        dropped_frames: u64,
    },
    /// Media stopped.
    Stalled,
    /// Media came back.
    Recovered,
    /// The verdict was no; `Closed` follows.
    Denied(CloseReason),
    /// The end, with the final totals. Always last.
    Closed(CloseReason, Counters),
}

/// The table.
#[derive(Default)]
pub struct Table(());

impl Table {
    /// Opens a session; reports [`What::Opened`].
    pub fn open(&mut self, _now: Instant, _facts: Facts) -> SessionKey {
        todo!("H3")
    }

    /// Moves a session; what the life-cycle table calls a repeat reports nothing, what it calls illegal
    /// reports nothing, is counted in [`illegal`](Self::illegal) and returns false.
    pub fn record(&mut self, _now: Instant, _key: SessionKey, _what: What) -> bool {
        todo!("H3")
    }

    /// Closes a session with its final counters; later calls for the same key do nothing.
    pub fn close(&mut self, _now: Instant, _key: SessionKey, _reason: CloseReason) {
        todo!("H3")
    }

    /// The counters, for the one writer.
    pub fn counters_mut(&mut self, _key: SessionKey) -> Option<&mut Counters> {
        todo!("H3")
    }

    /// Sets what waits for a player right now, and its peak.
    pub fn set_queue(&mut self, _key: SessionKey, _bytes: u64) {
        todo!("H3")
    }

    /// The facts.
    #[must_use]
    pub fn facts(&self, _key: SessionKey) -> Option<&Arc<Facts>> {
        todo!("H3")
    }

    /// The state.
    #[must_use]
    pub fn state(&self, _key: SessionKey) -> Option<State> {
        todo!("H3")
    }

    /// By its public id.
    #[must_use]
    pub fn find(&self, _id: SessionId) -> Option<SessionKey> {
        todo!("H3")
    }

    /// Sessions open now.
    #[must_use]
    pub fn len(&self) -> usize {
        todo!("H3")
    }

    /// True without sessions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next change, in order; to be drained after every step.
    pub fn poll_change(&mut self) -> Option<Change> {
        todo!("H3")
    }

    /// Appends a sample of every session whose numbers changed since the last call.
    pub fn sample_changed(&mut self, _out: &mut Vec<SessionSample>) {
        todo!("H3")
    }

    /// Triggers that the life-cycle forbids, counted; each is a defect of ours.
    #[must_use]
    pub fn illegal(&self) -> u64 {
        todo!("H3")
    }
}
