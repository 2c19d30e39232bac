//! Where every question ends that a shard cannot answer: one place for all shards, so that limits hold exactly.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::admission::{Answer, Gate, Grant, HookRule, Settings, SettingsError, Verdict};
use crate::names::{SessionId, StreamKey};
use crate::session::{CloseReason, Facts};
use crate::stdx::clock::WallAnchor;

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

/// What has been measured, in bits a second; 0 where nothing has been.
pub trait Measured {
    /// What a stream's publisher sends.
    fn stream_bps(&self, key: &StreamKey) -> u64;
    /// What players are sent.
    fn egress_bps(&self, scope: EgressScope<'_>) -> u64;
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
    /// Ask a back end; [`Desk::handle_answer`] takes what it says, and in any case something.
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
    /// Close a session that has been admitted; [`Desk::handle_closed`] is told when it is.
    End {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CloseReason,
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
}

/// See the module.
pub struct Desk {
    counts: Counts,
    actions: VecDeque<Action>,
}

impl Desk {
    /// A desk with nothing on it. `gate` is the one that the shards have, `hooks` the configured hooks in their order,
    /// `wall` says what time it is for tokens.
    ///
    /// # Errors
    /// Settings that cannot be obeyed.
    pub fn new(
        settings: &Settings,
        hooks: Vec<HookRule>,
        gate: Arc<Gate>,
        wall: WallAnchor,
    ) -> Result<Self, SettingsError> {
        let _ = (hooks, gate, wall);
        settings.check()?;
        Ok(Self { counts: Counts::default(), actions: VecDeque::new() })
    }

    /// A session asks to be admitted; a [`Verdict`](Action::Verdict) for `question` follows, now or later.
    pub fn handle_ask(&mut self, now: Instant, question: u64, facts: Arc<Facts>, measured: &dyn Measured) {
        let _ = (now, measured);
        self.actions.push_back(Action::Verdict { question, verdict: Ok(Box::new(Grant::plain(facts.key.clone()))) });
    }

    /// A back end has answered, or has failed to. Too late, or twice, it changes nothing.
    pub fn handle_answer(&mut self, now: Instant, id: AskId, answer: Answer, measured: &dyn Measured) {
        let _ = (now, id, answer, measured);
    }

    /// A session has ended, whether admitted, refused or still waiting. Said twice, it changes nothing.
    pub fn handle_closed(&mut self, now: Instant, session: SessionId, measured: &dyn Measured) {
        let _ = (now, session, measured);
    }

    /// What a publisher sends, in bits a second, since the last time this was said of it. To be called at every report.
    pub fn handle_rate(&mut self, now: Instant, session: SessionId, rx_bps: u64) {
        let _ = (now, session, rx_bps);
    }

    /// Does what is due; see [`next_due`](Self::next_due).
    pub fn handle_timeout(&mut self, now: Instant, measured: &dyn Measured) {
        let _ = (now, measured);
    }

    /// The wall clock was found to have moved: expiries are judged by the new one, durations do not change.
    pub fn handle_clock(&mut self, now: Instant, wall: WallAnchor) {
        let _ = (now, wall);
    }

    /// A key set for the rule `index` of `[[admission.jwt]]`: the text of a JSON Web Key Set (RFC 7517). Keys of
    /// families that we do not know are left out. Returns how many keys it has.
    ///
    /// # Errors
    /// When the text is no key set or holds no usable key; what was there before stays.
    pub fn set_jwks(&mut self, index: usize, text: &str) -> Result<usize, &'static str> {
        let _ = (index, text);
        Ok(0)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        None
    }

    /// The next thing to do; to be drained after every call.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What has been decided so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}
