//! What the room's tests share: facts, rows, and a mailbox in memory.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::control::Mailbox;
use crate::control::view::{Rates, SessionRow};
use crate::names::{ConnectionId, Kind, Name, Protocol, SessionId, ShardId, StreamKey};
use crate::session::{Counters, Facts, State};
use crate::shard::mail::{ToControl, ToShard};

/// `app/stream` of the default vhost.
pub fn key(path: &str) -> StreamKey {
    let (app, stream) = path.rsplit_once('/').unwrap();
    StreamKey::new(
        &Name::app(crate::names::DEFAULT_VHOST).unwrap(),
        &Name::app(app).unwrap(),
        &Name::stream(stream).unwrap(),
    )
}

pub fn id(n: u64) -> SessionId {
    SessionId::new(n, [0; 10])
}

pub fn facts(n: u64, shard: u16, kind: Kind, path: &str, remote: &str) -> Facts {
    Facts {
        id: id(n),
        connection: ConnectionId::new(ShardId(shard), n),
        shard: ShardId(shard),
        kind,
        protocol: Protocol::Rtmp,
        key: key(path),
        asked_key: None,
        remote: remote.parse().unwrap(),
        local: "127.0.0.1:1935".parse().unwrap(),
        opened_at: Instant::now(),
        opened_unix_ms: n,
        query: None,
        user_agent: None,
        referrer: None,
        tc_url: None,
        swf_url: None,
        user: None,
        labels: std::sync::Arc::default(),
    }
}

pub fn row(n: u64, kind: Kind, path: &str, remote: &str) -> SessionRow {
    SessionRow {
        facts: Arc::new(facts(n, 0, kind, path, remote)),
        state: State::Establishing,
        started_at: None,
        counters: Counters::default(),
        queue_bytes: 0,
        rates: Rates::default(),
        closed: None,
    }
}

pub fn with_facts(mut row: SessionRow, change: impl FnOnce(&mut Facts)) -> SessionRow {
    let mut facts = (*row.facts).clone();
    change(&mut facts);
    row.facts = Arc::new(facts);
    row
}

/// Both ends of queues that hold at most `capacity` mails towards each shard.
#[derive(Clone)]
pub struct Wires(Rc<Inner>);

struct Inner {
    capacity: usize,
    to_control: RefCell<VecDeque<(ShardId, ToControl)>>,
    to_shards: RefCell<Vec<VecDeque<ToShard>>>,
    nudged: RefCell<Vec<ShardId>>,
    control_bell: Notify,
    shard_bell: Notify,
}

impl Wires {
    pub fn new(shards: usize, capacity: usize) -> Self {
        Self(Rc::new(Inner {
            capacity,
            to_control: RefCell::default(),
            nudged: RefCell::default(),
            to_shards: RefCell::new((0..shards).map(|_| VecDeque::new()).collect()),
            control_bell: Notify::new(),
            shard_bell: Notify::new(),
        }))
    }

    /// A shard speaks.
    pub fn tell(&self, from: u16, mail: ToControl) {
        self.0.to_control.borrow_mut().push_back((ShardId(from), mail));
        self.0.control_bell.notify_one();
    }

    /// Shards that were woken since the last call.
    pub fn take_nudged(&self) -> Vec<ShardId> {
        self.0.nudged.take()
    }

    /// What a shard would find next.
    pub fn take(&self, shard: u16) -> Option<ToShard> {
        self.0.to_shards.borrow_mut()[usize::from(shard)].pop_front()
    }

    /// The same, waiting for it.
    pub async fn next(&self, shard: u16) -> ToShard {
        loop {
            let rung = self.0.shard_bell.notified();
            if let Some(mail) = self.take(shard) {
                return mail;
            }
            rung.await;
        }
    }
}

impl Mailbox for Wires {
    fn shards(&self) -> usize {
        self.0.to_shards.borrow().len()
    }

    fn send(&mut self, to: ShardId, mail: ToShard) -> Result<(), ToShard> {
        let mut queues = self.0.to_shards.borrow_mut();
        let queue = &mut queues[to.index()];
        if queue.len() >= self.0.capacity {
            return Err(mail);
        }
        queue.push_back(mail);
        self.0.shard_bell.notify_waiters();
        Ok(())
    }

    fn nudge(&mut self, shard: ShardId) {
        self.0.nudged.borrow_mut().push(shard);
    }

    fn poll(&mut self) -> Option<(ShardId, ToControl)> {
        self.0.to_control.borrow_mut().pop_front()
    }

    async fn wait(&mut self) {
        self.0.control_bell.notified().await;
    }
}
