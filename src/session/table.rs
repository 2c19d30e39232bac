//! A shard's sessions: opened, moved through their life, closed exactly once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::names::SessionId;
use crate::session::state::transition;
use crate::session::{CloseReason, Counters, Facts, Identity, Labels, SessionSample, State, Transition, Trigger};
use crate::stdx::ahead;

/// A session's place in the table; refers to nothing once the session is closed, even if the place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    index: u32,
    generation: u32,
}

/// One thing that happened to a session, in the order it happened.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whose.
    pub facts: Arc<Facts>,
    /// Counts from 1 within the session, without gaps.
    pub seq: u32,
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// First contact led to a request. Always first.
    Opened,
    /// The verdict was yes.
    Authorized,
    /// Media flows.
    Started,
    /// Periodic report.
    Updated(Counters),
    /// Bitrate or media changed.
    Altered,
    /// The cursor fell out of the window; frames skipped.
    Overflowed {
        /// Frames skipped.
        dropped_frames: u64,
    },
    /// Media stopped.
    Stalled,
    /// Media came back.
    Recovered,
    /// The verdict was no; `Closed` follows.
    Denied(CloseReason),
    /// The end, with the final totals. Always last.
    Closed(CloseReason, Counters),
}

impl What {
    /// What it means to the life-cycle.
    #[must_use]
    pub const fn trigger(&self) -> Trigger {
        match self {
            Self::Opened => Trigger::Opened,
            Self::Authorized => Trigger::Authorized,
            Self::Started => Trigger::Started,
            Self::Updated(_) => Trigger::Updated,
            Self::Altered => Trigger::Altered,
            Self::Overflowed { .. } => Trigger::Overflowed,
            Self::Stalled => Trigger::Stalled,
            Self::Recovered => Trigger::Recovered,
            Self::Denied(_) => Trigger::Denied,
            Self::Closed(..) => Trigger::Closed,
        }
    }
}

/// The table.
///
/// Opening and closing touch the heap (facts, and growth to a new peak of sessions); nothing else does, except
/// the queue of changes when it grows to a new peak. Everything but [`iter`](Self::iter) and
/// [`sample_changed`](Self::sample_changed) takes constant time.
#[derive(Default)]
pub struct Table {
    slots: Vec<Slot>,
    /// Vacant places that may be used again, last freed first: that one is still in the cache.
    free: Vec<u32>,
    by_id: HashMap<SessionId, SessionKey>,
    /// The places whose `dirty` bit is set, each once. Its capacity is never below the number of places, so
    /// that marking one does not allocate.
    dirty: Vec<u32>,
    changes: VecDeque<Change>,
    open: usize,
    illegal: u64,
}

/// One place.
struct Slot {
    generation: u32,
    /// Belongs to the place and not to its session: a place is in the list once, whoever comes and goes.
    dirty: bool,
    live: Option<Live>,
}

/// An open session.
struct Live {
    facts: Arc<Facts>,
    counters: Counters,
    queue_bytes: u64,
    seq: u32,
    state: State,
    /// A refusal was reported; nothing but the end may follow it.
    denied: bool,
}

impl Table {
    /// Opens a session; reports [`What::Opened`].
    ///
    /// An id that is already open is a defect of the caller: it is counted in [`illegal`](Self::illegal), both
    /// sessions live to their end, and [`find`](Self::find) knows the newer one.
    pub fn open(&mut self, now: Instant, facts: Facts) -> SessionKey {
        let facts = Arc::new(facts);
        let index = self.free.pop().unwrap_or_else(|| self.grow());
        let slot = &mut self.slots[index as usize];
        slot.live = Some(Live {
            facts: Arc::clone(&facts),
            counters: Counters::default(),
            queue_bytes: 0,
            seq: 1,
            state: State::Establishing,
            denied: false,
        });
        let key = SessionKey { index, generation: slot.generation };
        mark(&mut self.dirty, &mut slot.dirty, index);
        self.open += 1;
        if self.by_id.insert(facts.id, key).is_some() {
            self.illegal += 1;
        }
        self.changes.push_back(Change { facts, seq: 1, at: now, what: What::Opened });
        key
    }

    /// Moves a session; what the life-cycle table calls a repeat reports nothing, what it calls illegal
    /// reports nothing, is counted in [`illegal`](Self::illegal) and returns false.
    ///
    /// A stale key stands for a finished session. After [`What::Denied`] only the end may follow. Reporting
    /// does not count: `overflows` and `dropped_frames` belong to the writer of the counters.
    /// [`What::Closed`] is the same as [`close`](Self::close), whose totals are the table's own.
    pub fn record(&mut self, now: Instant, key: SessionKey, what: What) -> bool {
        if let What::Closed(reason, _) = what {
            self.close(now, key, reason);
            return true;
        }
        let trigger = what.trigger();
        let Some((dirty, live)) = lookup(&mut self.slots, key) else {
            return self.without_effect(transition(Some(State::Finished), trigger));
        };
        // A refused session is on its way out: it meets a trigger as the finished one that it is about to be.
        let verdict = transition(Some(if live.denied { State::Finished } else { live.state }), trigger);
        match verdict {
            Transition::To(state) => {
                live.state = state;
                mark(&mut self.dirty, dirty, key.index);
            }
            Transition::Stay => live.denied = trigger == Trigger::Denied,
            Transition::Repeat | Transition::Illegal => return self.without_effect(verdict),
        }
        live.seq = live.seq.saturating_add(1);
        self.changes.push_back(Change { facts: Arc::clone(&live.facts), seq: live.seq, at: now, what });
        true
    }

    /// The verdict was yes: the session's facts are from now on what the verdict says, and
    /// [`What::Authorized`] is reported with them. Returns false, and changes nothing, where that may not follow.
    pub fn authorize(&mut self, now: Instant, key: SessionKey, identity: Identity) -> bool {
        if let Some((_, live)) = lookup(&mut self.slots, key)
            && !live.denied
            && transition(Some(live.state), Trigger::Authorized) == Transition::Stay
            && (live.facts.key != identity.key
                || live.facts.user != identity.user
                || live.facts.labels != identity.labels)
        {
            live.facts = Arc::new(live.facts.identified(identity));
        }
        self.record(now, key, What::Authorized)
    }

    /// The verdict is going to be no, and says who was refused: the session's facts name him from now on.
    pub fn identify(&mut self, key: SessionKey, user: Option<&str>, labels: &Labels) {
        if let Some((_, live)) = lookup(&mut self.slots, key)
            && live.state == State::Establishing
            && !live.denied
            && (user.is_some() || !labels.is_empty())
        {
            let identity = Identity { key: live.facts.key.clone(), user: user.map(Box::from), labels: labels.clone() };
            live.facts = Arc::new(live.facts.identified(identity));
        }
    }

    /// Closes a session with its final counters; later calls for the same key do nothing.
    pub fn close(&mut self, now: Instant, key: SessionKey, reason: CloseReason) {
        let Some(slot) = self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation) else {
            return;
        };
        let Some(Live { facts, counters, seq, .. }) = slot.live.take() else { return };
        // A place whose generations are used up is never used again: its last key must stay stale.
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(key.index);
        }
        if self.by_id.get(&facts.id) == Some(&key) {
            self.by_id.remove(&facts.id);
        }
        self.open -= 1;
        let seq = seq.saturating_add(1);
        self.changes.push_back(Change { facts, seq, at: now, what: What::Closed(reason, counters) });
    }

    /// The counters, for the one writer. The session counts as changed from here on.
    pub fn counters_mut(&mut self, key: SessionKey) -> Option<&mut Counters> {
        let (dirty, live) = lookup(&mut self.slots, key)?;
        mark(&mut self.dirty, dirty, key.index);
        Some(&mut live.counters)
    }

    /// Begins to bring a session into the cache, for who is going to count on it.
    pub fn fetch(&self, key: SessionKey) {
        if let Some(slot) = self.slots.get(key.index as usize) {
            ahead::fetch(slot);
        }
    }

    /// Sets what waits for a player right now, and its peak.
    pub fn set_queue(&mut self, key: SessionKey, bytes: u64) {
        let Some((dirty, live)) = lookup(&mut self.slots, key) else { return };
        if live.queue_bytes != bytes {
            live.queue_bytes = bytes;
            live.counters.queue_peak_bytes = live.counters.queue_peak_bytes.max(bytes);
            mark(&mut self.dirty, dirty, key.index);
        }
    }

    /// The facts.
    #[must_use]
    pub fn facts(&self, key: SessionKey) -> Option<&Arc<Facts>> {
        self.live(key).map(|live| &live.facts)
    }

    /// The state.
    #[must_use]
    pub fn state(&self, key: SessionKey) -> Option<State> {
        self.live(key).map(|live| live.state)
    }

    /// The counters, to read.
    #[must_use]
    pub fn counters(&self, key: SessionKey) -> Option<&Counters> {
        self.live(key).map(|live| &live.counters)
    }

    /// What waits for a player right now.
    #[must_use]
    pub fn queue_bytes(&self, key: SessionKey) -> Option<u64> {
        self.live(key).map(|live| live.queue_bytes)
    }

    /// What waits for all players together right now.
    #[must_use]
    pub fn queue_bytes_total(&self) -> u64 {
        self.slots.iter().filter_map(|slot| slot.live.as_ref()).map(|live| live.queue_bytes).sum()
    }

    /// By its public id.
    #[must_use]
    pub fn find(&self, id: SessionId) -> Option<SessionKey> {
        self.by_id.get(&id).copied()
    }

    /// Every open session, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (SessionKey, &Arc<Facts>)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| {
            let live = slot.live.as_ref()?;
            Some((SessionKey { index, generation: slot.generation }, &live.facts))
        })
    }

    /// Sessions open now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open
    }

    /// True without sessions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next change, in order; to be drained after every step.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Appends a sample of every session whose numbers changed since the last call. Its cost is in proportion
    /// to those, not to the sessions open. A session that closed has no sample: its totals are in
    /// [`What::Closed`].
    pub fn sample_changed(&mut self, out: &mut Vec<SessionSample>) {
        out.reserve(self.dirty.len());
        for index in self.dirty.drain(..) {
            let slot = &mut self.slots[index as usize];
            slot.dirty = false;
            if let Some(live) = &slot.live {
                out.push(SessionSample {
                    id: live.facts.id,
                    state: live.state,
                    counters: live.counters,
                    queue_bytes: live.queue_bytes,
                });
            }
        }
    }

    /// Triggers that the life-cycle forbids, counted; each is a defect of ours.
    #[must_use]
    pub fn illegal(&self) -> u64 {
        self.illegal
    }

    fn live(&self, key: SessionKey) -> Option<&Live> {
        self.slots.get(key.index as usize).filter(|slot| slot.generation == key.generation)?.live.as_ref()
    }

    /// A new place at the end.
    fn grow(&mut self) -> u32 {
        let index = u32::try_from(self.slots.len()).expect("memory ends long before 2^32 sessions");
        self.slots.push(Slot { generation: 0, dirty: false, live: None });
        self.dirty.reserve(self.slots.len() - self.dirty.len());
        index
    }

    /// Counts a verdict that moves nothing if it is a defect; true if it is not.
    fn without_effect(&mut self, verdict: Transition) -> bool {
        let illegal = verdict == Transition::Illegal;
        self.illegal += u64::from(illegal);
        !illegal
    }
}

/// The session that `key` refers to, beside the mark of its place.
fn lookup(slots: &mut [Slot], key: SessionKey) -> Option<(&mut bool, &mut Live)> {
    let slot = slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?;
    Some((&mut slot.dirty, slot.live.as_mut()?))
}

/// Puts a place into the list of changed ones unless it is there.
fn mark(list: &mut Vec<u32>, dirty: &mut bool, index: u32) {
    if !*dirty {
        *dirty = true;
        list.push(index);
    }
}
