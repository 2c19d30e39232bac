//! The stations of a question: tokens, the hook, the limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::admission::bitrate::Bitrate;
use crate::admission::cache::Said;
use crate::admission::desk::running::{arm_expiry, bounded_recheck, jittered};
use crate::admission::desk::{
    About, Action, AskId, Desk, Draft, Measured, Next, Note, Outcome, Recheck, Session, Stage, Timer, Waiting, Wanting,
    Why,
};
use crate::admission::gate::is_kind;
use crate::admission::pattern::is_among;
use crate::admission::seats::Claim;
use crate::admission::settings::Then;
use crate::admission::token::{Bearer, Digest, Judgement};
use crate::admission::{Failure, Grant, HookRule, Refusal, Terms, redirect};
use crate::names::{Kind, Name, SessionId, StreamKey};
use crate::session::{CloseReason, Facts, Identity, Reason};
use crate::stdx::ids::SplitMix;

/// When what a new player takes is in the measured rates at the latest; see [`Desk::handle_counted`].
const MEASURED_AFTER: Duration = Duration::from_secs(5);
/// The refusal of a peer whose key could not be looked for.
const NO_KEYS: CloseReason = CloseReason::with(Reason::AuthUnavailable, "key_set");
/// How often a key set is called wanting.
const KEY_UNKNOWN_EVERY: Duration = Duration::from_secs(10);

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

    /// A no to whom this is about.
    fn refused(&self, reason: CloseReason) -> Refusal {
        let (user, labels) = (self.terms.user.clone(), self.terms.labels.clone());
        Refusal { user, labels, ..Refusal::from(reason) }
    }
}

impl Desk {
    /// The tokens that the peer brings, then the hook.
    pub(super) fn judge(&mut self, now: Instant, question: u64, facts: Arc<Facts>, measured: &dyn Measured) {
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
                    let is_read_anew = self.is_set_read_anew(now, rule, &facts);
                    // A set that was never read may not be for long: who comes meanwhile need not wait to hear that.
                    if is_read_anew && invalid.reason.reason != Reason::AuthUnavailable {
                        return self.await_keys(now, question, facts, rule);
                    }
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

    /// What a back end said becomes what may be used again.
    pub(super) fn remember(&mut self, now: Instant, hook: usize, kind: Kind, identity: Digest, answer: &Outcome) {
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
    pub(super) fn settle(
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
                    if allowed {
                        self.counts.redirects.0 += 1;
                    } else {
                        self.counts.redirects.1 += 1;
                        let note = Note::RedirectRefused;
                        self.actions.push_back(Action::Note { facts: facts.clone(), note });
                    }
                    allowed
                });
                let refusal = Refusal { text: text.clone(), redirect, ..draft.refused(Reason::AuthDenied.into()) };
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
                    self.refuse(question, draft.refused(reason));
                }
            }
        }
    }

    /// Everybody said yes: the limits are left. `deadline` is that of a newcomer that has waited for a seat before.
    pub(super) fn seat(
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
            return self.fail(question, &facts, draft.refused(Reason::TokenExpired.into()));
        }
        let key = renamed(&facts.key, &draft.terms);
        if !matches!(facts.kind, Kind::Publish | Kind::Play) {
            return self.allow(question, Grant::plain(key));
        }
        // No session at once is none: whoever says so wants nobody in, and not everybody.
        if draft.terms.sessions_max == Some(0) {
            return self.refuse(question, draft.refused(CloseReason::with(Reason::ConcurrencyLimit, "user")));
        }
        let claim = self.seats.claim(&facts, &key, &draft.terms, draft.token, measured);
        match self.seats.take(claim, measured) {
            Ok(claim) => self.admit(now, question, &facts, draft, claim),
            Err(full) if full.victim.is_some() && is_duplicate(&facts, &key, &draft.terms, measured) => {
                self.refuse(question, draft.refused(Reason::DuplicatePublish.into()));
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
                _ => self.refuse(question, draft.refused(full.reason)),
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

    /// The evicted session does not end in time. It has been told to, and its seat will be free for the next.
    pub(super) fn give_up_seat(&mut self, newcomer: SessionId) {
        let Some(waiting) = self.waiting.remove(&newcomer) else { return };
        if let Stage::Evicting { victim, .. } = waiting.stage {
            self.promised.remove(&victim);
        }
        let reason = CloseReason::with(Reason::ConcurrencyLimit, "evict_timeout");
        self.refuse(waiting.question, waiting.draft.refused(reason));
    }

    /// A token names a key that the rule's set does not have. True while the set is being read again, which this begins
    /// when it was not a moment ago: an issuer that changes its keys is no failure of the peer.
    fn is_set_read_anew(&mut self, now: Instant, rule: usize, facts: &Arc<Facts>) -> bool {
        let last = self.key_sets.get(&rule).copied();
        let last = last.filter(|last| now.saturating_duration_since(last.since) < KEY_UNKNOWN_EVERY);
        if last.is_none() {
            self.key_sets.insert(rule, Wanting { since: now, is_read: false });
            self.actions.push_back(Action::Note { facts: facts.clone(), note: Note::KeyUnknown { rule } });
        }
        last.is_none_or(|last| !last.is_read)
    }

    /// The question waits for the rule's key set, as it would for a back end.
    fn await_keys(&mut self, now: Instant, question: u64, facts: Arc<Facts>, rule: usize) {
        let since = self.key_sets.get(&rule).map_or(now, |wanting| wanting.since);
        let deadline = since + self.answer_timeout;
        if deadline <= now || self.waiting.len() >= self.waiting_max {
            return self.refuse(question, NO_KEYS.into());
        }
        let session = facts.id;
        self.timers.insert((deadline, Timer::Keys(session)));
        let stage = Stage::Keys { rule, deadline };
        self.waiting.insert(session, Waiting { question, facts, draft: Draft::default(), stage });
    }

    /// The key set was not read in time: nobody can tell.
    pub(super) fn give_up_keys(&mut self, newcomer: SessionId) {
        if let Some(waiting) = self.waiting.remove(&newcomer) {
            self.refuse(waiting.question, NO_KEYS.into());
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

    pub(super) fn refuse(&mut self, question: u64, refusal: Refusal) {
        *self.counts.refused.entry(refusal.reason).or_default() += 1;
        self.actions.push_back(Action::Verdict { question, verdict: Err(Box::new(refusal)) });
    }
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
