//! One core: its state, its mail, its pump, its executor.
//!
//! Everything a shard owns hangs off one [`Shard`] and is touched by its thread alone. Four kinds of task run on its
//! executor: one per connection, one per listener, the pump, which hands new frames to players, and the clerk, which
//! reads the mail and looks at the clock.

pub mod accept;
pub mod clerk;
pub mod connection;
pub mod lag;
pub mod mail;
pub mod post;
pub mod pump;
pub mod reports;
pub mod rules;
pub mod settings;
pub mod strangers;

pub use post::Post;
pub use rules::Rules;
pub use settings::Settings;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::Waker;
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};
use slab::Slab;
use socket2::Socket;

use crate::adapter::rtmp::Packager;
use crate::adapter::{Core, Outgoing};
use crate::admission::{Ban, Bans, Gate, Policy, SessionTypes, Sources};
use crate::io::{doorbell::Sleeper, probe};
use crate::names::ShardId;
use crate::shard::accept::Intake;
use crate::shard::connection::Connection;
use crate::shard::mail::{ShardLoad, ToControl};
use crate::shard::reports::Reports;
use crate::shard::strangers::Strangers;
use crate::stdx::clock::WallAnchor;

/// Everything a shard needs to begin.
pub struct Plan {
    /// Which shard.
    pub id: ShardId,
    /// The core it is pinned to; `None` leaves it to the scheduler.
    pub cpu: Option<usize>,
    /// How often the clerk looks at the clock at most: [`TICK`], but for tests of what must not wait for it.
    pub tick: Duration,
    /// Its rules.
    pub settings: Settings,
    /// The rules of sessions.
    pub sessions: crate::adapter::Settings,
    /// The rules of RTMP.
    pub rtmp: Arc<crate::proto::rtmp::Settings>,
    /// The rules of streams.
    pub streams: crate::stream::Settings,
    /// What a shard knows of admission by itself.
    pub gate: Arc<Gate>,
    /// Who must not come back yet, from an earlier life.
    pub bans: Vec<Ban>,
    /// How many bans are held at once.
    pub bans_max: usize,
    /// Labels for instants.
    pub wall: WallAnchor,
    /// Makes session ids that differ between shards and starts.
    pub seed: u64,
    /// Bound listening sockets.
    pub rtmp_listeners: Vec<Socket>,
    /// Its end of the doorbell.
    pub sleeper: Sleeper,
    /// The mail.
    pub post: Arc<Post>,
    /// Connections that all shards together may hold.
    pub connections_max: usize,
    /// Connections that all shards together hold.
    pub connections_open: Arc<AtomicUsize>,
    /// Where they come from.
    pub sources: Arc<Sources>,
    /// What failed by a defect of ours.
    pub types: Arc<SessionTypes>,
}

/// A shard's state. One thread.
pub struct Shard {
    id: ShardId,
    tick: Duration,
    settings: RefCell<Settings>,
    post: Arc<Post>,
    core: RefCell<Core>,
    packager: Packager,
    connections: RefCell<Slab<Rc<Connection>>>,
    connections_max: usize,
    connections_open: Arc<AtomicUsize>,
    /// Connections of all shards by source.
    sources: Arc<Sources>,
    connection_count: Cell<u64>,
    /// Session types that met defects, on all shards.
    types: Arc<SessionTypes>,
    strangers: RefCell<Strangers>,
    intake: Intake,
    reports: Reports,
    /// Where every connection reads into; its bytes are consumed before the next one reads.
    read_buffer: RefCell<Box<[u8]>>,
    pump_waker: RefCell<Option<Waker>>,
    clerk_waker: RefCell<Option<Waker>>,
    /// The clerk knows that somebody waits for its next tick.
    clerk_hurries: Cell<bool>,
    /// Connections that wait for the pump to hand out what they published before they read more.
    paced: RefCell<Vec<usize>>,
    /// Publishers that are not read because their timestamps run ahead; looked at again at the next tick.
    paused: RefCell<Vec<usize>>,
    /// Publishers that are read by the pump's rounds.
    resting: RefCell<Vec<usize>>,
    /// The pump's rounds are far enough apart for publishers to be read by them.
    reads_in_rounds: Cell<bool>,
    /// What the clerk's sweep found, kept for its memory.
    due: RefCell<Vec<Rc<Connection>>>,
    totals: RefCell<ShardLoad>,
    /// Mail that the post had no room for, in order. Bounded by what the connections that exist can say, because no
    /// new ones are accepted while it is long.
    unsent: RefCell<VecDeque<ToControl>>,
    owes_ring: Cell<bool>,
    rung_control_at: Cell<Instant>,
    state: Cell<Phase>,
}

/// Where a shard is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining { deadline: Instant },
    Stopped,
}

/// How often a shard looks at the clock at most: a publisher that is paced by it, and a drain, keep to this and no finer. One
/// for whose clock nobody waits looks more seldom: on an idle core each look costs a tenth of a millisecond.
pub const TICK: Duration = Duration::from_millis(20);
/// Bytes of the shared read buffer: the most that one read takes.
const READ_BUFFER_BYTES: usize = 64 << 10;
/// Facts reach control at most this often; questions reach it at once.
const FACTS_EVERY: Duration = Duration::from_millis(5);
/// Mail that may wait for room before the shard stops accepting.
const UNSENT_MAX: usize = 8_192;
/// How long the last mail may take to find room.
const LAST_MAIL: Duration = Duration::from_secs(1);
/// How long the executor lets tasks run before it looks at io_uring again. A shard's tasks end by themselves within a fraction
/// of that; each look costs system calls, which a shard that is full does not have.
const PREEMPT_AFTER: Duration = Duration::from_millis(10);

/// How often a shard that begins is woken, in case its runtime sleeps.
const NUDGE_EVERY: Duration = Duration::from_millis(100);

/// Starts a shard on a thread of its own. The thread ends when control says stop.
///
/// # Errors
/// When io_uring or the thread cannot be had.
pub fn start(plan: Plan) -> io::Result<std::thread::JoinHandle<io::Result<()>>> {
    let (ready, is_ready) = mpsc::channel();
    let (post, id) = (Arc::clone(&plan.post), plan.id);
    let thread = std::thread::Builder::new().name(format!("shard-{}", plan.id)).spawn(move || {
        plan.sleeper.arrive();
        let placement = plan.cpu.map_or(Placement::Unbound, Placement::Fixed);
        let made = LocalExecutorBuilder::new(placement)
            .name(&format!("shard-{}", plan.id))
            .ring_depth(plan.settings.ring_depth)
            .io_memory(probe::IO_MEMORY_BYTES)
            .preempt_timer(PREEMPT_AFTER)
            .make();
        match made {
            Ok(executor) => {
                // A shard that is gone while its listener still shares the port would leave its part of the peers without
                // any answer. What can fail is contained where it happens; what is left ends the process, to be restarted.
                if catch_unwind(AssertUnwindSafe(|| executor.run(Shard::run(plan, ready)))).is_err() {
                    tracing::error!(ev = "shard_died", "a shard's executor has failed");
                    std::process::abort();
                }
                Ok(())
            }
            Err(error) => {
                let _ = ready
                    .send(Err(io::Error::other(format!("the executor of shard {} cannot start: {error}", plan.id))));
                Ok(())
            }
        }
    })?;
    loop {
        match is_ready.recv_timeout(NUDGE_EVERY) {
            Ok(Ok(())) => return Ok(thread),
            Ok(Err(error)) => return Err(error),
            // Control, which wakes a shard that is not heard of, is not there yet.
            Err(RecvTimeoutError::Timeout) => post.nudge_shard(id),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("a shard's thread ended before it began"));
            }
        }
    }
}

impl Shard {
    async fn run(plan: Plan, ready: mpsc::Sender<io::Result<()>>) {
        let mut bans = Bans::new(plan.bans_max);
        let now = Instant::now();
        for ban in plan.bans {
            bans.insert(now, ban);
        }
        let policy = Policy { gate: plan.gate, bans };
        let packager = Packager::new(&plan.rtmp);
        let mut core = Core::new(plan.id, plan.sessions, plan.rtmp, plan.streams, policy, plan.wall, plan.seed);
        core.guard.sources = Some(Arc::clone(&plan.sources));
        core.guard.types = Some(Arc::clone(&plan.types));
        let intake = Intake::new(&plan.settings, now);
        let shard = Rc::new(Self {
            id: plan.id,
            tick: plan.tick,
            settings: RefCell::new(plan.settings),
            post: plan.post,
            core: RefCell::new(core),
            packager,
            connections: RefCell::new(Slab::new()),
            connections_max: plan.connections_max,
            connections_open: plan.connections_open,
            sources: plan.sources,
            connection_count: Cell::new(0),
            types: plan.types,
            strangers: RefCell::new(Strangers::default()),
            intake,
            reports: Reports::new(now),
            read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice()),
            pump_waker: RefCell::new(None),
            clerk_waker: RefCell::new(None),
            clerk_hurries: Cell::new(false),
            paced: RefCell::new(Vec::new()),
            paused: RefCell::new(Vec::new()),
            resting: RefCell::new(Vec::new()),
            reads_in_rounds: Cell::new(false),
            due: RefCell::new(Vec::new()),
            totals: RefCell::new(ShardLoad::default()),
            unsent: RefCell::new(VecDeque::new()),
            owes_ring: Cell::new(false),
            rung_control_at: Cell::new(now),
            state: Cell::new(Phase::Serving),
        });
        let mut listeners = Vec::new();
        for socket in plan.rtmp_listeners {
            listeners.push(accept::listen(&shard, socket));
        }
        let _ = ready.send(Ok(()));
        glommio::spawn_local(pump::run(Rc::clone(&shard))).detach();
        clerk::run(Rc::clone(&shard), plan.sleeper.bind(), listeners).await;
        shard.say(Instant::now(), ToControl::Stopped);
        // The last records are what control waits for.
        let until = Instant::now() + LAST_MAIL;
        while !shard.unsent.borrow().is_empty() && Instant::now() < until {
            glommio::timer::sleep(Duration::from_millis(2)).await;
            shard.core.borrow_mut().mark_urgent();
            shard.post_outgoing(Instant::now());
        }
    }

    /// Wakes the pump if there is something to hand out.
    fn wake_pump(&self) {
        if self.has_round()
            && let Some(waker) = self.pump_waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// True while a round of the pump has something to do.
    fn has_round(&self) -> bool {
        self.core.borrow().streams.has_dirty() || !self.resting.borrow().is_empty()
    }

    /// Puts what the adapters said in the mail and rings where somebody waits for it. To be called after every step
    /// that touched the core.
    fn post_outgoing(&self, now: Instant) {
        let mut core = self.core.borrow_mut();
        while let Some(shard) = core.streams.poll_ring() {
            self.post.ring_shard(shard);
        }
        let mut unsent = self.unsent.borrow_mut();
        if !unsent.is_empty() {
            self.owes_ring.set(true);
        }
        while let Some(out) = core.poll_outgoing() {
            unsent.push_back(into_mail(out));
        }
        while let Some(mail) = unsent.pop_front() {
            if let Err(mail) = self.post.to_control(self.id, mail) {
                unsent.push_front(mail);
                break;
            }
            self.owes_ring.set(true);
        }
        if self.owes_ring.get()
            && (core.take_urgent() || now.saturating_duration_since(self.rung_control_at.get()) >= FACTS_EVERY)
        {
            self.owes_ring.set(false);
            self.rung_control_at.set(now);
            self.post.ring_control();
        }
        if self.owes_ring.get() || !unsent.is_empty() {
            self.hurry_clerk();
        }
    }

    /// Says one thing to control, in order behind what was said before.
    fn say(&self, now: Instant, mail: ToControl) {
        self.post_outgoing(now);
        self.unsent.borrow_mut().push_back(mail);
        self.core.borrow_mut().mark_urgent();
        self.post_outgoing(now);
    }

    /// True while control does not keep up: no new connections until it does.
    fn is_backed_up(&self) -> bool {
        self.unsent.borrow().len() > UNSENT_MAX
    }
}

fn into_mail(out: Outgoing) -> ToControl {
    match out {
        Outgoing::Event(event) => ToControl::Event(event),
        Outgoing::Ask { ticket, facts } => ToControl::Ask { ticket, facts },
        Outgoing::PublisherLeft { key, session } => ToControl::PublisherLeft { key, session },
        Outgoing::Subscribe(key) => ToControl::Subscribe(key),
        Outgoing::Unsubscribe(key) => ToControl::Unsubscribe(key),
    }
}
