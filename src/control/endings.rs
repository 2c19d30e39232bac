//! Terminations under way: bans on every shard first, then the sessions on theirs.
//!
//! A pure state machine like the registry. It sends bans to all shards and waits until each knows them, so that
//! a peer that comes straight back is refused wherever it lands, and only then has the sessions closed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::admission::{Ban, Whom};
use crate::control::registry::OrderIds;
use crate::control::view::SessionRow;
use crate::control::{CommandError, Filter, Terminate, Terminated, View};
use crate::names::{SessionId, ShardId};
use crate::session::Reason;
use crate::shard::mail::{OrderId, ToShard};

/// The most ids or bans in one message: a shard carries one out within a millisecond.
pub const BATCH: usize = 1_000;
/// The most ids named in an answer.
const NAMED_MAX: usize = 1_000;
/// The longest ban.
const BAN_MAX: Duration = Duration::from_hours(365 * 24);

/// Where an answer goes.
pub type Reply = oneshot::Sender<Result<Terminated, CommandError>>;

/// See the module.
pub struct Endings {
    order_timeout: Duration,
    pending: HashMap<u64, Ending>,
    orders: HashMap<OrderId, u64>,
    /// Bans made and not yet taken for the record.
    made: Vec<Ban>,
    count: u64,
    /// Of those that are over and that nobody has asked about: how long they took.
    took: Vec<Duration>,
}

struct Ending {
    what: Terminate,
    outcome: Terminated,
    /// Every session that matched, by the shard that has it.
    targets: BTreeMap<ShardId, Vec<SessionId>>,
    banned: HashSet<Whom>,
    stage: Stage,
    /// Orders of this stage without an answer.
    waiting: HashSet<OrderId>,
    deadline: Instant,
    began_at: Instant,
    /// A shard did not answer in time.
    late: bool,
    reply: Reply,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Banning,
    Closing,
}

impl Endings {
    /// Nothing under way.
    #[must_use]
    pub fn new(order_timeout: Duration) -> Self {
        Self {
            order_timeout,
            pending: HashMap::new(),
            orders: HashMap::new(),
            made: Vec::new(),
            count: 0,
            took: Vec::new(),
        }
    }

    /// Begins one. `shards` are those that run; mail for them is appended to `out`.
    pub fn begin(
        &mut self,
        now: Instant,
        view: &View,
        shards: &[ShardId],
        what: Terminate,
        reply: Reply,
        ids: &mut OrderIds,
        out: &mut Vec<(ShardId, ToShard)>,
    ) {
        let mut targets: BTreeMap<ShardId, Vec<SessionId>> = BTreeMap::new();
        let mut outcome = Terminated::default();
        let mut banned = HashSet::new();
        let ban_for = what.ban_for.filter(|ban_for| !ban_for.is_zero()).map(|ban_for| ban_for.min(BAN_MAX));
        for row in view.select(&what.filter) {
            outcome.matched += 1;
            if outcome.ids.len() < NAMED_MAX {
                outcome.ids.push(row.facts.id);
            }
            targets.entry(row.facts.shard).or_default().push(row.facts.id);
            if ban_for.is_some() {
                banned.extend(whom(row));
            }
        }
        if what.dry_run || outcome.matched == 0 {
            let _ = reply.send(Ok(outcome));
            return;
        }
        outcome.banned = banned.len();
        let until = now + ban_for.unwrap_or_default();
        let bans = banned.iter().map(|whom| Ban { whom: whom.clone(), until }).collect();
        let ending = Ending {
            what,
            outcome,
            targets,
            banned,
            stage: Stage::Banning,
            waiting: HashSet::new(),
            deadline: now + self.order_timeout,
            began_at: now,
            late: false,
            reply,
        };
        self.start(now, view, shards, ending, bans, ids, out);
    }

    /// Bans one peer, and ends what it has here.
    pub fn ban(
        &mut self,
        now: Instant,
        view: &View,
        shards: &[ShardId],
        ban: Ban,
        reply: Reply,
        ids: &mut OrderIds,
        out: &mut Vec<(ShardId, ToShard)>,
    ) {
        let what = Terminate {
            filter: Filter::default(),
            reason: Reason::Banned.into(),
            ban_for: Some(ban.until.saturating_duration_since(now)),
            dry_run: false,
        };
        let ending = Ending {
            what,
            began_at: now,
            outcome: Terminated { banned: 1, ..Terminated::default() },
            targets: BTreeMap::new(),
            banned: HashSet::from([ban.whom.clone()]),
            stage: Stage::Banning,
            waiting: HashSet::new(),
            deadline: now + self.order_timeout,
            late: false,
            reply,
        };
        self.start(now, view, shards, ending, vec![ban], ids, out);
    }

    /// Bans made since the last call, for the record.
    pub fn take_made(&mut self) -> Vec<Ban> {
        std::mem::take(&mut self.made)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of control that it works on")]
    fn start(
        &mut self,
        now: Instant,
        view: &View,
        shards: &[ShardId],
        mut ending: Ending,
        bans: Vec<Ban>,
        ids: &mut OrderIds,
        out: &mut Vec<(ShardId, ToShard)>,
    ) {
        self.count += 1;
        let number = self.count;
        for batch in bans.chunks(BATCH) {
            let batch: Arc<[Ban]> = batch.into();
            for &shard in shards {
                let order = ids.take();
                ending.waiting.insert(order);
                self.orders.insert(order, number);
                out.push((shard, ToShard::Ban { order, bans: batch.clone() }));
            }
        }
        self.made.extend(bans);
        self.pending.insert(number, ending);
        self.advance(now, number, view, ids, out);
    }

    /// A shard carried out an order. Returns false when the order is not one of these.
    pub fn done(
        &mut self,
        now: Instant,
        order: OrderId,
        count: usize,
        view: &View,
        ids: &mut OrderIds,
        out: &mut Vec<(ShardId, ToShard)>,
    ) -> bool {
        let Some(number) = self.orders.remove(&order) else { return false };
        if let Some(ending) = self.pending.get_mut(&number) {
            ending.waiting.remove(&order);
            if ending.stage == Stage::Closing {
                ending.outcome.closed += count;
            }
        }
        self.advance(now, number, view, ids, out);
        true
    }

    /// Gives up on shards that did not answer. One that missed the bans does not keep the others from closing
    /// their sessions; the caller is told either way.
    pub fn expire(&mut self, now: Instant, view: &View, ids: &mut OrderIds, out: &mut Vec<(ShardId, ToShard)>) {
        let late: Vec<u64> =
            self.pending.iter().filter(|(_, ending)| ending.deadline <= now).map(|(number, _)| *number).collect();
        for number in late {
            if let Some(ending) = self.pending.get_mut(&number) {
                ending.late = true;
                for order in ending.waiting.drain() {
                    self.orders.remove(&order);
                }
            }
            self.advance(now, number, view, ids, out);
        }
    }

    /// How long each took that is over since the last call, those included that a shard was late for.
    pub fn take_times(&mut self) -> impl Iterator<Item = Duration> + '_ {
        self.took.drain(..)
    }

    /// When [`expire`](Self::expire) has something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.pending.values().map(|ending| ending.deadline).min()
    }

    /// Goes on to the next stage when nothing is waited for.
    fn advance(
        &mut self,
        now: Instant,
        number: u64,
        view: &View,
        ids: &mut OrderIds,
        out: &mut Vec<(ShardId, ToShard)>,
    ) {
        let Some(ending) = self.pending.get_mut(&number) else { return };
        if !ending.waiting.is_empty() {
            return;
        }
        if ending.stage == Stage::Banning {
            ending.stage = Stage::Closing;
            ending.deadline = now + self.order_timeout;
            ending.add_those_that_slipped_in(view);
            for (shard, sessions) in &ending.targets {
                for batch in sessions.chunks(BATCH) {
                    let order = ids.take();
                    ending.waiting.insert(order);
                    self.orders.insert(order, number);
                    let reason = ending.what.reason;
                    out.push((*shard, ToShard::Close { order, sessions: batch.to_vec(), reason, text: None }));
                }
            }
            // Nobody of a peer that is banned beforehand is here: then it is over.
            if !ending.waiting.is_empty() {
                return;
            }
        }
        if let Some(ending) = self.pending.remove(&number) {
            self.took.push(now.saturating_duration_since(ending.began_at));
            // The caller may have gone; then nobody wants the answer.
            let _ = ending.reply.send(if ending.late { Err(CommandError::Timeout) } else { Ok(ending.outcome) });
        }
    }
}

impl Ending {
    /// True for a session whose peer is banned, exactly or altogether.
    fn concerns(&self, row: &SessionRow) -> bool {
        whom(row).any(|exactly| {
            let Whom { address, kind, key } = exactly.clone();
            self.banned.contains(&exactly)
                || self.banned.contains(&Whom { address, kind: None, key })
                || self.banned.contains(&Whom { address, kind, key: None })
                || self.banned.contains(&Whom { address, kind: None, key: None })
        })
    }

    /// A banned peer may have come in on a shard that did not know the ban yet. Its opening was reported before
    /// that shard's answer, so it is in the view by now.
    fn add_those_that_slipped_in(&mut self, view: &View) {
        if self.banned.is_empty() {
            return;
        }
        let known: HashSet<SessionId> = self.targets.values().flatten().copied().collect();
        for row in view.select(&self.what.filter) {
            if !known.contains(&row.facts.id) && self.concerns(row) {
                self.outcome.matched += 1;
                if self.outcome.ids.len() < NAMED_MAX {
                    self.outcome.ids.push(row.facts.id);
                }
                self.targets.entry(row.facts.shard).or_default().push(row.facts.id);
            }
        }
    }
}

/// Whom a ban of this session's peer names: it on the stream that it is on, and on the one that it asked for, under
/// which it will come back.
fn whom(row: &SessionRow) -> impl Iterator<Item = Whom> + use<> {
    let facts = &row.facts;
    let (address, kind) = (facts.remote.ip().to_canonical(), facts.kind);
    let keys = std::iter::once(facts.key.clone()).chain(facts.asked_key.clone());
    keys.map(move |key| Whom::exactly(address, kind, key))
}

#[cfg(test)]
mod tests;
