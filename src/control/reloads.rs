//! Reloads under way: the new rules on every shard.
//!
//! A pure state machine like the registry. It sends the rules to all shards at once and waits until each has them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::control::registry::OrderIds;
use crate::control::{CommandError, Configured};
use crate::names::ShardId;
use crate::shard::Rules;
use crate::shard::mail::{OrderId, ToShard};

/// Where an answer goes.
pub type Reply = oneshot::Sender<Result<Configured, CommandError>>;

/// See the module.
pub struct Reloads {
    order_timeout: Duration,
    pending: HashMap<u64, Reload>,
    orders: HashMap<OrderId, u64>,
}

struct Reload {
    closed: usize,
    /// Orders without an answer.
    waiting: HashSet<OrderId>,
    deadline: Instant,
    reply: Reply,
}

impl Reloads {
    /// Nothing under way.
    #[must_use]
    pub fn new(order_timeout: Duration) -> Self {
        Self { order_timeout, pending: HashMap::new(), orders: HashMap::new() }
    }

    /// Begins the reload that makes `generation`. Mail for `shards` is appended to `out`.
    pub fn begin(
        &mut self,
        now: Instant,
        generation: u64,
        shards: &[ShardId],
        rules: &Arc<Rules>,
        reply: Reply,
        ids: &mut OrderIds,
        out: &mut Vec<(ShardId, ToShard)>,
    ) {
        let mut waiting = HashSet::new();
        for &shard in shards {
            let order = ids.take();
            waiting.insert(order);
            self.orders.insert(order, generation);
            out.push((shard, ToShard::Configure { order, rules: Arc::clone(rules) }));
        }
        let deadline = now + self.order_timeout;
        self.pending.insert(generation, Reload { closed: 0, waiting, deadline, reply });
        self.answer_if_done(generation);
    }

    /// A shard has the rules, and has closed so many sessions over them. Returns false when the order is not one of
    /// these.
    pub fn done(&mut self, order: OrderId, closed: usize) -> bool {
        let Some(generation) = self.orders.remove(&order) else { return false };
        if let Some(reload) = self.pending.get_mut(&generation) {
            reload.waiting.remove(&order);
            reload.closed += closed;
        }
        self.answer_if_done(generation);
        true
    }

    /// Gives up waiting for shards that do not answer. They have the rules in their mail and obey them when they run.
    pub fn expire(&mut self, now: Instant) {
        let late: Vec<u64> =
            self.pending.iter().filter(|(_, reload)| reload.deadline <= now).map(|(number, _)| *number).collect();
        for reload in late.iter().filter_map(|generation| self.pending.remove(generation)) {
            for order in &reload.waiting {
                self.orders.remove(order);
            }
            // The caller may have gone; then nobody wants the answer.
            let _ = reload.reply.send(Err(CommandError::Timeout));
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.pending.values().map(|reload| reload.deadline).min()
    }

    fn answer_if_done(&mut self, generation: u64) {
        if self.pending.get(&generation).is_some_and(|reload| reload.waiting.is_empty())
            && let Some(reload) = self.pending.remove(&generation)
        {
            let _ = reload.reply.send(Ok(Configured { generation, closed: reload.closed }));
        }
    }
}
