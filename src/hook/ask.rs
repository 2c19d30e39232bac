//! Asking: somebody waits for the answer, so it comes within a time, or a failure does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};
use uuid::Uuid;

pub use crate::admission::Why;
use crate::admission::{Answer, Failure};
use crate::hook::breaker::{Breaker, BreakerState, Pass};
use crate::hook::client::{BackEnd, StartError};
use crate::hook::meter::{Meter, Status};
use crate::hook::reply::{self, Response};
use crate::hook::settings::{Ask, Settings};
use crate::hook::teller::Counts;
use crate::hook::webhook;
use crate::session::{Counters, Facts};

/// However long a back end asks to be left alone, newcomers wait for it: it is tried again after this.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// The back ends that are asked. One per process; clones are the same.
#[derive(Clone)]
pub struct Asks(Arc<Inner>);

struct Inner {
    node: Box<str>,
    deadline: Duration,
    queue_max: usize,
    back_ends: Vec<Asked>,
}

/// One back end.
struct Asked {
    name: Box<str>,
    back_end: BackEnd,
    turns: Semaphore,
    now: Mutex<Now>,
}

/// What changes about a back end.
#[derive(Default)]
struct Now {
    breaker: Breaker,
    meter: Meter,
    /// Questions that wait or are under way.
    open: usize,
}

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

impl Asks {
    /// Makes ready to ask. `node` is how this server names itself to back ends.
    ///
    /// # Errors
    /// When a URL is none, or TLS cannot be set up: the system has no certificates, for one. Without back ends nothing
    /// is set up.
    pub fn new(settings: &Settings, node: &str) -> Result<Self, StartError> {
        let back_ends: Result<Vec<Asked>, StartError> = settings
            .ask
            .iter()
            .map(|ask: &Ask| {
                let headers_max = usize::try_from(settings.response_headers).ok();
                let back_end =
                    BackEnd::new(settings, &ask.name, &ask.url, &ask.secrets, ask.allow_private, headers_max)?;
                let turns = Semaphore::new(settings.concurrency.clamp(1, Semaphore::MAX_PERMITS));
                Ok(Asked { name: ask.name.as_str().into(), back_end, turns, now: Mutex::default() })
            })
            .collect();
        let (deadline, queue_max) = (settings.decide_timeout, settings.queue);
        Ok(Self(Arc::new(Inner { node: node.into(), deadline, queue_max, back_ends: back_ends? })))
    }

    /// Asks the `hook`-th of `hook.ask`. Takes no longer than `hook.decide_timeout`, waiting for its turn included; an
    /// answer that comes later is never read.
    pub async fn ask(&self, hook: usize, question: &Question) -> Answer {
        // Nobody of that number is like nobody who answers.
        let Some(asked) = self.0.back_ends.get(hook) else { return Answer::Failure(Failure::Connect) };
        let begun = Instant::now();
        let deadline = begun + self.0.deadline;
        let (answer, took) = match asked.enter(self.0.queue_max) {
            Err(failure) => (Answer::Failure(failure), None),
            Ok(_open) => {
                let (answer, went_out) = asked.put(question, &self.0.node, deadline).await;
                (answer, went_out.then(|| begun.elapsed()))
            }
        };
        asked.locked(|now| now.meter.add(word(&answer), took));
        debug!(hook = &*asked.name, sid = %question.facts.id, result = word(&answer), "hook_asked");
        answer
    }

    /// Signs with the secrets of other settings from now on: those of the back end of the same name. One that is not
    /// there keeps its own.
    pub fn sign_with(&self, settings: &Settings) {
        for asked in &self.0.back_ends {
            if let Some(ask) = settings.ask.iter().find(|ask| *ask.name == *asked.name) {
                asked.back_end.sign_with(&ask.secrets);
            }
        }
    }

    /// What is known of each back end, in the order of the configuration.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let status = |asked: &Asked| {
            asked.locked(|now| Status {
                name: asked.name.clone(),
                requests: now.meter.requests(),
                seconds: now.meter.seconds(),
                queue: now.open,
                breaker: now.breaker.state(),
                told: Counts::default(),
            })
        };
        self.0.back_ends.iter().map(status).collect()
    }
}

impl Asked {
    /// Counts a question in, unless there are too many or nobody to answer.
    fn enter(&self, queue_max: usize) -> Result<Open<'_>, Failure> {
        self.locked(|now| {
            // Known before it queues; the breaker is asked again, for good, when the turn has come.
            let shut = now.breaker.probe_at().is_some_and(|at| at > Instant::now().into_std());
            if shut {
                return Err(Failure::BreakerOpen);
            }
            if now.open >= queue_max {
                return Err(Failure::QueueFull);
            }
            now.open = now.open.saturating_add(1);
            Ok(Open(self))
        })
    }

    /// Puts the question when its turn comes. Also says whether it went out.
    async fn put(&self, question: &Question, node: &str, deadline: Instant) -> (Answer, bool) {
        // Time that passes in the queue is no fault of the back end, and the breaker does not hear of it.
        let Ok(Ok(_turn)) = timeout_at(deadline, self.turns.acquire()).await else {
            return (Answer::Failure(Failure::Timeout), false);
        };
        if self.locked(|now| now.breaker.pass(Instant::now().into())) == Pass::No {
            return (Answer::Failure(Failure::BreakerOpen), false);
        }
        let id = Uuid::new_v4().to_string();
        let request = self.back_end.post(&id, webhook::question(question, &id, node));
        let (answer, back_off) = match timeout_at(deadline, request).await.unwrap_or(Err(Failure::Timeout)) {
            Ok(reply) => {
                let response =
                    Response { status: reply.status, encoding: reply.encoding.as_deref(), body: &reply.body };
                (reply::read(&response), reply.back_off)
            }
            Err(failure) => (Answer::Failure(failure), None),
        };
        match answer {
            Answer::Allow(_) | Answer::Deny { .. } => self.answered(),
            Answer::Failure(_) => self.failed(back_off.map(|time| time.min(BACK_OFF_MAX))),
        }
        (answer, true)
    }

    fn answered(&self) {
        let before = self.locked(|now| {
            let before = now.breaker.state();
            now.breaker.on_success();
            before
        });
        if before != BreakerState::Closed {
            warn!(hook = &*self.name, "hook_back");
        }
    }

    fn failed(&self, back_off: Option<Duration>) {
        let (before, after) = self.locked(|now| {
            let before = now.breaker.state();
            now.breaker.on_failure(Instant::now().into(), back_off);
            (before, now.breaker.state())
        });
        if before == BreakerState::Closed && after == BreakerState::Open {
            warn!(hook = &*self.name, "hook_fails");
        }
    }

    fn locked<T>(&self, f: impl FnOnce(&mut Now) -> T) -> T {
        f(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts a question out, also when whoever asked has gone.
struct Open<'a>(&'a Asked);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.locked(|now| now.open = now.open.saturating_sub(1));
    }
}

/// The word for metrics.
fn word(answer: &Answer) -> &'static str {
    match answer {
        Answer::Allow(_) => "allow",
        Answer::Deny { .. } => "deny",
        Answer::Failure(failure) => failure.as_str(),
    }
}
