//! How mail reaches control and leaves it, whatever carries it.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use crate::names::ShardId;
use crate::shard::Post;
use crate::shard::mail::{ToControl, ToShard};

/// Control's end of the queues between it and the shards: real queues with doorbells in the server, plain
/// vectors in tests. Mail of one shard arrives in the order it was sent, both ways.
pub trait Mailbox {
    /// How many shards there are; their ids count from zero.
    fn shards(&self) -> usize;

    /// Puts mail into a shard's queue and rings its doorbell. Never blocks.
    ///
    /// # Errors
    /// Gives the mail back when the queue is full.
    // The mail is the error on purpose: a full queue must not lose it.
    #[allow(clippy::result_large_err)]
    fn send(&mut self, to: ShardId, mail: ToShard) -> Result<(), ToShard>;

    /// Wakes a shard that is not heard of.
    fn nudge(&mut self, shard: ShardId) {
        // Mail in memory has nobody asleep.
        let _ = shard;
    }

    /// The next mail of any shard. Takes from the shards in turn, so that a busy one does not starve the others.
    fn poll(&mut self) -> Option<(ShardId, ToControl)>;

    /// Resolves when mail may have come. May resolve for nothing; is dropped and made anew at will, so a
    /// ring between two calls must not be lost.
    fn wait(&mut self) -> impl Future<Output = ()>;
}

/// The server's own mail: the post office that it shares with the shards.
pub struct PostMail {
    post: Arc<Post>,
    /// The shard whose turn it is.
    turn: u16,
}

impl PostMail {
    /// Control's end of `post`.
    #[must_use]
    pub fn new(post: Arc<Post>) -> Self {
        Self { post, turn: 0 }
    }
}

impl Mailbox for PostMail {
    fn shards(&self) -> usize {
        self.post.shards()
    }

    fn send(&mut self, to: ShardId, mail: ToShard) -> Result<(), ToShard> {
        self.post.to_shard(to, mail)
    }

    fn nudge(&mut self, shard: ShardId) {
        self.post.nudge_shard(shard);
    }

    fn poll(&mut self) -> Option<(ShardId, ToControl)> {
        for _ in 0..self.post.shards() {
            let from = ShardId(self.turn);
            self.turn = if from.index() + 1 < self.post.shards() { self.turn + 1 } else { 0 };
            if let Some(mail) = self.post.take_for_control(from) {
                return Some((from, mail));
            }
        }
        None
    }

    async fn wait(&mut self) {
        self.post.control_rung().await;
    }
}

/// Mail that waits here for one shard whose queue is full. A shard that let so much pile up has not run for
/// minutes; what comes beyond is dropped and counted, and health has long said so.
const WAITING_MAX: usize = 131_072;

/// Sends to shards and keeps what a full queue did not take, in order.
pub(super) struct Outbox {
    waiting: Vec<VecDeque<ToShard>>,
    stopped: Vec<bool>,
    /// Mail lost because a shard did not take any for far too long.
    pub(super) dropped: u64,
}

impl Outbox {
    pub(super) fn new(shards: usize) -> Self {
        Self { waiting: (0..shards).map(|_| VecDeque::new()).collect(), stopped: vec![false; shards], dropped: 0 }
    }

    /// Sends now if nothing waits before it, and later otherwise. Mail for a shard that has stopped, or that
    /// does not exist, is nobody's.
    pub(super) fn send<M: Mailbox>(&mut self, mailbox: &mut M, to: ShardId, mail: ToShard) {
        let index = to.index();
        if self.stopped.get(index).copied().unwrap_or(true) {
            return;
        }
        let Some(waiting) = self.waiting.get_mut(index) else { return };
        let refused = if waiting.is_empty() { mailbox.send(to, mail).err() } else { Some(mail) };
        if let Some(mail) = refused {
            if waiting.len() < WAITING_MAX {
                waiting.push_back(mail);
            } else {
                self.dropped += 1;
            }
        }
    }

    /// Tries again to send what waits.
    pub(super) fn flush<M: Mailbox>(&mut self, mailbox: &mut M) {
        for (index, waiting) in (0u16..).zip(&mut self.waiting) {
            while let Some(mail) = waiting.pop_front() {
                if let Err(mail) = mailbox.send(ShardId(index), mail) {
                    waiting.push_front(mail);
                    break;
                }
            }
        }
    }

    /// True while a full queue holds something back.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.iter().any(|queue| !queue.is_empty())
    }

    /// The shard's thread ends: nothing is sent to it any more.
    pub(super) fn stop(&mut self, shard: ShardId) {
        if let Some(stopped) = self.stopped.get_mut(shard.index()) {
            *stopped = true;
        }
        if let Some(waiting) = self.waiting.get_mut(shard.index()) {
            waiting.clear();
        }
    }

    /// The shards that still run.
    pub(super) fn running(&self) -> impl Iterator<Item = ShardId> + '_ {
        (0u16..).zip(&self.stopped).filter(|(_, stopped)| !**stopped).map(|(index, _)| ShardId(index))
    }
}
