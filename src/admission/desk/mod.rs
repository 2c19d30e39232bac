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

mod action;
mod newcomers;
mod running;

pub use action::{Action, AskId, Counts, EgressScope, Held, Measured, Note, Why};

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::bitrate::{Bitrate, Finding};
use crate::admission::cache::Cache;
use crate::admission::desk::running::arm_expiry;
use crate::admission::gate::Passage;
use crate::admission::seats::{Claim, Seats};
use crate::admission::token::{Digest, Tokens};
use crate::admission::{Answer, Failure, Gate, HookRule, Settings, Terms};
use crate::names::{Kind, SessionId};
use crate::session::{Facts, Reason};
use crate::stdx::clock::WallAnchor;
use crate::stdx::ids::SplitMix;
use crate::stdx::settings::SettingsError;

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
    /// What became of it when a key set was last found wanting, for each rule.
    key_sets: HashMap<usize, Wanting>,
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
    /// The key set of a token rule is being read again.
    Keys { rule: usize, deadline: Instant },
    /// A back end has been asked.
    Asked(AskId),
    /// A session has been told to make room.
    Evicting { victim: SessionId, deadline: Instant },
}

/// A token named a key that the set does not have.
#[derive(Clone, Copy)]
struct Wanting {
    /// When it was found so, and asked to be read again.
    since: Instant,
    /// It was read since.
    is_read: bool,
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
    /// Until when what it takes is not in the measured rates, if nobody says before that it is.
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
    /// The same for a key set.
    Keys(SessionId),
    /// What a player takes is measured by now.
    Measured(SessionId),
    /// A token or a back end's word ends the session.
    Expiry(SessionId),
    /// The session has lasted as long as it may.
    Duration(SessionId),
    /// Time to ask again.
    Recheck(SessionId),
}

/// Timers handled in one call; the rest is due at once.
const TIMERS_PER_CALL: usize = 1_024;

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
            key_sets: HashMap::new(),
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
            match waiting.stage {
                Stage::Asked(_) => {}
                Stage::Keys { deadline, .. } => {
                    self.timers.remove(&(deadline, Timer::Keys(session)));
                }
                Stage::Evicting { victim, deadline } => {
                    self.promised.remove(&victim);
                    self.timers.remove(&(deadline, Timer::Seat(session)));
                }
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

    /// True for a player of which only is known what it is expected to take.
    #[must_use]
    pub fn is_unmeasured(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|running| running.unmeasured_until.is_some())
    }

    /// What [`Measured`] says has been told of the player: nothing is expected of it beside that any more, unless nobody
    /// knows yet what its stream brings. True when there is nothing more to tell of it.
    pub fn handle_counted(&mut self, session: SessionId, measured: &dyn Measured) -> bool {
        let Some(running) = self.sessions.get_mut(&session) else { return true };
        let Some(at) = running.unmeasured_until else { return true };
        if measured.stream_bps(&running.claim.key) == 0 {
            return false;
        }
        running.unmeasured_until = None;
        self.timers.remove(&(at, Timer::Measured(session)));
        self.seats.measured(&mut running.claim);
        true
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
                Timer::Keys(newcomer) => self.give_up_keys(newcomer),
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
        self.key_sets.clear();
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
        let keys = self.tokens.set_jwks(index, from, text)?;
        if let Some(wanting) = self.key_sets.get_mut(&index) {
            wanting.is_read = true;
        }
        Ok(keys)
    }

    /// The rule `index` has another key set: whoever waited for it is judged by what it has now. To be called when
    /// [`set_jwks`](Self::set_jwks) went well.
    pub fn handle_keys(&mut self, now: Instant, index: usize, measured: &dyn Measured) {
        let awaits = |waiting: &Waiting| matches!(waiting.stage, Stage::Keys { rule, .. } if rule == index);
        let waiting = self.waiting.iter().filter(|(_, waiting)| awaits(waiting));
        let mut waiting: Vec<(u64, SessionId)> = waiting.map(|(id, waiting)| (waiting.question, *id)).collect();
        // In the order in which they came.
        waiting.sort_unstable();
        for (_, id) in waiting {
            let Some(Waiting { question, facts, stage, .. }) = self.waiting.remove(&id) else { continue };
            if let Stage::Keys { deadline, .. } = stage {
                self.timers.remove(&(deadline, Timer::Keys(id)));
            }
            self.judge(now, question, facts, measured);
        }
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
}

/// An answer whose terms may be shared by many.
enum Outcome {
    Allow(Arc<Terms>),
    Deny { text: Option<Box<str>>, redirect: Option<Box<str>>, cache_for: Option<Duration> },
    Failure(Failure),
}
