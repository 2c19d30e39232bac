//! Telling one receiver: what drives a [`Teller`].

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tracing::{error, warn};

use crate::admission::Failure;
use crate::hook::breaker::BreakerState;
use crate::hook::client::{BackEnd, StartError};
use crate::hook::meter::{Meter, Status};
use crate::hook::settings::{Settings, Tell};
use crate::hook::teller::{Counts, Limits, Outcome, Parcel, Request, Teller};
use crate::hook::webhook;

/// Parcels read from the spool at once.
const PAGE: usize = 256;
/// The most bytes of events held in memory for one receiver, within a page.
const WINDOW_BYTES: usize = 16 << 20;
/// However still the spool is, it is looked at after this: a wake-up that was lost costs no more than that.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// And so soon after it could not be read.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What is still to be told to one receiver. Control implements it over the ledger.
///
/// The contract: a page has the parcels after `after` in the order of their ids, the lowest first, and **no parcel shows
/// before one with a lower id has**, or the latter would not be told in this life of the server. Parcels that are said to
/// be done may show for a while yet.
pub trait Spool: Send + Sync + 'static {
    /// At most `limit` parcels with ids above `after`, and fewer when they are large; an empty page only when there are
    /// none, and none when it cannot be said just now.
    fn page(&self, after: i64, limit: usize) -> impl Future<Output = Option<Vec<Parcel>>> + Send;

    /// These have been heard, or never will be; they may go. Does not wait.
    fn done(&self, ids: Vec<i64>);
}

/// One receiver: its address, its secrets, and what is known of it. Clones are the same.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    name: Box<str>,
    back_end: BackEnd,
    limits: Limits,
    timeout: Duration,
    now: Mutex<Now>,
}

/// What changes about a receiver.
struct Now {
    meter: Meter,
    held: usize,
    breaker: BreakerState,
    counts: Counts,
}

impl Endpoint {
    /// Makes ready to tell.
    ///
    /// # Errors
    /// When the URL is none, or TLS cannot be set up: the system has no certificates, for one.
    pub fn new(settings: &Settings, tell: &Tell) -> Result<Self, StartError> {
        let limits = Limits {
            batch_max: tell.batch_max,
            concurrency: settings.concurrency.max(1),
            window: settings.queue.max(1),
            window_bytes: WINDOW_BYTES,
            rate: settings.tell_rate,
        };
        Ok(Self(Arc::new(Inner {
            name: tell.name.as_str().into(),
            // Of what a receiver says only the status matters: what else is in the head does not make it undone.
            back_end: BackEnd::new(settings, &tell.name, &tell.url, &tell.secrets, tell.allow_private, None)?,
            limits,
            timeout: settings.event_timeout,
            now: Mutex::new(Now {
                meter: Meter::default(),
                held: 0,
                breaker: BreakerState::Closed,
                counts: Counts::default(),
            }),
        })))
    }

    /// The name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Signs with the secrets of other settings from now on, if the receiver is among them.
    pub fn sign_with(&self, settings: &Settings) {
        if let Some(tell) = settings.tell.iter().find(|tell| *tell.name == *self.0.name) {
            self.0.back_end.sign_with(&tell.secrets);
        }
    }

    /// What is known of it.
    #[must_use]
    pub fn status(&self) -> Status {
        self.locked(|now| Status {
            name: self.0.name.clone(),
            requests: now.meter.requests(),
            seconds: now.meter.seconds(),
            queue: now.held,
            breaker: now.breaker,
            told: now.counts,
        })
    }

    /// Makes one request, and says what came of it.
    async fn request(self, request: Request) -> (u64, Outcome) {
        let begun = tokio::time::Instant::now();
        let (id, body) = self.document(&request);
        let result = timeout(self.0.timeout, self.0.back_end.notify(&id, body)).await.unwrap_or(Err(Failure::Timeout));
        let (word, outcome) = match result {
            Ok(reply) => match reply.status {
                200..=299 => ("taken", Outcome::Taken),
                // These are about what was sent. What is about us (401, 403, 404, …) is the operator's to mend, and the
                // events are kept until then.
                400 | 409 | 413 | 415 | 422 => ("refused", Outcome::Refused),
                status => (Failure::Status(status).as_str(), Outcome::Failed { back_off: reply.back_off }),
            },
            Err(failure) => (failure.as_str(), Outcome::Failed { back_off: None }),
        };
        self.locked(|now| now.meter.add(word, Some(begun.elapsed())));
        (request.number, outcome)
    }

    /// The name of a request and its body. An event that travels alone is the body itself, and gives its name; a list
    /// has the name of its first, and says how many there are.
    fn document(&self, request: &Request) -> (String, Bytes) {
        match request.parcels.as_slice() {
            [parcel] if self.0.limits.batch_max <= 1 => (parcel.event_id.to_string(), parcel.body.clone()),
            parcels => {
                let first = parcels.first().map_or("", |parcel| &parcel.event_id);
                let name = format!("batch-{first}-{}", parcels.len());
                (name, webhook::batch(parcels.iter().map(|parcel| &*parcel.body)))
            }
        }
    }

    /// Takes over what the teller knows, and tells the log of what changed.
    fn note(&self, teller: &Teller) {
        let (before, after) = self.locked(|now| {
            let before = now.breaker;
            *now = Now {
                meter: std::mem::take(&mut now.meter),
                held: teller.held(),
                breaker: teller.breaker(),
                counts: teller.counts(),
            };
            (before, now.breaker)
        });
        let shut = |state| state != BreakerState::Closed;
        if shut(after) && !shut(before) {
            warn!(hook = self.name(), "hook_fails");
        } else if shut(before) && !shut(after) {
            warn!(hook = self.name(), "hook_back");
        }
    }

    fn locked<T>(&self, f: impl FnOnce(&mut Now) -> T) -> T {
        f(&mut self.0.now.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Tells a receiver what its spool has, for ever: spawn it on control's runtime and drop it at the end; requests that are
/// under way then are made again in the next life of the server. `wake` changes when the spool may have more.
pub async fn tell<S: Spool>(endpoint: Endpoint, spool: S, mut wake: watch::Receiver<u64>) {
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let mut teller = Teller::new(endpoint.0.limits, seed);
    let mut requests: JoinSet<(u64, Outcome)> = JoinSet::new();
    let now = || -> Instant { tokio::time::Instant::now().into() };
    // Whether the spool may have more than was read, whether anybody will say so, and when to look in any case.
    let (mut more, mut awake) = (true, true);
    let mut look_at = tokio::time::Instant::now() + LOOK_EVERY;
    loop {
        if more && teller.room() > 0 {
            let limit = teller.room().min(PAGE);
            if let Some(page) = spool.page(teller.cursor(), limit).await {
                more = !page.is_empty();
                teller.handle_page(page);
            } else {
                more = false;
                look_at = look_at.min(tokio::time::Instant::now() + LOOK_AGAIN);
            }
        }
        while let Some(request) = teller.poll_request(now()) {
            requests.spawn(endpoint.clone().request(request));
        }
        let done = teller.poll_done();
        if !done.is_empty() {
            spool.done(done);
        }
        for event_id in teller.poll_given_up() {
            error!(hook = endpoint.name(), event = &*event_id, "hook_gave_up");
        }
        endpoint.note(&teller);

        let full = !more || teller.room() == 0;
        let due = teller.deadline();
        let due = due.map_or(look_at, |due| look_at.min(due.into()));
        tokio::select! {
            // There is more to read, and room for it: after the others had their turn.
            () = tokio::task::yield_now(), if !full => {}
            Some(landed) = requests.join_next() => {
                if let Ok((number, outcome)) = landed {
                    teller.handle_outcome(now(), number, outcome);
                } else {
                    // A request that panicked has no number to report: all begins anew from the spool.
                    requests = JoinSet::new();
                    teller = Teller::new(endpoint.0.limits, seed);
                    more = true;
                }
            }
            woken = wake.changed(), if awake => {
                awake = woken.is_ok();
                more = true;
            }
            () = sleep_until(due) => {
                if due == look_at {
                    more = true;
                    look_at = tokio::time::Instant::now() + LOOK_EVERY;
                }
            }
        }
    }
}
