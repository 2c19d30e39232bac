//! What waits for the writer: bounded in bytes, and ordered by what may be lost when there is no more room.
//!
//! Control pushes and never waits; the writer takes, and gives back what it could not commit. The queue therefore is
//! also where records wait while the disk is full.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::admission::Whom;
use crate::event::{Event, Weight};
use crate::ledger::{Dropped, Entry, Health, OnFull, Settings, Status, StoredBan};
use crate::names::SessionId;
use crate::session::{Counters, What};

/// The queue.
pub struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    ended: Condvar,
    committed: watch::Sender<u64>,
    bytes_max: u64,
    records_max: usize,
    commit_every: Duration,
    on_full: OnFull,
    attempts: bool,
}

/// What the writer works on next. Its buffers are used again and again.
#[derive(Default)]
pub struct Batch {
    pub entries: VecDeque<Weighed>,
    pub checkpoints: Vec<(SessionId, Sample)>,
    pub told: Vec<(Arc<str>, Vec<i64>)>,
    pub bans: Vec<BanOrder>,
    /// This is the end; nothing follows.
    pub is_last: bool,
}

/// An entry with its share of the bound.
pub struct Weighed {
    pub entry: Entry,
    bytes: u64,
}

/// A session's counters at one instant.
#[derive(Clone, Copy)]
pub struct Sample {
    pub at: Instant,
    pub counters: Counters,
}

/// A change to the bans.
#[derive(Clone)]
pub enum BanOrder {
    Keep(StoredBan),
    Lift(Whom),
}

#[derive(Default)]
struct State {
    entries: VecDeque<Weighed>,
    checkpoints: HashMap<SessionId, Sample>,
    told: Vec<(Arc<str>, Vec<i64>)>,
    bans: Vec<BanOrder>,
    /// Bytes of everything here and with the writer.
    bytes: u64,
    /// The highest number that was given.
    highest: u64,
    /// The first number that the writer is at work on.
    in_flight: Option<u64>,
    /// When the oldest of what waits came.
    since: Option<Instant>,
    /// The same of what the writer is at work on.
    in_flight_since: Option<Instant>,
    /// Nothing is tried before.
    not_before: Option<Instant>,
    checkpoint_at: Option<Instant>,
    /// Every entry that waits is an opening or an end: there is nothing lighter to throw away.
    is_pressed: bool,
    is_stopping: bool,
    has_ended: bool,
    status: Status,
}

/// What an entry takes beside its tells: the event with its facts, and its places here.
const ENTRY_BYTES: u64 = 640;
/// What a tell takes beside its text and body.
const TELL_BYTES: u64 = 128;
/// What a checkpoint takes.
const CHECKPOINT_BYTES: u64 = 160;
/// Bans and lists of what was told that may wait; they are few and small, and worth more than what they take.
const ORDERS_MAX: usize = 65_536;
/// The longest that the writer sleeps without work: then it looks for days to close and to remove.
const IDLE: Duration = Duration::from_secs(1);

impl Queue {
    pub fn new(settings: &Settings) -> Self {
        let mut state = State::default();
        state.status.queue_bytes_max = settings.queue_bytes;
        Self {
            state: Mutex::new(state),
            ready: Condvar::new(),
            ended: Condvar::new(),
            committed: watch::Sender::new(0),
            bytes_max: settings.queue_bytes,
            records_max: settings.commit_records.max(1),
            commit_every: settings.commit_every,
            on_full: settings.on_full,
            attempts: settings.attempts,
        }
    }

    pub fn committed(&self) -> watch::Receiver<u64> {
        self.committed.subscribe()
    }

    /// Takes an entry, whole, in part or not at all, as there is room.
    pub fn record(&self, mut entry: Entry) {
        let mut state = self.lock();
        state.highest = state.highest.max(entry.number);
        if state.has_ended {
            // Nobody will commit it, and nobody may hear of it.
            count(&mut state.status.dropped, &entry);
            return;
        }
        if entry.tells.is_empty() && !self.leaves_a_trace(&entry.event) {
            self.settle(&mut state);
            return;
        }
        if state.bytes > self.bytes_max / 5 * 4 && !lighten(&mut state.status.dropped, &mut entry) {
            self.settle(&mut state);
            return;
        }
        let bytes = bytes_of(&entry);
        if state.bytes + bytes > self.bytes_max {
            self.make_room(&mut state, bytes);
        }
        if state.bytes + bytes > self.bytes_max {
            // The writer holds it all, or this one alone is too large.
            count(&mut state.status.dropped, &entry);
            self.settle(&mut state);
            return;
        }
        state.is_pressed &= is_of_life(&entry.event);
        state.bytes += bytes;
        state.entries.push_back(Weighed { entry, bytes });
        self.wake(&mut state);
    }

    /// Takes counters of running sessions; under pressure only now and then, and then not at all.
    pub fn checkpoint(&self, at: Instant, samples: Vec<(SessionId, Counters)>) {
        let mut state = self.lock();
        let percent = state.bytes.saturating_mul(100) / self.bytes_max.max(1);
        let apart = match percent {
            0..=50 => Duration::ZERO,
            51..=65 => Duration::from_secs(10),
            66..=80 => Duration::from_secs(30),
            _ => Duration::MAX,
        };
        let is_due =
            apart.is_zero() || state.checkpoint_at.is_none_or(|last| at.saturating_duration_since(last) >= apart);
        if !is_due || apart == Duration::MAX || state.has_ended {
            state.status.dropped.checkpoints += samples.len() as u64;
            return;
        }
        state.checkpoint_at = Some(at);
        for (id, counters) in samples {
            if state.bytes + CHECKPOINT_BYTES > self.bytes_max {
                state.status.dropped.checkpoints += 1;
            } else if state.checkpoints.insert(id, Sample { at, counters }).is_none() {
                state.bytes += CHECKPOINT_BYTES;
            }
        }
        self.wake(&mut state);
    }

    /// Takes the news that a sink has taken rows. What is forgotten here is told twice, which receivers expect.
    pub fn told(&self, sink: &str, ids: Vec<i64>) {
        let mut state = self.lock();
        if state.told.len() < ORDERS_MAX && !ids.is_empty() {
            match state.told.last_mut() {
                Some((last, more)) if **last == *sink => more.extend(ids),
                _ => state.told.push((sink.into(), ids)),
            }
            self.wake(&mut state);
        }
    }

    pub fn ban(&self, order: BanOrder) {
        let mut state = self.lock();
        if state.bans.len() < ORDERS_MAX {
            state.bans.push(order);
            self.wake(&mut state);
            return;
        }
        state.status.dropped.bans += 1;
        let dropped = state.status.dropped.bans;
        drop(state);
        // Once for each doubling: a flood of bans must not become one of lines.
        if dropped.is_power_of_two() {
            tracing::error!(ev = "ledger", dropped, "bans are not recorded, because too many wait for the disk");
        }
    }

    pub fn status(&self) -> Status {
        let state = self.lock();
        let mut status = state.status.clone();
        status.queue_bytes = state.bytes;
        let oldest = state.in_flight_since.into_iter().chain(state.since).min();
        status.lag = oldest.map(|since| since.elapsed()).unwrap_or_default();
        status.refuse_new = status.health == Health::Degraded && self.on_full == OnFull::RefuseNew;
        status
    }

    /// Asks the writer to commit what there is and to end, and waits for that; whether it has.
    pub fn stop(&self, patience: Duration) -> bool {
        let mut state = self.lock();
        state.is_stopping = true;
        self.ready.notify_all();
        let until = Instant::now() + patience;
        while !state.has_ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.has_ended
    }

    /// Leaves the disk alone for so long, whatever comes; true when the ledger is stopped meanwhile.
    pub fn rest(&self, rest: Duration) -> bool {
        let until = Instant::now() + rest;
        let mut state = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.is_stopping || left.is_zero() {
                return state.is_stopping;
            }
            state = self.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until a commit is due and moves what it takes into `batch`. Returns false when nothing came for a while.
    pub fn take(&self, batch: &mut Batch) -> bool {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let wait = state.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
            let wait = match state.since {
                _ if state.is_stopping => break,
                None => IDLE,
                Some(_) if wait > Duration::ZERO => wait.min(IDLE),
                Some(since) => {
                    let is_full =
                        state.entries.len() >= self.records_max || state.checkpoints.len() >= self.records_max;
                    let left = self.commit_every.saturating_sub(now.duration_since(since));
                    if is_full || left.is_zero() {
                        break;
                    }
                    left
                }
            };
            let (guard, timeout) = self.ready.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if timeout.timed_out() && (state.since.is_none() || state.not_before.is_some_and(|at| at > Instant::now()))
            {
                return false;
            }
        }
        state.not_before = None;
        let count = state.entries.len().min(self.records_max);
        batch.entries.extend(state.entries.drain(..count));
        state.in_flight = batch.entries.front().map(|first| first.entry.number);
        if batch.checkpoints.is_empty() {
            batch.checkpoints.extend(state.checkpoints.drain());
        }
        mem::swap(&mut batch.told, &mut state.told);
        mem::swap(&mut batch.bans, &mut state.bans);
        batch.is_last = state.is_stopping && state.entries.is_empty();
        let now = Instant::now();
        state.in_flight_since = state.since.or(Some(now));
        // What is left does not wait for another delay.
        let is_left = !state.entries.is_empty();
        state.since = is_left.then(|| now.checked_sub(self.commit_every).unwrap_or(now));
        true
    }

    /// The writer is done with a batch: what is still in it goes back to where it came from, and after `rest` may be
    /// tried again. `worked` are the checkpoints that left it.
    pub fn done(&self, batch: &mut Batch, done_bytes: u64, worked: usize, rest: Option<Duration>) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(done_bytes).saturating_sub(worked as u64 * CHECKPOINT_BYTES);
        while let Some(entry) = batch.entries.pop_back() {
            state.is_pressed &= is_of_life(&entry.entry.event);
            state.entries.push_front(entry);
        }
        for (sink, ids) in batch.told.drain(..) {
            if state.told.len() < ORDERS_MAX {
                state.told.push((sink, ids));
            }
        }
        let newer = mem::take(&mut state.bans);
        state.bans.append(&mut batch.bans);
        state.bans.extend(newer);
        state.in_flight = None;
        let before = state.in_flight_since.take();
        let now = Instant::now();
        state.not_before = rest.map(|rest| now + rest);
        if rest.is_some() {
            state.since = before.or(state.since).or(Some(now));
        } else if !batch.checkpoints.is_empty() {
            // The rest of the checkpoints does not wait for another delay.
            state.since = now.checked_sub(self.commit_every).or(Some(now));
        }
        self.settle(&mut state);
    }

    /// Changes what [`status`](Self::status) says.
    pub fn report(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock().status);
    }

    /// How many entries could not be recorded for a reason of their own, which is a defect.
    pub fn count_dropped(&self, entry: &Entry) {
        count(&mut self.lock().status.dropped, entry);
    }

    /// The writer has ended.
    pub fn end(&self) {
        let mut state = self.lock();
        state.has_ended = true;
        let state = &mut *state;
        for waiting in state.entries.drain(..) {
            count(&mut state.status.dropped, &waiting.entry);
        }
        self.ended.notify_all();
    }

    /// True when half of the room is taken: what waits for no disk may not wait for anything else any more.
    pub fn is_half_full(&self) -> bool {
        self.lock().bytes > self.bytes_max / 2
    }

    /// True when `Ledger::stop` was called: a disk that fails is not waited for.
    pub fn is_stopping(&self) -> bool {
        self.lock().is_stopping
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an event by itself leaves something in a file.
    fn leaves_a_trace(&self, event: &Event) -> bool {
        match event {
            Event::Session(_) => true,
            Event::Attempt(_) => self.attempts,
            Event::Stream(_) | Event::Server(_) => false,
        }
    }

    /// Wakes the writer at the first record, which starts its delay, and when a commit is full.
    fn wake(&self, state: &mut State) {
        if state.since.is_none() {
            state.since = Some(Instant::now());
            self.ready.notify_one();
        } else if state.entries.len() == self.records_max {
            self.ready.notify_one();
        }
    }

    /// Throws away what weighs least until there is room for `bytes`, and somewhat more so that this is rare.
    fn make_room(&self, state: &mut State, bytes: u64) {
        let goal = (self.bytes_max - self.bytes_max / 16).saturating_sub(bytes);
        let State { entries, checkpoints, status, .. } = state;
        let dropped = &mut status.dropped;

        let held = checkpoints.len() as u64;
        checkpoints.clear();
        dropped.checkpoints += held;
        state.bytes = state.bytes.saturating_sub(held * CHECKPOINT_BYTES);

        if state.bytes > goal && !state.is_pressed {
            let mut freed = 0;
            entries.retain_mut(|waiting| {
                if !lighten(dropped, &mut waiting.entry) {
                    freed += waiting.bytes;
                    return false;
                }
                let bytes = bytes_of(&waiting.entry);
                freed += waiting.bytes - bytes;
                waiting.bytes = bytes;
                true
            });
            state.bytes = state.bytes.saturating_sub(freed);
            state.is_pressed = true;
        }
        while state.bytes > goal
            && let Some(oldest) = entries.pop_front()
        {
            count(dropped, &oldest.entry);
            state.bytes = state.bytes.saturating_sub(oldest.bytes);
        }
    }

    /// Says how far everything is committed, or dropped and counted.
    fn settle(&self, state: &mut State) {
        let first = state.in_flight.or_else(|| state.entries.front().map(|first| first.entry.number));
        let committed = first.map_or(state.highest, |first| first.saturating_sub(1));
        self.committed.send_if_modified(|before| {
            let grows = committed > *before;
            *before = committed.max(*before);
            grows
        });
    }
}

/// Leaves an entry only what opens or closes a session, and counts the rest; false when nothing is left.
fn lighten(dropped: &mut Dropped, entry: &mut Entry) -> bool {
    if is_of_life(&entry.event) {
        return true;
    }
    entry.tells.retain(|tell| {
        match tell.weight {
            Weight::Update => dropped.tells_update += 1,
            Weight::Other => dropped.tells_other += 1,
            Weight::Must => return true,
        }
        false
    });
    if !entry.tells.is_empty() {
        return true;
    }
    match &*entry.event {
        Event::Session(_) => dropped.updates += 1,
        Event::Attempt(_) => dropped.attempts += 1,
        Event::Stream(_) | Event::Server(_) => {}
    }
    false
}

/// Counts an entry that is dropped whole.
fn count(dropped: &mut Dropped, entry: &Entry) {
    match &*entry.event {
        Event::Session(change) => match change.what {
            What::Closed(..) => dropped.closes += 1,
            What::Opened => dropped.opens += 1,
            _ => dropped.updates += 1,
        },
        Event::Attempt(_) => dropped.attempts += 1,
        Event::Stream(_) | Event::Server(_) => {}
    }
    for tell in &entry.tells {
        match tell.weight {
            Weight::Update => dropped.tells_update += 1,
            Weight::Other => dropped.tells_other += 1,
            Weight::Must => dropped.tells_must += 1,
        }
    }
}

/// Whether a session begins or ends with it. Who it is and that it started belong to the beginning.
fn is_of_life(event: &Event) -> bool {
    matches!(event, Event::Session(change) if matches!(
        change.what,
        What::Opened | What::Authorized | What::Started | What::Denied(_) | What::Closed(..)
    ))
}

fn bytes_of(entry: &Entry) -> u64 {
    let tells = entry.tells.iter().map(|tell| TELL_BYTES + (tell.event_id.len() + tell.body.len()) as u64);
    ENTRY_BYTES + tells.sum::<u64>()
}

impl Weighed {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
