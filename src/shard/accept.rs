//! A listener's task: takes connections, refuses what is over a limit, pauses when descriptors run out.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use glommio::timer::sleep;
use socket2::Socket;

use crate::adapter::Rtmp;
use crate::admission::Rate;
use crate::admission::sources::Entered;
use crate::io::tcp::{Accepted, Listener};
use crate::names::ConnectionId;
use crate::session::{CloseReason, Reason};
use crate::shard::connection::{Connection, serve};
use crate::shard::{Phase, Settings, Shard};
use crate::stream::Subscriber;

/// Connections taken before others get their turn.
const BATCH: usize = 64;
/// How long accepting pauses at most when the kernel has no descriptors or control does not keep up. Peers wait in
/// the backlog meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener that can be told to stop.
pub struct Listening {
    listener: Rc<Listener>,
    stopped: Rc<Cell<bool>>,
}

impl Listening {
    /// Takes what waits already, then ends the listener. What it takes is counted as refused and closed in order, which
    /// a peer tells apart from a server that crashed.
    pub fn stop(&self, shard: &Rc<Shard>) {
        if self.stopped.replace(true) {
            return;
        }
        let mut waiting = Vec::new();
        let _ = self.listener.accept_waiting(BATCH * 16, &mut waiting);
        shard.admit_all(waiting);
        self.listener.stop();
    }
}

/// Begins to accept from a bound socket.
pub fn listen(shard: &Rc<Shard>, socket: Socket) -> Listening {
    let listener = Rc::new(Listener::bind_to_executor(socket));
    let stopped = Rc::new(Cell::new(false));
    let task = run(Rc::clone(shard), Rc::clone(&listener), Rc::clone(&stopped));
    glommio::spawn_local(task).detach();
    Listening { listener, stopped }
}

async fn run(shard: Rc<Shard>, listener: Rc<Listener>, stopped: Rc<Cell<bool>>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut is_out_of_descriptors = false;
    while !stopped.get() {
        if shard.is_backed_up() || !shard.intake.is_open() {
            shard.pause_accepting(sleep(PAUSE)).await;
            continue;
        }
        if shard.intake.room(Instant::now()) == 0 {
            shard.totals.borrow_mut().accept_rate_hits += 1;
            shard.pause_accepting(sleep(shard.intake.wait(Instant::now()))).await;
            continue;
        }
        // Whoever comes while it closes is let in alone.
        let room = || if shard.intake.is_open() { shard.intake.room(Instant::now()) } else { 1 };
        let result = listener.accept(room, &mut batch).await;
        let is_full = batch.len() >= BATCH;
        shard.intake.on_accepted(Instant::now(), batch.len());
        if result.is_ok() && std::mem::take(&mut is_out_of_descriptors) {
            tracing::info!(shard = shard.id.0, "accepting goes on");
        }
        shard.admit_all(std::mem::take(&mut batch));
        if is_full {
            // As long as somebody waits, accepting is ready at once: the others get their turn all the same.
            glommio::executor().yield_task_queue_now().await;
        }
        if let Err(error) = result
            && !stopped.get()
        {
            shard.totals.borrow_mut().accept_pauses += 1;
            if !is_out_of_descriptors {
                tracing::warn!(shard = shard.id.0, %error, "accepting pauses");
            }
            is_out_of_descriptors = true;
            // A connection that closes gives its descriptor back; others may be closed by who knows whom.
            let closed = shard.intake.next_close();
            shard.pause_accepting(closed.or(sleep_for(PAUSE))).await;
        }
    }
}

async fn sleep_for(time: Duration) {
    sleep(time).await;
}

/// What holds a shard's listeners back.
pub struct Intake {
    is_open: Cell<bool>,
    rate: Option<Rate>,
    rate_state: Cell<u64>,
    epoch: Instant,
    /// Connections closed so far.
    closes: Cell<u64>,
    /// Listeners that wait for the next close.
    waiting: RefCell<Vec<Waker>>,
}

impl Intake {
    /// By the shard's rules.
    #[must_use]
    pub fn new(settings: &Settings, now: Instant) -> Self {
        let burst = (settings.accept_rate / 10).max(1);
        Self {
            is_open: Cell::new(true),
            rate: Rate::new(settings.accept_rate, Duration::from_secs(1), burst),
            rate_state: Cell::new(0),
            epoch: now,
            closes: Cell::new(0),
            waiting: RefCell::new(Vec::new()),
        }
    }

    fn is_open(&self) -> bool {
        self.is_open.get()
    }

    /// Leaves peers in the backlog, or takes them again.
    pub fn set_open(&self, is_open: bool) {
        self.is_open.set(is_open);
    }

    /// How many connections may be accepted in one turn.
    fn room(&self, now: Instant) -> usize {
        let room = self.rate.map_or(u64::MAX, |rate| rate.room(self.rate_state.get(), self.micros(now)));
        usize::try_from(room).unwrap_or(usize::MAX).min(BATCH)
    }

    /// How long until there is room again.
    fn wait(&self, now: Instant) -> Duration {
        let wait = self.rate.map_or(Duration::ZERO, |rate| rate.wait(self.rate_state.get(), self.micros(now)));
        wait.clamp(Duration::from_millis(1), PAUSE)
    }

    fn on_accepted(&self, now: Instant, count: usize) {
        let Some(rate) = self.rate else { return };
        for _ in 0..count {
            // What came while others were taken in is beyond the room that was asked for, and is let through.
            let Some(next) = rate.take(self.rate_state.get(), self.micros(now)) else { return };
            self.rate_state.set(next);
        }
    }

    /// Resolves when the next connection has closed.
    async fn next_close(&self) {
        let before = self.closes.get();
        poll_fn(|cx| {
            if self.closes.get() != before {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn on_close(&self) {
        self.closes.set(self.closes.get().wrapping_add(1));
        for waker in self.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }
}

impl Shard {
    /// Waits, and books the time as one in which nobody was accepted.
    async fn pause_accepting<T>(&self, until: impl Future<Output = T>) {
        let began = Instant::now();
        until.await;
        self.totals.borrow_mut().accept_paused += began.elapsed();
    }

    fn admit_all(self: &Rc<Self>, accepted: Vec<Accepted>) {
        let now = Instant::now();
        for one in accepted {
            self.admit(now, one);
        }
        self.post_outgoing(now);
    }

    fn admit(self: &Rc<Self>, now: Instant, accepted: Accepted) {
        self.totals.borrow_mut().accepted += 1;
        let entered = match self.let_in(now, accepted.remote) {
            Ok(entered) => entered,
            Err(reason) => {
                self.totals.borrow_mut().refused += 1;
                self.core.borrow_mut().attempt(now, None, accepted.remote, reason);
                return;
            }
        };
        self.connections_open.fetch_add(1, Ordering::Relaxed);
        let count = self.connection_count.get() + 1;
        self.connection_count.set(count);
        let id = ConnectionId::new(self.id, count);
        let connection = {
            let mut connections = self.connections.borrow_mut();
            let entry = connections.vacant_entry();
            let key = entry.key();
            let adapter = Rtmp::new(&self.core.borrow(), now, id, Subscriber(key), accepted.remote, accepted.local);
            let connection = Rc::new(Connection::new(key, accepted.remote, entered.place, accepted.stream, adapter));
            entry.insert(Rc::clone(&connection));
            connection
        };
        self.add_stranger(&connection);
        glommio::spawn_local(serve(Rc::clone(self), connection)).detach();
    }

    /// Counts a newcomer, or says why it may not come in.
    fn let_in(&self, now: Instant, remote: SocketAddr) -> Result<Entered, CloseReason> {
        if self.state.get() != Phase::Serving {
            return Err(Reason::Drain.into());
        }
        if self.connections_open.load(Ordering::Relaxed) >= self.connections_max {
            return Err(CloseReason::with(Reason::Overload, "connections"));
        }
        let entered = self.sources.enter(now, remote)?;
        // Whoever has been a stranger for longest has had the most of its time. Where all of them are on other shards, it
        // is the newcomer that goes.
        let overload = CloseReason::with(Reason::Overload, "unauthenticated");
        if entered.is_crowded && !self.cut_oldest_stranger(now, overload) {
            self.sources.leave(entered.place, false);
            return Err(overload);
        }
        Ok(entered)
    }

    fn add_stranger(&self, connection: &Connection) {
        let holds = |key, number| self.is_stranger(key, number);
        let number = self.strangers.borrow_mut().add(connection.key, holds);
        connection.stranger.set(number);
    }

    fn is_stranger(&self, key: usize, number: u64) -> bool {
        self.connections.borrow().get(key).is_some_and(|it| it.stranger.get() == number && it.is_open())
    }

    fn cut_oldest_stranger(&self, now: Instant, reason: CloseReason) -> bool {
        let oldest = self.strangers.borrow_mut().take_oldest(|key, number| self.is_stranger(key, number));
        let Some(connection) = oldest.and_then(|key| self.connection(key)) else { return false };
        self.guarded(&connection, || self.cut(&connection, now, reason));
        true
    }

    /// Books a connection's step from unknown to admitted, or back.
    pub(super) fn count_admitted(&self, connection: &Connection, admitted: bool) {
        self.sources.step(connection.place, admitted);
        if admitted {
            connection.stranger.set(0);
            self.strangers.borrow_mut().remove();
        } else {
            self.add_stranger(connection);
        }
    }

    /// Removes a closed connection from the books.
    pub(super) fn forget(&self, connection: &Connection) {
        if self.connections.borrow_mut().try_remove(connection.key).is_some() {
            self.connections_open.fetch_sub(1, Ordering::Relaxed);
            if connection.stranger.replace(0) != 0 {
                self.strangers.borrow_mut().remove();
            }
            self.sources.leave(connection.place, connection.is_admitted());
        }
        self.intake.on_close();
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    fn intake(accept_rate: u32, now: Instant) -> Intake {
        Intake::new(&Settings { accept_rate, ..Settings::default() }, now)
    }

    #[test]
    fn fa_19_a_listener_without_descriptors_goes_on_with_the_next_close() {
        let intake = intake(0, Instant::now());
        intake.on_close();
        let mut waits = Box::pin(intake.next_close());
        for _ in 0..1_000 {
            assert_eq!(block_on(poll_once(&mut waits)), None, "a close before the wait counted");
        }
        intake.on_close();
        assert_eq!(block_on(poll_once(&mut waits)), Some(()));
        assert!(intake.waiting.borrow().is_empty());
    }

    #[test]
    fn fa_19_listeners_that_give_up_waiting_pile_up_nothing() {
        let intake = intake(0, Instant::now());
        block_on(async {
            for _ in 0..1_000 {
                assert_eq!(poll_once(intake.next_close()).await, None);
            }
        });
        assert!(intake.waiting.borrow().len() <= 1, "{}", intake.waiting.borrow().len());
    }

    #[test]
    fn limits_accept_rate_is_a_tenth_at_once_and_then_the_rate() {
        let start = Instant::now();
        let intake = intake(100, start);
        assert_eq!(intake.room(start), 10);
        intake.on_accepted(start, 10);
        assert_eq!(intake.room(start), 0);
        assert_eq!(intake.wait(start), Duration::from_millis(10));
        assert_eq!(intake.room(start + Duration::from_millis(50)), 5);
        // Without a rate only the turn is bounded.
        assert_eq!(self::intake(0, start).room(start), BATCH);
        assert_eq!(self::intake(1_000_000, start).room(start), BATCH);
    }
}
