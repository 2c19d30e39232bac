//! The mail between control and the shards: bounded queues, one doorbell per shard, one bell for control.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;

use crate::io::doorbell::{Ringer, Sleeper, doorbell};
use crate::names::ShardId;
use crate::shard::mail::{ToControl, ToShard};

/// Mail from one shard to control that may wait. A shard that finds it full keeps what it has and stops accepting
/// connections until there is room: facts about sessions are never dropped.
const TO_CONTROL_MAX: usize = 16_384;
/// Mail from control to one shard that may wait. Control keeps what does not fit.
const TO_SHARD_MAX: usize = 4_096;

/// The post office. Shared by all threads.
pub struct Post {
    boxes: Vec<Boxes>,
    control: Notify,
}

struct Boxes {
    to_control: ArrayQueue<ToControl>,
    to_shard: ArrayQueue<ToShard>,
    bell: Ringer,
}

impl Post {
    /// Mail boxes for `shards` shards, and each shard's end of its doorbell.
    ///
    /// # Errors
    /// When the kernel gives no descriptors.
    pub fn new(shards: usize) -> std::io::Result<(Arc<Self>, Vec<Sleeper>)> {
        let mut boxes = Vec::with_capacity(shards);
        let mut sleepers = Vec::with_capacity(shards);
        for _ in 0..shards {
            let (bell, sleeper) = doorbell()?;
            boxes.push(Boxes {
                to_control: ArrayQueue::new(TO_CONTROL_MAX),
                to_shard: ArrayQueue::new(TO_SHARD_MAX),
                bell,
            });
            sleepers.push(sleeper);
        }
        Ok((Arc::new(Self { boxes, control: Notify::new() }), sleepers))
    }

    /// How many shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.boxes.len()
    }

    /// From a shard to control. Gives the mail back when the box is full.
    ///
    /// # Errors
    /// The mail itself.
    #[expect(clippy::result_large_err, reason = "the mail comes back: a full box must not lose it")]
    pub fn to_control(&self, from: ShardId, mail: ToControl) -> Result<(), ToControl> {
        match self.boxes.get(from.index()) {
            Some(boxes) => boxes.to_control.push(mail),
            None => Err(mail),
        }
    }

    /// Wakes control.
    pub fn ring_control(&self) {
        self.control.notify_one();
    }

    /// Waits until some shard rings.
    pub async fn control_rung(&self) {
        self.control.notified().await;
    }

    /// What a shard told control, oldest first.
    #[must_use]
    pub fn take_for_control(&self, from: ShardId) -> Option<ToControl> {
        self.boxes.get(from.index())?.to_control.pop()
    }

    /// From control to a shard, ringing its bell. Gives the mail back when the box is full.
    ///
    /// # Errors
    /// The mail itself.
    pub fn to_shard(&self, to: ShardId, mail: ToShard) -> Result<(), ToShard> {
        match self.boxes.get(to.index()) {
            Some(boxes) => {
                boxes.to_shard.push(mail)?;
                boxes.bell.ring();
                Ok(())
            }
            None => Err(mail),
        }
    }

    /// What control told a shard, oldest first.
    #[must_use]
    pub fn take_for_shard(&self, to: ShardId) -> Option<ToShard> {
        self.boxes.get(to.index())?.to_shard.pop()
    }

    /// True while mail waits for a shard.
    #[must_use]
    pub fn has_for_shard(&self, to: ShardId) -> bool {
        self.boxes.get(to.index()).is_some_and(|boxes| !boxes.to_shard.is_empty())
    }

    /// Wakes a shard that is not heard of, even if it says that it is awake.
    pub fn nudge_shard(&self, shard: ShardId) {
        if let Some(boxes) = self.boxes.get(shard.index()) {
            boxes.bell.nudge();
        }
    }

    /// Wakes a shard because a relay has something for it.
    pub fn ring_shard(&self, shard: ShardId) {
        if let Some(boxes) = self.boxes.get(shard.index()) {
            boxes.bell.ring();
        }
    }
}
