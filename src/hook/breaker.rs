//! When not to try: a back end that fails is left alone but for one probe a second.

use std::time::{Duration, Instant};

/// Failures in a row after which it opens.
const FAILURES: u32 = 5;
/// Or failing for so long, with nothing but failures in between.
const FAILING_FOR: Duration = Duration::from_secs(1);
/// Between two probes.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// The breaker of one back end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Breaker {
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Everything passes. While it fails: since when, and how often in a row.
    Closed(Option<(Instant, u32)>),
    /// Nothing passes before the probe.
    Open { probe_at: Instant },
    /// A probe is under way; another one may follow it, in case it is never heard of again.
    HalfOpen { probe_at: Instant },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed(None)
    }
}

/// What a breaker says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// It may go.
    Go,
    /// It may go, as the probe.
    Probe,
    /// It may not.
    No,
}

/// Where a breaker stands, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// Requests do not pass.
    Open,
    /// A probe is under way.
    HalfOpen,
}

impl BreakerState {
    /// The name used in APIs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Breaker {
    /// Whether a request may go now. A yes that is [`Pass::Probe`] is this second's only one.
    pub fn pass(&mut self, now: Instant) -> Pass {
        match self.state {
            State::Closed(_) => Pass::Go,
            State::Open { probe_at } | State::HalfOpen { probe_at } if probe_at <= now => {
                self.state = State::HalfOpen { probe_at: now + PROBE_EVERY };
                Pass::Probe
            }
            State::Open { .. } | State::HalfOpen { .. } => Pass::No,
        }
    }

    /// A request was answered as it should be.
    pub fn on_success(&mut self) {
        self.state = State::Closed(None);
    }

    /// A request failed. `back_off` is how long the back end asked to be left alone.
    pub fn on_failure(&mut self, now: Instant, back_off: Option<Duration>) {
        let resting = back_off.map(|time| now + time);
        self.state = match self.state {
            State::Closed(failing) => {
                let (since, failures) =
                    failing.map_or((now, 1), |(since, failures)| (since, failures.saturating_add(1)));
                let long = now.saturating_duration_since(since) >= FAILING_FOR;
                match resting {
                    Some(probe_at) => State::Open { probe_at },
                    None if long || failures >= FAILURES => State::Open { probe_at: now + PROBE_EVERY },
                    None => State::Closed(Some((since, failures))),
                }
            }
            // Also what set out before it opened, and fails after.
            State::Open { probe_at } | State::HalfOpen { probe_at } => {
                State::Open { probe_at: resting.map_or(probe_at, |resting| resting.max(probe_at)) }
            }
        };
    }

    /// When the next probe may go; `None` while everything passes.
    #[must_use]
    pub fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Closed(_) => None,
            State::Open { probe_at } | State::HalfOpen { probe_at } => Some(probe_at),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed(_) => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn fa_10_it_opens_within_two_seconds_and_probes_once_a_second() {
        // However far apart failures come: at the first one that is a second or more after the beginning.
        for gap in [1, 50, 300, 900, 1_000] {
            let mut breaker = Breaker::default();
            let began = Instant::now();
            let mut now = began;
            breaker.on_failure(now, None);
            while breaker.state() == BreakerState::Closed {
                now += ms(gap);
                breaker.on_failure(now, None);
            }
            assert!(now.duration_since(began) <= ms(2_000), "{gap}");

            // A minute of asking every 10 ms, with every probe failing.
            let mut probes = 0;
            for _ in 0..6_000 {
                if breaker.pass(now) == Pass::Probe {
                    probes += 1;
                    breaker.on_failure(now, None);
                }
                now += ms(10);
            }
            assert!((59..=61).contains(&probes), "{probes} probes in a minute");
        }
    }

    #[test]
    fn one_success_closes_it_and_one_failure_between_successes_does_not_open_it() {
        let mut breaker = Breaker::default();
        let mut now = Instant::now();
        for _ in 0..100 {
            breaker.on_failure(now, None);
            now += ms(2_000);
            breaker.on_success();
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        for _ in 0..FAILURES {
            breaker.on_failure(now, None);
        }
        assert_eq!(breaker.pass(now), Pass::No);
        now += PROBE_EVERY;
        assert_eq!((breaker.pass(now), breaker.state()), (Pass::Probe, BreakerState::HalfOpen));
        assert_eq!(breaker.pass(now), Pass::No, "one probe is enough");
        breaker.on_success();
        assert_eq!(breaker.pass(now), Pass::Go);
    }

    #[test]
    fn a_probe_that_is_never_heard_of_again_is_followed_by_another() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        breaker.on_failure(now, Some(ms(0)));
        assert_eq!(breaker.pass(now), Pass::Probe);
        assert_eq!(breaker.pass(now + ms(999)), Pass::No);
        assert_eq!(breaker.pass(now + PROBE_EVERY), Pass::Probe);
    }

    #[test]
    fn hk_03_a_back_end_that_asks_for_time_gets_it() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        breaker.on_failure(now, Some(ms(7_000)));
        assert_eq!(breaker.pass(now + ms(6_999)), Pass::No);
        assert_eq!(breaker.probe_at(), Some(now + ms(7_000)));
        assert_eq!(breaker.pass(now + ms(7_000)), Pass::Probe);
    }
}
