//! Sessions that have been admitted: asking again, expiry, and their end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::admission::desk::{About, Action, Desk, Next, Outcome, Session, Timer, Why};
use crate::names::SessionId;
use crate::session::{CloseReason, Reason};
use crate::stdx::ids::SplitMix;

/// Bounds of how often a running session is asked about.
const RECHECK_MIN: Duration = Duration::from_secs(1);
const RECHECK_MAX: Duration = Duration::from_hours(24);

impl Session {
    /// False for one that nobody will ask about again.
    pub(super) fn is_worth_remembering(&self) -> bool {
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

impl Desk {
    /// Asks about a session that runs.
    pub(super) fn recheck(&mut self, now: Instant, session: SessionId) {
        let Some(running) = self.sessions.get(&session).filter(|running| !running.is_ending) else { return };
        let Some(recheck) = &running.recheck else { return };
        let (hook, identity, facts) = (recheck.hook, recheck.identity, running.facts.clone());
        let id = self.put(now, hook, facts, Why::Recheck, About::Session { identity, session });
        if let Some(recheck) = self.sessions.get_mut(&session).and_then(|running| running.recheck.as_mut()) {
            recheck.next = Next::Asked(id);
        }
    }

    /// The answer about a session that runs. Only a no ends it: a back end that fails must not take viewers away.
    pub(super) fn rechecked(&mut self, now: Instant, session: SessionId, answer: &Outcome) {
        let unix_ms = self.wall.unix_ms(now);
        let Some(running) = self.sessions.get_mut(&session).filter(|running| !running.is_ending) else { return };
        match answer {
            Outcome::Deny { text, .. } => return self.end_saying(session, Reason::ReauthDenied.into(), text.clone()),
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
    pub(super) fn end(&mut self, session: SessionId, reason: CloseReason) {
        self.end_saying(session, reason, None);
    }

    /// The same with the words of a back end.
    fn end_saying(&mut self, session: SessionId, reason: CloseReason, text: Option<Box<str>>) {
        let Some(mut running) = self.sessions.remove(&session) else { return };
        if !running.is_ending {
            running.is_ending = true;
            self.disarm(session, &mut running);
            self.seats.leaving(&running.claim);
            *self.counts.ended.entry(reason).or_default() += 1;
            self.actions.push_back(Action::End { session, reason, text });
        }
        self.sessions.insert(session, running);
    }

    /// Takes a session's timers and its open question away; its seats stay taken until it is closed.
    pub(super) fn disarm(&mut self, id: SessionId, session: &mut Session) {
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
}

/// Sets the timer of a session's expiry in place of the one before. An expiry beyond the clock's reach is none.
pub(super) fn arm_expiry(
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

/// How often to ask, within reason; zero is never.
pub(super) fn bounded_recheck(every: Duration) -> Option<Duration> {
    (!every.is_zero()).then(|| every.clamp(RECHECK_MIN, RECHECK_MAX))
}

/// A tenth more or less, so that sessions which began together are not asked about together.
pub(super) fn jittered(every: Duration, dice: &mut SplitMix) -> Duration {
    let per_mille = u32::try_from(900 + dice.below(201)).unwrap_or(1_000);
    every * per_mille / 1_000
}
