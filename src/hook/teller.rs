//! What is told in which order: the state of telling one receiver, without sockets and with time as an argument.
//!
//! Events of one session travel in a **lane**: the next sets out when those before it have been taken, so that whatever
//! fails and whenever, the receiver hears them in order. Lanes know nothing of each other, and what belongs to no session
//! has a lane of its own. A lane whose head failed waits and the others go on.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::event::Weight;
use crate::hook::breaker::{Breaker, BreakerState, Pass};
use crate::names::SessionId;
use crate::stdx::ids::SplitMix;

/// The wait after a first failure is anything up to this; it doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// And is never longer than this.
pub const RETRY_MAX: Duration = Duration::from_mins(1);
/// A receiver that refuses an event is asked so often before the event is given up.
pub const REFUSALS_MAX: u32 = 10;
/// And, for what must be told, for so long.
pub const REFUSED_FOR: Duration = Duration::from_hours(1);
/// What goes at once before the rate holds it back.
const BURST: Duration = Duration::from_millis(100);
/// The most bytes of events in one request; one event alone may be larger.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// One event that is to be told to one receiver, as its spool keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Its place in the spool; grows in the order of recording.
    pub id: i64,
    /// Names the event for good.
    pub event_id: Box<str>,
    /// Whose events are told in order. Parcels of none are told in any order.
    pub session: Option<SessionId>,
    /// What may be left out.
    pub weight: Weight,
    /// What is told.
    pub body: Bytes,
}

/// What bounds the telling of one receiver.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Events in one request.
    pub batch_max: usize,
    /// Requests under way at once.
    pub concurrency: usize,
    /// Events held in memory.
    pub window: usize,
    /// Bytes of them.
    pub window_bytes: usize,
    /// Events a second.
    pub rate: u32,
}

/// A request that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// By which its outcome is reported.
    pub number: u64,
    /// What to tell, in this order; at least one.
    pub parcels: Vec<Parcel>,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Taken,
    /// The receiver understands the request and wants no such event.
    Refused,
    /// The receiver did not hear it, or could not say so.
    Failed {
        /// How long it asked to be left alone.
        back_off: Option<Duration>,
    },
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that the receiver took.
    pub taken: u64,
    /// Requests that failed or were refused, each of which is made again.
    pub retried: u64,
    /// Reports that a newer one of the same session took the place of.
    pub replaced: u64,
    /// Events that the receiver refused until they were given up.
    pub given_up: u64,
}

/// The teller of one receiver.
pub struct Teller {
    limits: Limits,
    dice: SplitMix,
    breaker: Breaker,
    /// When the rate has room again; what goes before this is owed.
    paid_until: Option<Instant>,
    /// The highest id that was handed in.
    cursor: i64,
    lanes: HashMap<Lane, Queue>,
    /// Lanes that may set out, the oldest first: by the id that their head had when they became ready. A lane is here,
    /// in `waiting`, or in a flight.
    ready: BTreeMap<i64, Lane>,
    /// Lanes that wait after a failure.
    waiting: BTreeMap<(Instant, i64), Lane>,
    flights: HashMap<u64, Flight>,
    flown: u64,
    held: usize,
    held_bytes: usize,
    done: Vec<i64>,
    given_up: Vec<Box<str>>,
    counts: Counts,
}

/// Whose events follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lane {
    Session(SessionId),
    Alone(i64),
}

/// The events of one lane; never empty.
struct Queue {
    parcels: VecDeque<Parcel>,
    /// So many of the first are under way.
    flying: usize,
    /// Failures in a row.
    attempts: u32,
    /// Refusals of the head, and since when.
    refused: Option<(Instant, u32)>,
}

/// A request under way: its lanes, with how many events of each.
struct Flight {
    lanes: Vec<(Lane, usize)>,
}

impl Teller {
    /// A teller that has heard of nothing. The seed scatters retries.
    #[must_use]
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            dice: SplitMix::new(seed),
            breaker: Breaker::default(),
            paid_until: None,
            cursor: 0,
            lanes: HashMap::new(),
            ready: BTreeMap::new(),
            waiting: BTreeMap::new(),
            flights: HashMap::new(),
            flown: 0,
            held: 0,
            held_bytes: 0,
            done: Vec::new(),
            given_up: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// After which id the next page begins.
    #[must_use]
    pub fn cursor(&self) -> i64 {
        self.cursor
    }

    /// How many more events may be handed in.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.held_bytes < self.limits.window_bytes { self.limits.window.saturating_sub(self.held) } else { 0 }
    }

    /// Takes a page of the spool. What was handed in before is passed over.
    pub fn handle_page(&mut self, parcels: Vec<Parcel>) {
        for parcel in parcels {
            if parcel.id > self.cursor {
                self.cursor = parcel.id;
                self.add(parcel);
            }
        }
    }

    /// The next request, if one may be made now.
    pub fn poll_request(&mut self, now: Instant) -> Option<Request> {
        while let Some(((at, id), lane)) = self.waiting.first_key_value().map(|(key, lane)| (*key, *lane)) {
            if at > now {
                break;
            }
            self.waiting.remove(&(at, id));
            self.set_ready(lane);
        }
        if self.flights.len() >= self.limits.concurrency || self.ready.is_empty() || self.rate_allows_at() > Some(now) {
            return None;
        }
        let (parcels_max, bytes_max) = match self.breaker.pass(now) {
            Pass::No => return None,
            // As little as shows whether the receiver is back.
            Pass::Probe => (1, 0),
            Pass::Go => (self.limits.batch_max.max(1), REQUEST_BYTES_MAX),
        };
        let request = self.load(parcels_max, bytes_max)?;
        let cost = Duration::from_secs(request.parcels.len() as u64) / self.limits.rate.max(1);
        self.paid_until = Some(self.paid_until.map_or(now, |paid| paid.max(now)) + cost);
        Some(request)
    }

    /// What came of a request.
    pub fn handle_outcome(&mut self, now: Instant, number: u64, outcome: Outcome) {
        let Some(flight) = self.flights.remove(&number) else { return };
        match outcome {
            Outcome::Taken | Outcome::Refused => self.breaker.on_success(),
            Outcome::Failed { back_off } => {
                self.breaker.on_failure(now, back_off.map(|time| time.min(RETRY_MAX)));
            }
        }
        if outcome != Outcome::Taken {
            self.counts.retried = self.counts.retried.saturating_add(1);
        }
        let alone = matches!(flight.lanes.as_slice(), [(_, 1)]);
        for (lane, flying) in flight.lanes {
            match outcome {
                Outcome::Taken => {
                    self.counts.taken = self.counts.taken.saturating_add(flying as u64);
                    self.land(lane, flying);
                }
                Outcome::Refused if alone && self.is_given_up(now, lane) => {
                    self.counts.given_up = self.counts.given_up.saturating_add(1);
                    let head = self.lanes.get(&lane).and_then(|queue| queue.parcels.front());
                    self.given_up.extend(head.map(|parcel| parcel.event_id.clone()));
                    self.land(lane, 1);
                }
                Outcome::Refused | Outcome::Failed { .. } => self.retry(now, lane, outcome == Outcome::Refused),
            }
        }
    }

    /// The ids that may leave the spool, each once.
    pub fn poll_done(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.done)
    }

    /// The events that were given up since the last call.
    pub fn poll_given_up(&mut self) -> Vec<Box<str>> {
        std::mem::take(&mut self.given_up)
    }

    /// When [`poll_request`](Self::poll_request) may give something although nothing else has happened.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.flights.len() >= self.limits.concurrency {
            return None;
        }
        let waiting = self.waiting.first_key_value().map(|((at, _), _)| *at);
        let ready = (!self.ready.is_empty()).then(|| self.breaker.probe_at().max(self.rate_allows_at())).flatten();
        match (waiting, ready) {
            (Some(waiting), Some(ready)) => Some(waiting.min(ready)),
            (waiting, ready) => waiting.or(ready),
        }
    }

    /// Events held in memory, those under way included.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// What has happened since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether the receiver is being left alone.
    #[must_use]
    pub fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }

    fn add(&mut self, parcel: Parcel) {
        let lane = parcel.session.map_or(Lane::Alone(parcel.id), Lane::Session);
        self.held = self.held.saturating_add(1);
        self.held_bytes = self.held_bytes.saturating_add(parcel.body.len());
        let Some(queue) = self.lanes.get_mut(&lane) else {
            self.ready.insert(parcel.id, lane);
            let parcels = VecDeque::from([parcel]);
            self.lanes.insert(lane, Queue { parcels, flying: 0, attempts: 0, refused: None });
            return;
        };
        if parcel.weight == Weight::Update {
            let waits = queue.parcels.iter().skip(queue.flying).position(|older| older.weight == Weight::Update);
            if let Some(older) = waits.and_then(|at| queue.parcels.remove(at.saturating_add(queue.flying))) {
                self.held = self.held.saturating_sub(1);
                self.held_bytes = self.held_bytes.saturating_sub(older.body.len());
                self.counts.replaced = self.counts.replaced.saturating_add(1);
                self.done.push(older.id);
            }
        }
        queue.parcels.push_back(parcel);
    }

    /// Loads a request from the lanes that are ready, the oldest first.
    fn load(&mut self, parcels_max: usize, bytes_max: usize) -> Option<Request> {
        let (mut parcels, mut lanes, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
        while parcels.len() < parcels_max {
            let Some((id, lane)) = self.ready.first_key_value().map(|(id, lane)| (*id, *lane)) else { break };
            let Some(queue) = self.lanes.get_mut(&lane) else {
                self.ready.remove(&id);
                continue;
            };
            // What was refused travels alone, so that it is known who is meant.
            let alone = queue.refused.is_some();
            if alone && !parcels.is_empty() {
                break;
            }
            let mut flying = 0_usize;
            for parcel in queue.parcels.iter().take(parcels_max.saturating_sub(parcels.len())) {
                let more = bytes.saturating_add(parcel.body.len());
                if (more > bytes_max && !parcels.is_empty()) || (alone && flying == 1) {
                    break;
                }
                bytes = more;
                flying = flying.saturating_add(1);
                parcels.push(parcel.clone());
            }
            if flying == 0 {
                break;
            }
            queue.flying = flying;
            self.ready.remove(&id);
            lanes.push((lane, flying));
            if alone || bytes >= bytes_max {
                break;
            }
        }
        if parcels.is_empty() {
            return None;
        }
        self.flown = self.flown.saturating_add(1);
        self.flights.insert(self.flown, Flight { lanes });
        Some(Request { number: self.flown, parcels })
    }

    /// The first `flying` of a lane are done with; the next may set out.
    fn land(&mut self, lane: Lane, flying: usize) {
        let Some(queue) = self.lanes.get_mut(&lane) else { return };
        for parcel in queue.parcels.drain(..flying.min(queue.parcels.len())) {
            self.held = self.held.saturating_sub(1);
            self.held_bytes = self.held_bytes.saturating_sub(parcel.body.len());
            self.done.push(parcel.id);
        }
        queue.flying = 0;
        queue.attempts = 0;
        queue.refused = None;
        if queue.parcels.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.set_ready(lane);
        }
    }

    /// A lane waits and tries again: anything up to twice as long as the last time.
    fn retry(&mut self, now: Instant, lane: Lane, refused: bool) {
        let Some(queue) = self.lanes.get_mut(&lane) else { return };
        let most = RETRY_FIRST.saturating_mul(1 << queue.attempts.min(16)).min(RETRY_MAX);
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        let wait = Duration::from_millis(self.dice.below(most.saturating_add(1)));
        queue.attempts = queue.attempts.saturating_add(1);
        if refused && queue.refused.is_none() {
            queue.refused = Some((now, 0));
        }
        queue.flying = 0;
        if let Some(head) = queue.parcels.front() {
            self.waiting.insert((now + wait, head.id), lane);
        }
    }

    /// Counts a refusal of the head of a lane, and says whether it is the last one.
    fn is_given_up(&mut self, now: Instant, lane: Lane) -> bool {
        let Some(queue) = self.lanes.get_mut(&lane) else { return false };
        let (since, refusals) = queue.refused.map_or((now, 1), |(since, many)| (since, many.saturating_add(1)));
        queue.refused = Some((since, refusals));
        let must = queue.parcels.front().is_some_and(|parcel| parcel.weight == Weight::Must);
        refusals >= REFUSALS_MAX && (!must || now.saturating_duration_since(since) >= REFUSED_FOR)
    }

    fn set_ready(&mut self, lane: Lane) {
        if let Some(head) = self.lanes.get(&lane).and_then(|queue| queue.parcels.front()) {
            self.ready.insert(head.id, lane);
        }
    }

    /// When the rate lets the next one pass.
    fn rate_allows_at(&self) -> Option<Instant> {
        self.paid_until.and_then(|paid| paid.checked_sub(BURST))
    }
}
