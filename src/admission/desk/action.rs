//! What a desk is told by, what it wants done, and what it tells of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admission::Verdict;
use crate::names::{SessionId, StreamKey};
use crate::session::{CloseReason, Facts};

/// A question put to a back end; its answer quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AskId(pub u64);

/// Why a back end is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// A session wants to begin.
    Open,
    /// It runs, and it is time to ask again.
    Recheck,
}

/// Whose egress is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressScope<'a> {
    /// All players of one stream.
    Stream(&'a StreamKey),
    /// All players of one app, whose vhost and name these are.
    App(&'a str, &'a str),
    /// All players.
    Server,
}

/// What the server knows: what has been measured, in bits a second and 0 where nothing has been, and who publishes.
pub trait Measured {
    /// What a stream's publisher sends.
    fn stream_bps(&self, key: &StreamKey) -> u64;
    /// What players are sent, as of a moment ago: whoever came since is counted by what is expected of them, until
    /// [`Desk::handle_counted`](super::Desk::handle_counted) says that they are in it.
    fn egress_bps(&self, scope: EgressScope<'_>) -> u64;
    /// True when a publisher with these facts is going to be refused because of who holds the stream. Nobody is ended to
    /// make room for such a one.
    fn refuses_publisher(&self, _facts: &Facts) -> bool {
        false
    }
}

/// What to do next.
#[derive(Debug)]
pub enum Action {
    /// Answer a question. A yes to a publisher is a yes to the peer; who holds the stream is the registry's question,
    /// and comes after.
    Verdict {
        /// What was asked.
        question: u64,
        /// The answer.
        verdict: Verdict,
    },
    /// Ask a back end; [`Desk::handle_answer`](super::Desk::handle_answer) takes what it says, and in any case something.
    Ask {
        /// Quoted in the answer.
        id: AskId,
        /// Which of the configured hooks.
        hook: usize,
        /// About whom.
        facts: Arc<Facts>,
        /// Why.
        why: Why,
    },
    /// Close a session that has been admitted; [`Desk::handle_closed`](super::Desk::handle_closed) is told when it is.
    End {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CloseReason,
        /// The back end's own words for the peer's user.
        text: Option<Box<str>>,
    },
    /// Something worth knowing, for the log, metrics and throttles.
    Note {
        /// About whom.
        facts: Arc<Facts>,
        /// What.
        note: Note,
    },
}

/// Something worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A token was wrong or missing, or a back end said no: the source of `facts` may be throttled.
    AuthFailed(CloseReason),
    /// A publisher has sent more than it may for 10 s; at 60 s it is closed.
    BitrateHigh {
        /// What it sends.
        bps: u64,
        /// What it may.
        max: u64,
    },
    /// A back end wants to send a peer to a host that `admission.redirect_hosts` does not name.
    RedirectRefused,
    /// A token names a key that the rule's key set does not have: it may be time to read it again. At most once in
    /// 10 s for each rule.
    KeyUnknown {
        /// The index of the rule in `[[admission.jwt]]`.
        rule: usize,
    },
}

/// What has been decided so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions that came.
    pub questions: u64,
    /// Of those, admitted.
    pub allowed: u64,
    /// Of those, refused, by reason.
    pub refused: BTreeMap<CloseReason, u64>,
    /// Of those, left without an answer because the session ended first.
    pub gone: u64,
    /// Sessions ended, by reason.
    pub ended: BTreeMap<CloseReason, u64>,
    /// Questions put to back ends.
    pub asked: u64,
    /// Questions that took the answer of one already under way.
    pub shared: u64,
    /// Questions answered from memory.
    pub cached: u64,
    /// Questions answered from memory because the back end failed.
    pub stale: u64,
    /// Players let in because the back end failed and the hook says so.
    pub let_in: u64,
    /// Failures of back ends, by their word.
    pub failures: BTreeMap<&'static str, u64>,
    /// Refusals that tell the peer where to go instead, and those that do not because it may not be sent there.
    pub redirects: (u64, u64),
}

impl Counts {
    /// Questions that wait for their answer.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.questions.saturating_sub(self.allowed + self.refused.values().sum::<u64>() + self.gone)
    }
}

/// What a desk holds, for metrics and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Questions without a verdict.
    pub waiting: usize,
    /// Questions put to back ends.
    pub asks: usize,
    /// Sessions that are counted or watched.
    pub sessions: usize,
    /// Instants at which something is due.
    pub timers: usize,
    /// Answers remembered.
    pub cached: usize,
    /// True when no limit counts anybody.
    pub seats_are_free: bool,
}
