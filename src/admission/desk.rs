//! Where every question ends that a shard cannot answer: one place for all shards, so that limits hold exactly.
//!
//! A pure state machine: it is told what shards and back ends say and what time it is, and answers with [`Action`]s.
//! A question goes through the same stations in the same order, and stops at the first that refuses:
//!
//! 1. the gate: address rules and, where nothing else decides, the profile;
//! 2. tokens: keys, signed URLs, JSON web tokens. Where rules for them hold, a wrong token is a refusal;
//! 3. the hook of the app, if a valid token wants it or no token was brought and none is needed before it;
//! 4. limits. At one of them the newcomer is refused, or waits until the oldest session has gone.
//!
//! What waits has a deadline, what is remembered has a cap, and each step costs at most the logarithm of what is held
//! (a changed wall clock excepted, which is looked at for every session).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::admission::bitrate::{Bitrate, Finding};
use crate::admission::cache::{Cache, Said};
use crate::admission::gate::{Passage, is_kind};
use crate::admission::pattern::is_among;
use crate::admission::seats::{Claim, Seats};
use crate::admission::settings::Then;
use crate::admission::token::{Bearer, Digest, Judgement, Tokens};
use crate::admission::{
    Answer, Failure, Gate, Grant, HookRule, Refusal, Settings, SettingsError, Terms, Verdict, redirect,
};
use crate::names::{Kind, Name, SessionId, StreamKey};
use crate::session::{CloseReason, Facts, Identity, Reason};
use crate::stdx::clock::WallAnchor;
use crate::stdx::ids::SplitMix;

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
    /// What players are sent. It may be as of a moment ago: whoever came since is counted by what is expected of them.
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
}

impl Counts {
    /// Questions that wait for their answer.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.questions.saturating_sub(self.allowed + self.refused.values().sum::<u64>() + self.gone)
    }
}

/// See the module.
pub struct Desk {
    gate: Arc<Gate>,
    tokens: Tokens,
    hooks: Vec<HookRule>,
    waiting_max: usize,
    answer_timeout: Duration,
    evict_timeout: Duration,
    redirect_hosts: Vec<String>,
    duration_max: Duration,
    publish_bps_max: u64,
    wall: WallAnchor,
    seats: Seats,
    cache: Cache,
    /// Questions that wait for a back end or for a seat.
    waiting: HashMap<SessionId, Waiting>,
    /// What back ends have been asked.
    asks: HashMap<AskId, Asked>,
    /// The same, by what was asked: the same question is asked once.
    in_flight: HashMap<Digest, AskId>,
    asked: u64,
    /// Sessions about which there is something to remember.
    sessions: HashMap<SessionId, Session>,
    /// Who waits for a session to end.
    promised: HashMap<SessionId, SessionId>,
    timers: BTreeSet<(Instant, Timer)>,
    /// When a key set was last found wanting, for each rule.
    key_unknown_at: HashMap<usize, Instant>,
    actions: VecDeque<Action>,
    counts: Counts,
}

/// A question on its way.
struct Waiting {
    question: u64,
    facts: Arc<Facts>,
    draft: Draft,
    stage: Stage,
}

enum Stage {
    /// A back end has been asked.
    Asked(AskId),
    /// A session has been told to make room.
    Evicting { victim: SessionId, deadline: Instant },
}

/// The yes as far as it has come.
#[derive(Clone, Default)]
struct Draft {
    terms: Terms,
    /// When a token ends the session, in milliseconds since the Unix epoch.
    token_ends_unix_ms: Option<u64>,
    token: Option<Digest>,
    /// The hook that has been asked.
    hook: Option<usize>,
}

/// A question put to a back end.
struct Asked {
    hook: usize,
    deadline: Instant,
    about: About,
}

enum About {
    /// Newcomers with the same question. Those that have gone since are skipped.
    Newcomers { identity: Digest, kind: Kind, sessions: Vec<SessionId> },
    /// A session that runs.
    Session { identity: Digest, session: SessionId },
}

/// A session that has been admitted.
struct Session {
    facts: Arc<Facts>,
    claim: Claim,
    token_ends_unix_ms: Option<u64>,
    hook_ends_unix_ms: Option<u64>,
    ends_at: Option<Instant>,
    /// The longest that it may last.
    lasts_until: Option<Instant>,
    /// Until when what it takes is not in the measured rates.
    unmeasured_until: Option<Instant>,
    recheck: Option<Recheck>,
    bitrate: Option<Bitrate>,
    /// It has been told to go.
    is_ending: bool,
}

struct Recheck {
    hook: usize,
    identity: Digest,
    every: Duration,
    next: Next,
    dice: SplitMix,
}

enum Next {
    At(Instant),
    /// The back end is being asked.
    Asked(AskId),
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A back end has not answered.
    Answer(AskId),
    /// The newcomer has waited long enough for a seat.
    Seat(SessionId),
    /// What a player takes is measured by now.
    Measured(SessionId),
    /// A token or a back end's word ends the session.
    Expiry(SessionId),
    /// The session has lasted as long as it may.
    Duration(SessionId),
    /// Time to ask again.
    Recheck(SessionId),
}

/// How long it takes until what a new player takes is in the measured rates.
const MEASURED_AFTER: Duration = Duration::from_secs(5);
/// Bounds of how often a running session is asked about.
const RECHECK_MIN: Duration = Duration::from_secs(1);
const RECHECK_MAX: Duration = Duration::from_hours(24);
/// Timers handled in one call; the rest is due at once.
const TIMERS_PER_CALL: usize = 1_024;
/// How often a key set is called wanting.
const KEY_UNKNOWN_EVERY: Duration = Duration::from_secs(10);

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
        settings.check()?;
        Ok(Self {
            gate,
            tokens: Tokens::new(settings)?,
            hooks,
            waiting_max: settings.waiting_max,
            answer_timeout: settings.answer_timeout,
            evict_timeout: settings.evict_timeout,
            redirect_hosts: settings.redirect_hosts.clone(),
            duration_max: settings.limits.duration_max,
            publish_bps_max: settings.limits.publish_bps_max,
            wall,
            seats: Seats::new(settings.limits.clone()),
            cache: Cache::new(settings.cache_entries),
            waiting: HashMap::new(),
            asks: HashMap::new(),
            in_flight: HashMap::new(),
            asked: 0,
            sessions: HashMap::new(),
            promised: HashMap::new(),
            timers: BTreeSet::new(),
            key_unknown_at: HashMap::new(),
            actions: VecDeque::new(),
            counts: Counts::default(),
        })
    }

    /// A session asks to be admitted; a [`Verdict`](Action::Verdict) for `question` follows, now or later, unless the
    /// session is closed before.
    pub fn handle_ask(&mut self, now: Instant, question: u64, facts: Arc<Facts>, measured: &dyn Measured) {
        self.counts.questions += 1;
        // A session that asks again is a new one; what it held is given back first.
        self.handle_closed(now, facts.id, measured);
        match self.gate.passage(facts.kind, &facts.key, facts.remote, facts.local) {
            Passage::Refused(reason) => self.refuse(question, reason.into()),
            Passage::Free => self.seat(now, question, facts, Draft::default(), None, measured),
            Passage::Asked => self.judge(now, question, facts, measured),
        }
    }

    /// A back end has answered, or has failed to. Too late, or twice, it changes nothing.
    pub fn handle_answer(&mut self, now: Instant, id: AskId, answer: Answer, measured: &dyn Measured) {
        let Some(asked) = self.asks.remove(&id) else { return };
        self.timers.remove(&(asked.deadline, Timer::Answer(id)));
        let answer = match answer {
            Answer::Allow(terms) => Outcome::Allow(Arc::new(*terms)),
            Answer::Deny { text, redirect, cache_for } => Outcome::Deny { text, redirect, cache_for },
            Answer::Failure(failure) => {
                *self.counts.failures.entry(failure.as_str()).or_default() += 1;
                Outcome::Failure(failure)
            }
        };
        match asked.about {
            About::Newcomers { identity, kind, sessions } => {
                self.in_flight.remove(&identity);
                self.remember(now, asked.hook, kind, identity, &answer);
                for session in sessions {
                    let is_its_own = |waiting: &Waiting| matches!(waiting.stage, Stage::Asked(own) if own == id);
                    if self.waiting.get(&session).is_some_and(is_its_own)
                        && let Some(waiting) = self.waiting.remove(&session)
                    {
                        self.settle(now, waiting, asked.hook, &identity, &answer, measured);
                    }
                }
            }
            About::Session { identity, session } => {
                let Some(kind) = self.sessions.get(&session).map(|session| session.facts.kind) else { return };
                self.remember(now, asked.hook, kind, identity, &answer);
                self.rechecked(now, session, &answer);
            }
        }
    }

    /// A session has ended, whether admitted, refused or still waiting. Said twice, it changes nothing.
    pub fn handle_closed(&mut self, now: Instant, session: SessionId, measured: &dyn Measured) {
        if let Some(waiting) = self.waiting.remove(&session) {
            self.counts.gone += 1;
            if let Stage::Evicting { victim, deadline } = waiting.stage {
                self.promised.remove(&victim);
                self.timers.remove(&(deadline, Timer::Seat(session)));
            }
        }
        if let Some(mut gone) = self.sessions.remove(&session) {
            self.disarm(session, &mut gone);
            self.seats.free(&mut gone.claim);
        }
        // Its seat goes to whoever it was ended for, before anybody else can ask.
        if let Some(newcomer) = self.promised.remove(&session)
            && let Some(Waiting { question, facts, draft, stage }) = self.waiting.remove(&newcomer)
        {
            let Stage::Evicting { deadline, .. } = stage else { return };
            self.timers.remove(&(deadline, Timer::Seat(newcomer)));
            self.seat(now, question, facts, draft, Some(deadline), measured);
        }
    }

    /// What a publisher has sent since its beginning, in bytes of its connection. To be called at every report.
    pub fn handle_received(&mut self, now: Instant, session: SessionId, rx_bytes: u64) {
        let Some(running) = self.sessions.get_mut(&session).filter(|running| !running.is_ending) else { return };
        let Some(bitrate) = &mut running.bitrate else { return };
        match bitrate.handle_received(now, rx_bytes) {
            Some(Finding::High(bps)) => {
                let note = Note::BitrateHigh { bps, max: bitrate.max_bps() };
                self.actions.push_back(Action::Note { facts: running.facts.clone(), note });
            }
            Some(Finding::TooHigh(_)) => self.end(session, Reason::BitrateExceeded.into()),
            None => {}
        }
    }

    /// Does what is due; see [`next_due`](Self::next_due).
    pub fn handle_timeout(&mut self, now: Instant, measured: &dyn Measured) {
        self.cache.expire(now);
        for _ in 0..TIMERS_PER_CALL {
            match self.timers.first() {
                Some((at, _)) if *at <= now => {}
                _ => return,
            }
            let Some((_, timer)) = self.timers.pop_first() else { return };
            match timer {
                Timer::Answer(id) => self.handle_answer(now, id, Answer::Failure(Failure::Timeout), measured),
                Timer::Seat(newcomer) => self.give_up_seat(newcomer),
                Timer::Measured(session) => {
                    if let Some(running) = self.sessions.get_mut(&session) {
                        running.unmeasured_until = None;
                        self.seats.measured(&mut running.claim);
                    }
                }
                Timer::Expiry(session) => {
                    if let Some(running) = self.sessions.get_mut(&session) {
                        running.ends_at = None;
                        self.end(session, Reason::TokenExpired.into());
                    }
                }
                Timer::Duration(session) => {
                    if let Some(running) = self.sessions.get_mut(&session) {
                        running.lasts_until = None;
                        self.end(session, Reason::MaxDuration.into());
                    }
                }
                Timer::Recheck(session) => self.recheck(now, session),
            }
        }
    }

    /// Obeys other rules from now on: tokens, address rules, times, hosts. Limits and the size of the cache stay as they
    /// were at the start, because what they have counted was counted for them. A rule whose key set comes from the same
    /// place as that of one before, and which names the same issuer, keeps its keys; other key sets are to be set.
    ///
    /// # Errors
    /// Settings that cannot be obeyed; nothing is changed then.
    pub fn configure(&mut self, settings: &Settings, gate: Arc<Gate>) -> Result<(), SettingsError> {
        settings.check()?;
        let mut tokens = Tokens::new(settings)?;
        tokens.inherit(&self.tokens);
        self.tokens = tokens;
        self.gate = gate;
        self.waiting_max = settings.waiting_max;
        self.answer_timeout = settings.answer_timeout;
        self.evict_timeout = settings.evict_timeout;
        self.redirect_hosts.clone_from(&settings.redirect_hosts);
        self.key_unknown_at.clear();
        Ok(())
    }

    /// The wall clock was found to have moved: expiries are judged by the new one, durations do not change.
    pub fn handle_clock(&mut self, now: Instant, wall: WallAnchor) {
        self.wall = wall;
        let unix_ms = wall.unix_ms(now);
        for (id, session) in &mut self.sessions {
            if !session.is_ending {
                arm_expiry(&mut self.timers, now, unix_ms, *id, session);
            }
        }
    }

    /// A key set for the rule `index` of `[[admission.jwt]]`, read at `from`, the URL or path that the rule names: the
    /// text of a JSON Web Key Set (RFC 7517). Keys of families that we do not know are left out, and so are secrets. Returns how many keys it has.
    ///
    /// # Errors
    /// When the rule of that index has its key set from elsewhere by now, when the text is no key set or holds no usable
    /// key; what was there before stays.
    pub fn set_jwks(&mut self, index: usize, from: &str, text: &str) -> Result<usize, &'static str> {
        self.tokens.set_jwks(index, from, text)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        timer.into_iter().chain(self.cache.next_due()).min()
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

    /// Questions that wait, sessions that are counted or watched, answers that are remembered.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            waiting: self.waiting.len(),
            asks: self.asks.len(),
            sessions: self.sessions.len(),
            timers: self.timers.len(),
            cached: self.cache.len(),
            seats_are_free: self.seats.is_empty(),
        }
    }

    /// The tokens that the peer brings, then the hook.
    fn judge(&mut self, now: Instant, question: u64, facts: Arc<Facts>, measured: &dyn Measured) {
        let query = facts.query.as_deref().unwrap_or("");
        let unix_ms = self.wall.unix_ms(now);
        let (kind, key, address) = (facts.kind, &facts.key, facts.remote.ip());
        let judgement = self.tokens.judge(&Bearer { kind, key, address, query, unix_ms });
        let hook = self.hooks.iter().position(|rule| is_kind(&rule.kinds, kind) && is_among(&rule.apps, key));
        let draft = match judgement {
            Judgement::Valid(valid) => {
                let draft = Draft {
                    terms: valid.terms,
                    token_ends_unix_ms: valid.ends_unix_ms,
                    token: Some(valid.digest),
                    hook: None,
                };
                if valid.then == Then::Allow || hook.is_none() {
                    return self.seat(now, question, facts, draft, None, measured);
                }
                draft
            }
            Judgement::Invalid(invalid) => {
                if let Some(rule) = invalid.unknown_key {
                    self.key_unknown(now, rule, &facts);
                }
                // Nobody could tell: that is not the peer's failure.
                if invalid.reason.reason == Reason::AuthUnavailable {
                    return self.refuse(question, invalid.reason.into());
                }
                return self.fail(question, &facts, invalid.reason.into());
            }
            Judgement::Missing { before_hook: true } => {
                return self.fail(question, &facts, CloseReason::with(Reason::AuthDenied, "token_missing").into());
            }
            Judgement::Missing { before_hook: false } | Judgement::Silent => {
                let token = (!query.is_empty())
                    .then(|| Sha256::new().chain_update(b"query\0").chain_update(query).finalize().into());
                Draft { token, ..Draft::default() }
            }
        };
        match hook {
            Some(hook) => self.ask(now, question, facts, draft, hook, measured),
            None => self.fail(question, &facts, CloseReason::with(Reason::AuthDenied, "token_missing").into()),
        }
    }

    /// Asks the hook, unless that is known or being asked already.
    fn ask(
        &mut self,
        now: Instant,
        question: u64,
        facts: Arc<Facts>,
        mut draft: Draft,
        hook: usize,
        measured: &dyn Measured,
    ) {
        let Some(rule) = self.hooks.get(hook) else { return };
        draft.hook = Some(hook);
        let identity = identity(hook, rule, &facts);
        let session = facts.id;
        let mut waiting = Waiting { question, facts, draft, stage: Stage::Asked(AskId(0)) };
        let known = self.cache.fresh(now, &identity).filter(|_| may_remember(rule, waiting.facts.kind));
        let answer = known.cloned().and_then(|said| match said {
            // An expiry within the answer wins over the time for which it may be used.
            Said::Allow(terms) => {
                let unix_ms = self.wall.unix_ms(now);
                let holds = terms.expires_unix_ms.is_none_or(|ends| ends > unix_ms);
                holds.then_some(Outcome::Allow(terms))
            }
            Said::Deny(text, redirect) => Some(Outcome::Deny { text, redirect, cache_for: None }),
        });
        if let Some(answer) = answer {
            self.counts.cached += 1;
            return self.settle(now, waiting, hook, &identity, &answer, measured);
        }
        if self.waiting.len() >= self.waiting_max {
            *self.counts.failures.entry(Failure::QueueFull.as_str()).or_default() += 1;
            return self.settle(now, waiting, hook, &identity, &Outcome::Failure(Failure::QueueFull), measured);
        }
        let id = if let Some(id) = self.in_flight.get(&identity).copied() {
            self.counts.shared += 1;
            id
        } else {
            let kind = waiting.facts.kind;
            let about = About::Newcomers { identity, kind, sessions: Vec::new() };
            let id = self.put(now, hook, waiting.facts.clone(), Why::Open, about);
            self.in_flight.insert(identity, id);
            id
        };
        if let Some(About::Newcomers { sessions, .. }) = self.asks.get_mut(&id).map(|asked| &mut asked.about) {
            // Peers that come and go while the back end thinks must not fill the list.
            if sessions.len() >= 2 * self.waiting_max.max(16) {
                let waiting = &self.waiting;
                sessions.retain(|session| waiting.contains_key(session));
            }
            sessions.push(session);
        }
        waiting.stage = Stage::Asked(id);
        self.waiting.insert(session, waiting);
    }

    /// Puts a question to a back end.
    fn put(&mut self, now: Instant, hook: usize, facts: Arc<Facts>, why: Why, about: About) -> AskId {
        self.asked += 1;
        self.counts.asked += 1;
        let id = AskId(self.asked);
        let deadline = now + self.answer_timeout;
        self.asks.insert(id, Asked { hook, deadline, about });
        self.timers.insert((deadline, Timer::Answer(id)));
        self.actions.push_back(Action::Ask { id, hook, facts, why });
        id
    }

    /// What a back end said becomes what may be used again.
    fn remember(&mut self, now: Instant, hook: usize, kind: Kind, identity: Digest, answer: &Outcome) {
        let Some(rule) = self.hooks.get(hook).filter(|rule| may_remember(rule, kind)) else { return };
        match answer {
            Outcome::Allow(terms) => {
                let fresh = terms.cache_for.unwrap_or_default();
                self.cache.insert(now, identity, Said::Allow(terms.clone()), fresh, rule.stale_if_error);
            }
            // Also what was allowed before is forgotten.
            Outcome::Deny { text, redirect, cache_for } => {
                let fresh = cache_for.unwrap_or_default();
                self.cache.insert(now, identity, Said::Deny(text.clone(), redirect.clone()), fresh, Duration::ZERO);
            }
            Outcome::Failure(_) => {}
        }
    }

    /// A question has its answer; what a failure means is the table of `robustness.md` §8.1.
    fn settle(
        &mut self,
        now: Instant,
        waiting: Waiting,
        hook: usize,
        identity: &Digest,
        answer: &Outcome,
        measured: &dyn Measured,
    ) {
        let Waiting { question, facts, mut draft, .. } = waiting;
        match answer {
            Outcome::Allow(terms) => {
                draft.add(terms);
                self.seat(now, question, facts, draft, None, measured);
            }
            Outcome::Deny { text, redirect, .. } => {
                let redirect = redirect.clone().filter(|url| {
                    let allowed = redirect::is_allowed(url, &self.redirect_hosts, facts.local.ip());
                    if !allowed {
                        let note = Note::RedirectRefused;
                        self.actions.push_back(Action::Note { facts: facts.clone(), note });
                    }
                    allowed
                });
                let refusal = Refusal { reason: Reason::AuthDenied.into(), text: text.clone(), redirect };
                self.fail(question, &facts, refusal);
            }
            Outcome::Failure(failure) => {
                let Some(rule) = self.hooks.get(hook) else { return };
                let unix_ms = self.wall.unix_ms(now);
                let known = self.cache.stale(now, identity).filter(|_| may_remember(rule, facts.kind)).cloned();
                let known = known.filter(|terms| terms.expires_unix_ms.is_none_or(|at| at > unix_ms));
                if let Some(terms) = known {
                    self.counts.stale += 1;
                    draft.add(&terms);
                    self.seat(now, question, facts, draft, None, measured);
                } else if facts.kind == Kind::Play && rule.play_on_failure {
                    self.counts.let_in += 1;
                    self.seat(now, question, facts, draft, None, measured);
                } else {
                    let reason = CloseReason::with(Reason::AuthUnavailable, failure.as_str());
                    self.refuse(question, reason.into());
                }
            }
        }
    }

    /// Everybody said yes: the limits are left. `deadline` is that of a newcomer that has waited for a seat before.
    fn seat(
        &mut self,
        now: Instant,
        question: u64,
        facts: Arc<Facts>,
        draft: Draft,
        deadline: Option<Instant>,
        measured: &dyn Measured,
    ) {
        let unix_ms = self.wall.unix_ms(now);
        let ends = draft.token_ends_unix_ms.into_iter().chain(draft.terms.expires_unix_ms).min();
        if ends.is_some_and(|ends| ends <= unix_ms) {
            return self.fail(question, &facts, CloseReason::from(Reason::TokenExpired).into());
        }
        let key = renamed(&facts.key, &draft.terms);
        if !matches!(facts.kind, Kind::Publish | Kind::Play) {
            return self.allow(question, Grant::plain(key));
        }
        // No session at once is none: whoever says so wants nobody in, and not everybody.
        if draft.terms.sessions_max == Some(0) {
            return self.refuse(question, CloseReason::with(Reason::ConcurrencyLimit, "user").into());
        }
        let claim = self.seats.claim(&facts, &key, &draft.terms, draft.token, measured);
        match self.seats.take(claim, measured) {
            Ok(claim) => self.admit(now, question, &facts, draft, claim),
            Err(full) if full.victim.is_some() && is_duplicate(&facts, &key, &draft.terms, measured) => {
                self.refuse(question, CloseReason::from(Reason::DuplicatePublish).into());
            }
            Err(full) => match full.victim {
                // Waiting for the first victim's end did not do: somebody has to go for another limit as well.
                Some(victim) if self.waiting.len() < self.waiting_max => {
                    let deadline = deadline.unwrap_or(now + self.evict_timeout);
                    let session = facts.id;
                    self.promised.insert(victim, session);
                    self.timers.insert((deadline, Timer::Seat(session)));
                    let stage = Stage::Evicting { victim, deadline };
                    self.waiting.insert(session, Waiting { question, facts, draft, stage });
                    self.end(victim, full.reason);
                }
                _ => self.refuse(question, full.reason.into()),
            },
        }
    }

    /// The seats are taken: remembers what the session has to be watched for, and says yes.
    fn admit(&mut self, now: Instant, question: u64, facts: &Arc<Facts>, draft: Draft, claim: Claim) {
        let Draft { terms, token_ends_unix_ms, hook, .. } = draft;
        let id = facts.id;
        let mut grant = Grant::plain(claim.key.clone());
        grant.user.clone_from(&terms.user);
        grant.labels = terms.labels.clone();
        let identity = Identity { key: facts.key.clone(), ..grant.identity() };
        let recheck = hook.and_then(|hook| {
            let rule = self.hooks.get(hook)?;
            let every = bounded_recheck(terms.recheck_every.unwrap_or(rule.recheck_every))?;
            // The id of a session is random where it matters, and the same in every run of a test.
            #[allow(clippy::cast_possible_truncation)]
            let mut dice = SplitMix::new(id.as_u128() as u64);
            let next = Next::At(now + jittered(every, &mut dice));
            Some(Recheck { hook, identity: self::identity(hook, rule, facts), every, next, dice })
        });
        let bps = terms.publish_bps_max.unwrap_or(self.publish_bps_max);
        let bitrate = (facts.kind == Kind::Publish && bps > 0).then(|| Bitrate::new(now, bps));
        let lasts = terms.duration_max.unwrap_or(self.duration_max);
        let mut session = Session {
            // What the back end is asked about again is what the peer asked for, under the name it got.
            facts: Arc::new(facts.identified(identity)),
            token_ends_unix_ms,
            hook_ends_unix_ms: terms.expires_unix_ms,
            ends_at: None,
            lasts_until: (!lasts.is_zero()).then(|| now.checked_add(lasts)).flatten(),
            unmeasured_until: claim.is_unmeasured().then_some(now + MEASURED_AFTER),
            recheck,
            bitrate,
            is_ending: false,
            claim,
        };
        arm_expiry(&mut self.timers, now, self.wall.unix_ms(now), id, &mut session);
        self.timers.extend(session.lasts_until.map(|at| (at, Timer::Duration(id))));
        self.timers.extend(session.unmeasured_until.map(|at| (at, Timer::Measured(id))));
        if let Some(Recheck { every, next: Next::At(at), .. }) = &session.recheck {
            self.timers.insert((*at, Timer::Recheck(id)));
            grant.recheck_every = Some(*every);
        }
        grant.expires_at = session.ends_at;
        grant.publish_bps_max = session.bitrate.as_ref().map(Bitrate::max_bps);
        if session.is_worth_remembering() {
            self.sessions.insert(id, session);
        }
        self.allow(question, grant);
    }

    /// Asks about a session that runs.
    fn recheck(&mut self, now: Instant, session: SessionId) {
        let Some(running) = self.sessions.get(&session).filter(|running| !running.is_ending) else { return };
        let Some(recheck) = &running.recheck else { return };
        let (hook, identity, facts) = (recheck.hook, recheck.identity, running.facts.clone());
        let id = self.put(now, hook, facts, Why::Recheck, About::Session { identity, session });
        if let Some(recheck) = self.sessions.get_mut(&session).and_then(|running| running.recheck.as_mut()) {
            recheck.next = Next::Asked(id);
        }
    }

    /// The answer about a session that runs. Only a no ends it: a back end that fails must not take viewers away.
    fn rechecked(&mut self, now: Instant, session: SessionId, answer: &Outcome) {
        let unix_ms = self.wall.unix_ms(now);
        let Some(running) = self.sessions.get_mut(&session).filter(|running| !running.is_ending) else { return };
        match answer {
            Outcome::Deny { .. } => return self.end(session, Reason::ReauthDenied.into()),
            Outcome::Allow(terms) => {
                running.hook_ends_unix_ms = terms.expires_unix_ms;
                if terms.expires_unix_ms.is_some_and(|ends| ends <= unix_ms) {
                    return self.end(session, Reason::TokenExpired.into());
                }
                arm_expiry(&mut self.timers, now, unix_ms, session, running);
                if let Some(recheck) = &mut running.recheck
                    && let Some(every) = terms.recheck_every.and_then(bounded_recheck)
                {
                    recheck.every = every;
                }
            }
            Outcome::Failure(_) => {}
        }
        if let Some(recheck) = &mut running.recheck {
            let at = now + jittered(recheck.every, &mut recheck.dice);
            recheck.next = Next::At(at);
            self.timers.insert((at, Timer::Recheck(session)));
        }
    }

    /// Tells a session to go, once.
    fn end(&mut self, session: SessionId, reason: CloseReason) {
        let Some(mut running) = self.sessions.remove(&session) else { return };
        if !running.is_ending {
            running.is_ending = true;
            self.disarm(session, &mut running);
            self.seats.leaving(&running.claim);
            *self.counts.ended.entry(reason).or_default() += 1;
            self.actions.push_back(Action::End { session, reason });
        }
        self.sessions.insert(session, running);
    }

    /// Takes a session's timers and its open question away; its seats stay taken until it is closed.
    fn disarm(&mut self, id: SessionId, session: &mut Session) {
        let timers = [
            session.ends_at.take().map(|at| (at, Timer::Expiry(id))),
            session.lasts_until.take().map(|at| (at, Timer::Duration(id))),
            session.unmeasured_until.take().map(|at| (at, Timer::Measured(id))),
        ];
        for timer in timers.into_iter().flatten() {
            self.timers.remove(&timer);
        }
        match session.recheck.take().map(|recheck| recheck.next) {
            Some(Next::At(at)) => {
                self.timers.remove(&(at, Timer::Recheck(id)));
            }
            Some(Next::Asked(ask)) => {
                if let Some(asked) = self.asks.remove(&ask) {
                    self.timers.remove(&(asked.deadline, Timer::Answer(ask)));
                }
            }
            None => {}
        }
    }

    /// The evicted session does not end in time. It has been told to, and its seat will be free for the next.
    fn give_up_seat(&mut self, newcomer: SessionId) {
        let Some(waiting) = self.waiting.remove(&newcomer) else { return };
        if let Stage::Evicting { victim, .. } = waiting.stage {
            self.promised.remove(&victim);
        }
        self.refuse(waiting.question, CloseReason::with(Reason::ConcurrencyLimit, "evict_timeout").into());
    }

    fn key_unknown(&mut self, now: Instant, rule: usize, facts: &Arc<Facts>) {
        let last = self.key_unknown_at.get(&rule);
        if last.is_none_or(|last| now.saturating_duration_since(*last) >= KEY_UNKNOWN_EVERY) {
            self.key_unknown_at.insert(rule, now);
            self.actions.push_back(Action::Note { facts: facts.clone(), note: Note::KeyUnknown { rule } });
        }
    }

    fn allow(&mut self, question: u64, grant: Grant) {
        self.counts.allowed += 1;
        self.actions.push_back(Action::Verdict { question, verdict: Ok(Box::new(grant)) });
    }

    /// Refuses a peer that could not show that it may.
    fn fail(&mut self, question: u64, facts: &Arc<Facts>, refusal: Refusal) {
        self.actions.push_back(Action::Note { facts: facts.clone(), note: Note::AuthFailed(refusal.reason) });
        self.refuse(question, refusal);
    }

    fn refuse(&mut self, question: u64, refusal: Refusal) {
        *self.counts.refused.entry(refusal.reason).or_default() += 1;
        self.actions.push_back(Action::Verdict { question, verdict: Err(Box::new(refusal)) });
    }
}

/// An answer whose terms may be shared by many.
enum Outcome {
    Allow(Arc<Terms>),
    Deny { text: Option<Box<str>>, redirect: Option<Box<str>>, cache_for: Option<Duration> },
    Failure(Failure),
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

impl Draft {
    /// Adds what a back end says to what a token says; where both speak, the back end is the nearer.
    fn add(&mut self, said: &Terms) {
        let token = std::mem::replace(&mut self.terms, said.clone());
        let terms = &mut self.terms;
        terms.user = terms.user.take().or(token.user);
        terms.sessions_max = terms.sessions_max.or(token.sessions_max);
        if terms.labels.is_empty() {
            terms.labels = token.labels;
        }
    }
}

impl Session {
    /// False for one that nobody will ask about again.
    fn is_worth_remembering(&self) -> bool {
        self.claim.is_counted()
            || self.ends_unix_ms().is_some()
            || self.lasts_until.is_some()
            || self.unmeasured_until.is_some()
            || self.recheck.is_some()
            || self.bitrate.is_some()
    }

    fn ends_unix_ms(&self) -> Option<u64> {
        self.token_ends_unix_ms.into_iter().chain(self.hook_ends_unix_ms).min()
    }
}

/// Sets the timer of a session's expiry in place of the one before. An expiry beyond the clock's reach is none.
fn arm_expiry(
    timers: &mut BTreeSet<(Instant, Timer)>,
    now: Instant,
    unix_ms: u64,
    id: SessionId,
    session: &mut Session,
) {
    if let Some(before) = session.ends_at.take() {
        timers.remove(&(before, Timer::Expiry(id)));
    }
    let left = session.ends_unix_ms().map(|ends| Duration::from_millis(ends.saturating_sub(unix_ms)));
    session.ends_at = left.and_then(|left| now.checked_add(left));
    timers.extend(session.ends_at.map(|at| (at, Timer::Expiry(id))));
}

/// Two newcomers with the same one are one question: the hook, the kind, the stream, the query with its token, and the
/// address where the hook wants that. Lengths stand before texts, so that two questions never run into one.
fn identity(hook: usize, rule: &HookRule, facts: &Facts) -> Digest {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(&(hook as u64).to_le_bytes());
    add(facts.kind.as_str().as_bytes());
    add(facts.protocol.as_str().as_bytes());
    add(facts.key.vhost().as_bytes());
    add(facts.key.app().as_bytes());
    add(facts.key.stream().as_bytes());
    add(facts.query.as_deref().unwrap_or("").as_bytes());
    if rule.cache_by_address {
        add(facts.remote.ip().to_canonical().to_string().as_bytes());
    }
    hash.finalize().into()
}

/// True when answers about this kind may be used again.
fn may_remember(rule: &HookRule, kind: Kind) -> bool {
    kind == Kind::Play || rule.cache_publish
}

/// The stream that the verdict puts in place of the one asked for.
fn renamed(key: &StreamKey, terms: &Terms) -> StreamKey {
    if terms.app.is_none() && terms.stream.is_none() {
        return key.clone();
    }
    // What a key holds has been a name before.
    let (Ok(vhost), Ok(app), Ok(stream)) = (Name::app(key.vhost()), Name::app(key.app()), Name::stream(key.stream()))
    else {
        return key.clone();
    };
    StreamKey::new(&vhost, terms.app.as_ref().unwrap_or(&app), terms.stream.as_ref().unwrap_or(&stream))
}

/// True for a publisher of a stream that it is not going to get from who has it.
fn is_duplicate(facts: &Facts, key: &StreamKey, terms: &Terms, measured: &dyn Measured) -> bool {
    let identity = Identity { key: key.clone(), user: terms.user.clone(), labels: terms.labels.clone() };
    facts.kind == Kind::Publish && measured.refuses_publisher(&facts.identified(identity))
}

/// How often to ask, within reason; zero is never.
fn bounded_recheck(every: Duration) -> Option<Duration> {
    (!every.is_zero()).then(|| every.clamp(RECHECK_MIN, RECHECK_MAX))
}

/// A tenth more or less, so that sessions which began together are not asked about together.
fn jittered(every: Duration, dice: &mut SplitMix) -> Duration {
    let per_mille = u32::try_from(900 + dice.below(201)).unwrap_or(1_000);
    every * per_mille / 1_000
}
