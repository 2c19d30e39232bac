//! The clerk: reads the mail and looks at the clock.

use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use glommio::timer::sleep;

use crate::adapter::streams::Expired;
use crate::adapter::{Outgoing, StreamSlot};
use crate::admission::Load;
use crate::io::doorbell::Doorbell;
use crate::names::SessionId;
use crate::session::{CloseReason, Reason};
use crate::shard::accept::Listening;
use crate::shard::connection::Connection;
use crate::shard::lag::Lag;
use crate::shard::mail::{OrderId, Report, ShardLoad, ToControl, ToShard};
use crate::shard::{Phase, Rules, Shard};

/// How often it looks at every connection's deadline: a deadline is kept to this and no finer. Every second look falls
/// together with a report, as often as that is made by default.
const SWEEP: Duration = Duration::from_millis(125);
/// Mail read before others get their turn.
const MAIL_PER_TURN: usize = 256;
/// Connections that take over new rules before others get their turn.
const ADOPTIONS_PER_TURN: usize = 1_024;
/// Sessions closed by one order before others get their turn.
const CLOSES_PER_TURN: usize = 256;

/// Runs until control says stop and every connection is closed.
pub async fn run(shard: Rc<Shard>, mut bell: Doorbell, listeners: Vec<Listening>) {
    let mut clock = Clock::new(Instant::now());
    while shard.state.get() != Phase::Stopped {
        let is_hurried = shard.is_hurried();
        shard.clerk_hurries.set(is_hurried);
        clock.next_tick = clock.next_tick.min(shard.next_tick(&clock, Instant::now()));
        let until_tick = clock.next_tick.saturating_duration_since(Instant::now());
        {
            let mut tick = pin!(sleep(until_tick));
            let rung = poll_fn(|cx| {
                *shard.clerk_waker.borrow_mut() = Some(cx.waker().clone());
                if shard.clerk_hurries.get() != is_hurried {
                    return Poll::Ready(false);
                }
                bell.poll_wait(cx, || shard.has_mail()).map(|()| true)
            });
            let ticked = async {
                tick.as_mut().await;
                false
            };
            let is_rung = rung.or(ticked).await;
            shard.totals.borrow_mut().wakeups += u64::from(is_rung);
        }
        let now = Instant::now();
        shard.contained(|| shard.core.borrow_mut().streams.pull(now, &shard.packager));
        shard.read_mail(&listeners).await;
        if Instant::now() >= clock.next_tick {
            shard.tick(&mut clock);
        }
        shard.wake_pump();
        shard.post_outgoing(Instant::now());
    }
    for listening in &listeners {
        listening.stop(&shard);
    }
}

/// What the clerk does when.
struct Clock {
    last_tick: Instant,
    next_tick: Instant,
    next_sweep: Instant,
    next_report: Instant,
    lag_max: Duration,
    lag: Lag,
    /// When the drain began, and how many viewers there were then.
    drain_began: Option<(Instant, usize)>,
    stop_at: Cell<Option<Instant>>,
}

impl Clock {
    fn new(now: Instant) -> Self {
        Self {
            last_tick: now,
            next_tick: now,
            next_sweep: now,
            next_report: now,
            lag_max: Duration::ZERO,
            lag: Lag::default(),
            drain_began: None,
            stop_at: Cell::new(None),
        }
    }
}

impl Shard {
    /// True when there is something that this shard is rung for: mail, or what other shards' relays bring.
    fn has_mail(&self) -> bool {
        self.post.has_for_shard(self.id) || self.core.borrow().streams.has_inbound()
    }

    async fn read_mail(self: &Rc<Self>, listeners: &[Listening]) {
        for _ in 0..MAIL_PER_TURN {
            let Some(mail) = self.post.take_for_shard(self.id) else { return };
            let now = Instant::now();
            match mail {
                ToShard::Verdict { ticket, verdict } => {
                    let asked = self.core.borrow_mut().take_ticket(ticket);
                    if let Some(connection) = asked.and_then(|who| self.connection(who.0)) {
                        self.guarded(&connection, || {
                            let mut core = self.core.borrow_mut();
                            connection.with_adapter(|adapter| adapter.handle_verdict(now, &mut core, ticket, verdict));
                        });
                        connection.wake();
                    }
                }
                ToShard::RelayOpen { key, to, queue } => {
                    let unpackage = |bytes: &[u8], base| self.packager.unpackage(now, bytes, base);
                    self.contained(|| self.core.borrow_mut().streams.open_relay(now, &key, to, queue, unpackage));
                    self.post_outgoing(now);
                }
                ToShard::RelayClose { key, to } => self.core.borrow_mut().streams.close_relay(&key, to),
                ToShard::RelayAttach { key, queue } => {
                    self.contained(|| self.core.borrow_mut().streams.attach(now, &key, queue, &self.packager));
                }
                ToShard::Close { order, sessions, reason, text } => {
                    self.close_sessions(order, &sessions, reason, text.as_deref()).await;
                }
                ToShard::Ban { order, bans } => {
                    let mut core = self.core.borrow_mut();
                    for ban in bans.iter() {
                        core.policy.bans.insert(now, ban.clone());
                    }
                    drop(core);
                    self.say(now, ToControl::Done { order, count: bans.len() });
                }
                ToShard::Unban(whom) => {
                    self.core.borrow_mut().policy.bans.remove(&whom);
                }
                ToShard::Configure { order, rules } => self.configure(order, &rules).await,
                ToShard::Load(load) => self.set_load(load).await,
                ToShard::Recorded(is_recorded) => self.core.borrow_mut().guard.set_recorded(is_recorded),
                ToShard::Drain { deadline } => self.begin_drain(deadline, listeners),
                ToShard::Stop => self.begin_drain(now, listeners),
            }
        }
        // More waits: come back after the others.
        self.post.ring_shard(self.id);
    }

    /// No new connections, and an end for those that are here. A later order may bring the end forward.
    fn begin_drain(self: &Rc<Self>, deadline: Instant, listeners: &[Listening]) {
        self.core.borrow_mut().draining = true;
        let sooner = match self.state.get() {
            Phase::Serving => deadline,
            Phase::Draining { deadline: before } => before.min(deadline),
            Phase::Stopped => return,
        };
        self.state.set(Phase::Draining { deadline: sooner });
        for listening in listeners {
            listening.stop(self);
        }
    }

    /// The pressure on the server has changed: newcomers, streams and then every connection obey other rules.
    async fn set_load(&self, load: Load) {
        self.core.borrow_mut().set_load(load);
        self.intake.set_open(load.state.accepts());
        let keys: Vec<usize> = self.connections.borrow().iter().map(|(key, _)| key).collect();
        for some in keys.chunks(ADOPTIONS_PER_TURN) {
            for connection in some.iter().filter_map(|key| self.connection(*key)).filter(|it| it.is_open()) {
                self.guarded(&connection, || self.adopt(&connection));
            }
            glommio::yield_if_needed().await;
        }
    }

    /// Ends sessions by order.
    async fn close_sessions(&self, order: OrderId, sessions: &[SessionId], reason: CloseReason, text: Option<&str>) {
        let sessions: Vec<_> = sessions.iter().map(|id| (*id, reason)).collect();
        let count = self.end_sessions(&sessions, text).await;
        self.say(Instant::now(), ToControl::Done { order, count });
    }

    /// Obeys new rules, and ends the sessions that changed admission rules turn away.
    async fn configure(&self, order: OrderId, rules: &Rules) {
        *self.settings.borrow_mut() = rules.shard.clone();
        let turned_away = {
            let mut core = self.core.borrow_mut();
            core.configure(rules.sessions.clone(), Arc::clone(&rules.rtmp));
            core.streams.configure(rules.streams.clone());
            core.change_gate(Arc::clone(&rules.gate))
        };
        let count = self.end_sessions(&turned_away, None).await;
        self.say(Instant::now(), ToControl::Done { order, count });
    }

    /// Ends sessions; returns how many were here. The record of each is closed and its socket shut down before this
    /// returns.
    async fn end_sessions(&self, sessions: &[(SessionId, CloseReason)], text: Option<&str>) -> usize {
        let mut count = 0;
        for some in sessions.chunks(CLOSES_PER_TURN) {
            let now = Instant::now();
            for (id, reason) in some {
                let owner = self.core.borrow().owner(*id);
                if let Some(connection) = owner.and_then(|who| self.connection(who.0)) {
                    self.guarded(&connection, || self.end_saying(&connection, now, *reason, text));
                    count += 1;
                }
            }
            self.post_outgoing(now);
            glommio::yield_if_needed().await;
        }
        count
    }

    /// Does something for one connection; a defect in it costs that connection and nothing else.
    pub(super) fn guarded(&self, connection: &Connection, step: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(step)).is_err() {
            self.on_panic(connection);
        }
    }

    /// Does something that belongs to no connection; a defect in it is counted and costs what it was about to do.
    fn contained(&self, step: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(step)).is_err() {
            self.totals.borrow_mut().internal_errors += 1;
        }
    }

    pub(super) fn connection(&self, key: usize) -> Option<Rc<Connection>> {
        self.connections.borrow().get(key).map(Rc::clone)
    }

    fn tick(self: &Rc<Self>, clock: &mut Clock) {
        let now = Instant::now();
        let late = now.saturating_duration_since(clock.next_tick);
        clock.lag_max = clock.lag_max.max(late);
        let ticks = clock.next_tick.saturating_duration_since(clock.last_tick).as_nanos() / self.tick.as_nanos().max(1);
        clock.lag.record(late, usize::try_from(ticks).unwrap_or(usize::MAX).saturating_sub(1));
        clock.last_tick = now;
        self.totals.borrow_mut().ticks += 1;
        // Publishers that ran ahead of the clock may be due again.
        for key in std::mem::take(&mut *self.paused.borrow_mut()) {
            if let Some(connection) = self.connection(key) {
                connection.wake();
            }
        }
        if now >= clock.next_sweep {
            clock.next_sweep = now + SWEEP;
            self.sweep(now);
        }
        if now >= clock.next_report {
            clock.next_report = now + self.settings.borrow().report_every;
            self.report(now, clock);
        }
        if let Phase::Draining { deadline } = self.state.get() {
            self.drain_step(now, clock, deadline);
        }
        clock.next_tick = self.next_tick(clock, now);
    }

    /// When the clerk looks at the clock next: as soon as it may where somebody waits for that, and otherwise when it has
    /// something to do.
    fn next_tick(&self, clock: &Clock, now: Instant) -> Instant {
        let soonest = now + self.tick;
        if self.clerk_hurries.get() || !clock.lag.is_calm() {
            return soonest;
        }
        clock.next_sweep.min(clock.next_report).max(soonest)
    }

    /// True while somebody waits for the next tick: publishers ahead of the clock, mail that control was not rung for or
    /// had no room for, whoever is to leave in a drain.
    fn is_hurried(&self) -> bool {
        self.state.get() != Phase::Serving
            || self.owes_ring.get()
            || !self.paused.borrow().is_empty()
            || !self.unsent.borrow().is_empty()
    }

    /// To be called when somebody begins to wait for the next tick.
    pub(super) fn hurry_clerk(&self) {
        if !self.clerk_hurries.replace(true)
            && let Some(waker) = self.clerk_waker.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }

    fn sweep(&self, now: Instant) {
        let mut due = std::mem::take(&mut *self.due.borrow_mut());
        due.extend(self.connections.borrow().iter().filter(|(_, it)| it.is_due(now)).map(|(_, it)| Rc::clone(it)));
        for connection in due.drain(..) {
            self.guarded(&connection, || self.look_after(&connection, now));
        }
        *self.due.borrow_mut() = due;
        let mut expired = Vec::new();
        {
            let mut core = self.core.borrow_mut();
            core.policy.bans.expire(now);
            core.streams.expire(now, &mut expired);
        }
        for what in expired {
            match what {
                Expired::Ended(slot) => self.end_stream(now, slot),
                Expired::Unwatched(key) => self.core.borrow_mut().post_urgent(Outgoing::Unsubscribe(key)),
            }
        }
    }

    fn end_stream(&self, now: Instant, slot: StreamSlot) {
        let players = {
            let core = self.core.borrow();
            core.streams.get(slot).map(|entry| entry.live.subscribers().to_vec()).unwrap_or_default()
        };
        for player in players {
            if let Some(connection) = self.connection(player.0) {
                self.guarded(&connection, || {
                    let mut core = self.core.borrow_mut();
                    connection.with_adapter(|adapter| adapter.handle_stream_end(now, &mut core, slot));
                });
                connection.wake();
            }
        }
    }

    fn report(&self, now: Instant, clock: &mut Clock) {
        let mut sessions = Vec::new();
        let mut streams = Vec::new();
        let mut core = self.core.borrow_mut();
        core.sessions.sample_changed(&mut sessions);
        core.streams.sample(now, &mut streams);
        let load = ShardLoad {
            connections: self.connections.borrow().len(),
            unauthenticated: self.strangers.borrow().count(),
            loop_lag_max: std::mem::take(&mut clock.lag_max),
            loop_lag_p99: clock.lag.p99(),
            types_disabled: self.types.disabled(),
            queue_bytes: core.sessions.queue_bytes_total(),
            log_bytes: core.streams.log_bytes(),
            dropped_frames: core.dropped_frames,
            relay_dropped: core.streams.relay_dropped(),
            glitches: core.glitches,
            bans: core.policy.bans.len(),
            ban_hits: core.ban_hits,
            cpu: thread_cpu(),
            mail_backlog: self.unsent.borrow().len(),
            ..*self.totals.borrow()
        };
        drop(core);
        let report = Report { shard: self.id, at: now, sessions, streams, load };
        self.say(now, ToControl::Report(Box::new(report)));
    }

    /// Ends viewers at an even rate, those first that have waited longest for media, and then publishers.
    fn drain_step(&self, now: Instant, clock: &mut Clock, deadline: Instant) {
        let connections: Vec<_> =
            self.connections.borrow().iter().map(|(_, connection)| Rc::clone(connection)).collect();
        if connections.is_empty() {
            self.state.set(Phase::Stopped);
            return;
        }
        if now >= deadline {
            let stop_at = clock.stop_at.get().unwrap_or(now + Duration::from_secs(2));
            clock.stop_at.set(Some(stop_at));
            for connection in &connections {
                self.guarded(connection, || self.end(connection, now, Reason::Drain.into(), true));
            }
            if now >= stop_at {
                self.state.set(Phase::Stopped);
            }
            return;
        }
        let mut open: Vec<_> = connections.iter().filter(|connection| connection.is_open()).collect();
        let is_viewer = |connection: &&Rc<Connection>| !connection.with_adapter(|adapter| adapter.is_publisher());
        let viewers = || open.iter().copied().filter(is_viewer).count();
        let (began, viewers_then) = *clock.drain_began.get_or_insert_with(|| (now, viewers()));
        // Publishers leave in the last tenth; before it, viewers leave in proportion to the time that has passed.
        let total = deadline.saturating_duration_since(began).mul_f64(0.9);
        let passed = now.saturating_duration_since(began);
        if passed < total {
            open.retain(is_viewer);
            let stay = viewers_then as u128 * total.saturating_sub(passed).as_nanos() / total.as_nanos().max(1);
            let leave = open.len().saturating_sub(usize::try_from(stay).unwrap_or(usize::MAX));
            if leave == 0 {
                return;
            }
            open.sort_by_cached_key(|connection| connection.with_adapter(|adapter| adapter.media_written_at()));
            open.truncate(leave);
        }
        for connection in open {
            self.guarded(connection, || self.end(connection, now, Reason::Drain.into(), true));
        }
    }
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the length of the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests;
