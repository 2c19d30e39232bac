//! Who publishes what on which shard, and which shards want it: decided here, once, for all shards.
//!
//! A pure state machine: it is told what shards say and what time it is, and answers with [`Action`]s to be
//! carried out in order. For every stream it keeps three promises:
//!
//! * at most one session holds the right to publish; a take-over first ends the old one and only then admits
//!   the new one;
//! * every shard with subscribers, except the one where the publisher is, has exactly one relay from there;
//! * nothing is remembered of a stream without publisher, subscribers and resume window.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::Ticket;
use crate::admission::settings::DuplicatePublish;
use crate::event::{StreamEvent, StreamWhat};
use crate::names::{SessionId, ShardId, StreamKey};
use crate::session::{CloseReason, Facts, Reason};
use crate::shard::mail::OrderId;

/// What to do next.
#[derive(Debug)]
pub enum Action {
    /// Answer a question.
    Verdict {
        /// The shard that asked.
        to: ShardId,
        /// What it asked.
        ticket: Ticket,
        /// About whom.
        session: SessionId,
        /// The answer: yes, or why not.
        verdict: Result<(), CloseReason>,
    },
    /// Close one session as `replaced`; tell [`Registry::done`] when the shard has.
    Close {
        /// The shard that has it.
        to: ShardId,
        /// Quoted in the shard's answer.
        order: OrderId,
        /// Which.
        session: SessionId,
    },
    /// Connect two shards for a stream.
    OpenRelay {
        /// The stream.
        key: StreamKey,
        /// Where its publisher is.
        from: ShardId,
        /// Where its players are.
        to: ShardId,
    },
    /// Disconnect them.
    CloseRelay {
        /// The stream.
        key: StreamKey,
        /// Where its publisher is or was.
        from: ShardId,
        /// Where its players are or were.
        to: ShardId,
    },
    /// Tell the bus.
    Happened(StreamEvent),
}

/// Numbers orders: no two orders to shards share one.
#[derive(Debug, Default)]
pub struct OrderIds(u64);

impl OrderIds {
    /// Takes the next.
    pub fn take(&mut self) -> OrderId {
        self.0 += 1;
        OrderId(self.0)
    }
}

/// See the module.
pub struct Registry {
    policy: DuplicatePublish,
    resume_window: Duration,
    order_timeout: Duration,
    entries: HashMap<StreamKey, Entry>,
    /// Streams by when something is due for them; an entry is here exactly while its `due` is set.
    due: BTreeSet<(Instant, StreamKey)>,
    /// Orders to close an old publisher.
    orders: HashMap<OrderId, StreamKey>,
    actions: VecDeque<Action>,
    replaced: u64,
}

#[derive(Default)]
struct Entry {
    /// Who holds the stream. Still set while a take-over waits for its end.
    publisher: Option<Publisher>,
    takeover: Option<Takeover>,
    /// Where media comes from, or came from while the resume window runs.
    home: Option<ShardId>,
    /// The session that brought it online last; set exactly while `home` is.
    online: Option<SessionId>,
    /// Where the open relays come from; differs from `home` only within a step.
    fed_from: Option<ShardId>,
    /// The end of the resume window, while it runs.
    idle_until: Option<Instant>,
    /// Shards with subscribers.
    interested: BTreeSet<ShardId>,
    /// Shards with a relay from `fed_from`.
    relays: BTreeSet<ShardId>,
    /// The instant under which this stream stands in `Registry::due`.
    due: Option<Instant>,
}

struct Publisher {
    shard: ShardId,
    facts: Arc<Facts>,
}

/// The old publisher has been told to go.
struct Takeover {
    order: OrderId,
    deadline: Instant,
    /// Who gets the stream; `None` once the newcomer has left again.
    newcomer: Option<Newcomer>,
}

struct Newcomer {
    shard: ShardId,
    ticket: Ticket,
    facts: Arc<Facts>,
}

impl Registry {
    /// A registry without streams.
    #[must_use]
    pub fn new(policy: DuplicatePublish, resume_window: Duration, order_timeout: Duration) -> Self {
        Self {
            policy,
            resume_window,
            order_timeout,
            entries: HashMap::new(),
            due: BTreeSet::new(),
            orders: HashMap::new(),
            actions: VecDeque::new(),
            replaced: 0,
        }
    }

    /// Other rules from now on. A resume window that runs keeps its end.
    pub fn configure(&mut self, policy: DuplicatePublish, resume_window: Duration) {
        self.policy = policy;
        self.resume_window = resume_window;
    }

    /// A session on `shard` wants to publish its stream.
    pub fn ask_publish(
        &mut self,
        now: Instant,
        shard: ShardId,
        ticket: Ticket,
        facts: Arc<Facts>,
        orders: &mut OrderIds,
    ) {
        let key = facts.key.clone();
        let policy = self.policy;
        let newcomer = Newcomer { shard, ticket, facts };
        let entry = self.entries.entry(key.clone()).or_default();
        let refusal = |newcomer: &Newcomer, reason: Reason| Action::Verdict {
            to: newcomer.shard,
            ticket: newcomer.ticket,
            session: newcomer.facts.id,
            verdict: Err(reason.into()),
        };
        if let Some(takeover) = &mut entry.takeover {
            // The old publisher is on its way out. Whoever waits for its place is the one to beat.
            match takeover.newcomer.take() {
                None => takeover.newcomer = Some(newcomer),
                Some(waiting) if may_take_over(policy, &waiting.facts, &newcomer.facts) => {
                    self.actions.push_back(refusal(&waiting, Reason::Replaced));
                    takeover.newcomer = Some(newcomer);
                }
                Some(waiting) => {
                    self.actions.push_back(refusal(&newcomer, Reason::DuplicatePublish));
                    takeover.newcomer = Some(waiting);
                }
            }
            return;
        }
        match &entry.publisher {
            None => self.grant(now, &key, newcomer),
            Some(holder) if holder.facts.id == newcomer.facts.id => {
                // The holder asks again: it still holds.
                let session = newcomer.facts.id;
                self.actions.push_back(Action::Verdict { to: shard, ticket, session, verdict: Ok(()) });
            }
            Some(holder) if may_take_over(policy, &holder.facts, &newcomer.facts) => {
                let order = orders.take();
                self.orders.insert(order, key.clone());
                self.actions.push_back(Action::Close { to: holder.shard, order, session: holder.facts.id });
                let deadline = now + self.order_timeout;
                entry.takeover = Some(Takeover { order, deadline, newcomer: Some(newcomer) });
                self.settle(&key);
            }
            Some(_) => self.actions.push_back(refusal(&newcomer, Reason::DuplicatePublish)),
        }
    }

    /// True when [`ask_publish`](Self::ask_publish) would refuse this newcomer as things are. Changes nothing.
    #[must_use]
    pub fn refuses(&self, newcomer: &Facts) -> bool {
        let Some(entry) = self.entries.get(&newcomer.key) else { return false };
        let is_beaten = |holder: &Facts| !may_take_over(self.policy, holder, newcomer);
        match &entry.takeover {
            Some(takeover) => takeover.newcomer.as_ref().is_some_and(|waiting| is_beaten(&waiting.facts)),
            None => entry
                .publisher
                .as_ref()
                .is_some_and(|holder| holder.facts.id != newcomer.id && is_beaten(&holder.facts)),
        }
    }

    /// A session that published, or asked to, has ended. Said twice or about a session that has lost its
    /// stream, it changes nothing.
    pub fn publisher_left(&mut self, now: Instant, key: &StreamKey, session: SessionId) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.publisher.as_ref().is_some_and(|publisher| publisher.facts.id == session) {
            self.holder_gone(now, key);
        } else if let Some(takeover) = &mut entry.takeover {
            // A newcomer that does not wait: the old publisher goes all the same, it has been told to.
            takeover.newcomer.take_if(|newcomer| newcomer.facts.id == session);
        }
    }

    /// A shard has its first subscriber of a stream.
    pub fn subscribe(&mut self, shard: ShardId, key: &StreamKey) {
        self.entries.entry(key.clone()).or_default().interested.insert(shard);
        self.settle(key);
    }

    /// A shard's last subscriber of a stream left.
    pub fn unsubscribe(&mut self, shard: ShardId, key: &StreamKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.interested.remove(&shard);
            self.settle(key);
        }
    }

    /// A shard carried out an order. Returns false when the order is not one of the registry's.
    pub fn done(&mut self, now: Instant, order: OrderId) -> bool {
        let Some(key) = self.orders.get(&order).cloned() else { return false };
        self.holder_gone(now, &key);
        true
    }

    /// Ends waits that are over: resume windows, and shards that did not answer. A shard that does not close
    /// an old publisher within the order's time has lost its say: the newcomer is admitted.
    pub fn expire(&mut self, now: Instant) {
        while let Some((at, key)) = self.due.first().cloned() {
            if at > now {
                break;
            }
            let Some(entry) = self.entries.get_mut(&key) else {
                self.due.pop_first();
                continue;
            };
            if entry.takeover.is_some() {
                self.holder_gone(now, &key);
            } else {
                self.go_offline(now, &key);
            }
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The server ends: nobody comes back within a resume window, and whoever still holds a stream has lost it.
    pub fn end(&mut self, now: Instant, reason: CloseReason) {
        self.due.clear();
        self.orders.clear();
        let entries = std::mem::take(&mut self.entries).into_iter();
        let mut online: Vec<_> = entries.filter_map(|(key, entry)| Some((entry.online?, key))).collect();
        // In the order in which they came.
        online.sort_unstable();
        for (publisher, key) in online {
            self.happened(now, &key, StreamWhat::Offline { publisher, reason });
        }
    }

    /// The next thing to do; to be drained after every call.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Where a stream's media comes from, or came from while its resume window runs.
    #[must_use]
    pub fn home(&self, key: &StreamKey) -> Option<ShardId> {
        self.entries.get(key)?.home
    }

    /// True for a stream that is published, wanted, or in its resume window.
    #[must_use]
    pub fn knows(&self, key: &StreamKey) -> bool {
        self.entries.contains_key(key)
    }

    /// Streams known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without streams.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Publishers that took a stream over from another.
    #[must_use]
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// The publisher no longer publishes, for whatever reason: it left, it was closed, or its shard did not
    /// answer in time. Whoever waits for its place gets it.
    fn holder_gone(&mut self, now: Instant, key: &StreamKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let held = entry.publisher.take().is_some();
        let takeover = entry.takeover.take();
        if let Some(takeover) = &takeover {
            self.orders.remove(&takeover.order);
        }
        if let Some(newcomer) = takeover.and_then(|takeover| takeover.newcomer) {
            self.replaced += 1;
            self.grant(now, key, newcomer);
        } else if held {
            self.happened(now, key, StreamWhat::Idle);
            if self.resume_window.is_zero() {
                self.go_offline(now, key);
            } else {
                if let Some(entry) = self.entries.get_mut(key) {
                    entry.idle_until = Some(now + self.resume_window);
                }
                self.settle(key);
            }
        } else {
            self.settle(key);
        }
    }

    fn grant(&mut self, now: Instant, key: &StreamKey, newcomer: Newcomer) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Newcomer { shard, ticket, facts } = newcomer;
        let resumed = entry.home.is_some();
        let publisher = facts.id;
        entry.home = Some(shard);
        entry.online = Some(publisher);
        entry.idle_until = None;
        entry.publisher = Some(Publisher { shard, facts });
        // The verdict goes before the relays, so that the shard has the stream when it is told to copy it.
        self.actions.push_back(Action::Verdict { to: shard, ticket, session: publisher, verdict: Ok(()) });
        self.settle(key);
        self.happened(now, key, StreamWhat::Online { publisher, shard, resumed });
    }

    fn go_offline(&mut self, now: Instant, key: &StreamKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.idle_until = None;
        entry.home = None;
        let publisher = entry.online.take();
        self.settle(key);
        if let Some(publisher) = publisher {
            self.happened(now, key, StreamWhat::Offline { publisher, reason: Reason::StreamEnded.into() });
        }
    }

    fn happened(&mut self, at: Instant, key: &StreamKey, what: StreamWhat) {
        self.actions.push_back(Action::Happened(StreamEvent { key: key.clone(), at, what }));
    }

    /// Brings relays and deadlines in line with what the stream has become, and forgets it when nothing is left.
    fn settle(&mut self, key: &StreamKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(from) = entry.fed_from {
            let moved = entry.home != Some(from);
            let interested = &entry.interested;
            entry.relays.retain(|&to| {
                let keep = !moved && interested.contains(&to);
                if !keep {
                    self.actions.push_back(Action::CloseRelay { key: key.clone(), from, to });
                }
                keep
            });
        }
        entry.fed_from = entry.home;
        if let Some(from) = entry.home {
            for &to in entry.interested.iter().filter(|&&to| to != from) {
                if entry.relays.insert(to) {
                    self.actions.push_back(Action::OpenRelay { key: key.clone(), from, to });
                }
            }
        }

        let due = entry.takeover.as_ref().map(|takeover| takeover.deadline).or(entry.idle_until);
        if entry.due != due {
            if let Some(before) = entry.due.take() {
                self.due.remove(&(before, key.clone()));
            }
            if let Some(at) = due {
                self.due.insert((at, key.clone()));
            }
            entry.due = due;
        }

        let over = entry.publisher.is_none()
            && entry.takeover.is_none()
            && entry.idle_until.is_none()
            && entry.interested.is_empty();
        if over {
            self.entries.remove(key);
        }
    }
}

/// What a second publisher of a busy stream meets.
fn may_take_over(policy: DuplicatePublish, holder: &Facts, newcomer: &Facts) -> bool {
    match policy {
        DuplicatePublish::Reject => false,
        DuplicatePublish::Takeover => true,
        DuplicatePublish::TakeoverSameIdentity => match (&holder.user, &newcomer.user) {
            (None, None) => {
                // Without names, an encoder that comes back is known by its address and the token in its query.
                holder.remote.ip().to_canonical() == newcomer.remote.ip().to_canonical()
                    && holder.query == newcomer.query
            }
            (holder, newcomer) => holder == newcomer,
        },
    }
}

#[cfg(test)]
mod tests;
