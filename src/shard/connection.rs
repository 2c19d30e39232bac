//! One connection's task: it reads, asks for readiness where the pump found the peer full, and closes.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::IoSlice;
use std::net::{Shutdown, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::adapter::{Flow, Offered, Rtmp, Sent, Wire};
use crate::admission::sources::Place;
use crate::io::tcp;
use crate::session::{CloseReason, Reason};
use crate::shard::Shard;
use crate::stdx::ahead;
use crate::stream::Subscriber;

/// Reads in one turn before others get theirs: 256 KiB.
const READS_PER_TURN: u32 = 4;
/// Messages obeyed in one turn before others get theirs, for a peer whose messages are tiny: one read may hold
/// thousands.
const MESSAGES_PER_TURN: u32 = 200;
/// Published bytes of one stream that the pump has not handed out, beyond which its publisher is not read: the pace of
/// the fan-out. Two hundred megabits a second pass within `latency_max`, one hundred within `latency_max_busy`.
const UNFLUSHED_MAX: u64 = 1 << 20;
/// How long a connection that we ended may take to read our last words.
const LINGER: Duration = Duration::from_secs(1);
/// Writes made to get the last words out.
const LAST_WRITES: u32 = 8;
/// How much it may still send meanwhile.
const LINGER_BYTES: usize = 4 << 20;

/// A connection as its task, the pump and the clerk share it.
pub struct Connection {
    /// Its place among the shard's connections.
    pub key: usize,
    /// The peer.
    pub remote: SocketAddr,
    /// Where its source is counted.
    pub place: Place,
    /// Its number among the strangers, or 0 once it is admitted.
    pub stranger: Cell<u64>,
    stream: RefCell<tcp::Stream>,
    adapter: RefCell<Rtmp>,
    waker: RefCell<Option<Waker>>,
    /// The peer was full at the last write: the task asks for readiness, the pump leaves it alone.
    blocked: Cell<bool>,
    /// When the adapter wants to look at the clock.
    deadline: Cell<Option<Instant>>,
    /// Why somebody wants it closed.
    order: Cell<Option<Ended>>,
    phase: Cell<Phase>,
    /// It is read by the pump's rounds and not on readiness.
    resting: Cell<bool>,
    admitted: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Our last words are out; the peer gets a moment to read them, because a close with unread input would reset the
    /// connection and destroy them.
    Lingering {
        until: Instant,
        bytes: usize,
    },
    Closed,
}

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(key: usize, remote: SocketAddr, place: Place, stream: tcp::Stream, adapter: Rtmp) -> Self {
        let deadline = adapter.next_deadline();
        Self {
            key,
            remote,
            place,
            stranger: Cell::new(0),
            stream: RefCell::new(stream),
            adapter: RefCell::new(adapter),
            waker: RefCell::new(None),
            blocked: Cell::new(false),
            deadline: Cell::new(deadline),
            order: Cell::new(None),
            phase: Cell::new(Phase::Open),
            resting: Cell::new(false),
            admitted: Cell::new(false),
        }
    }

    /// Wakes its task.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Leaves its end to its task; the first order counts.
    fn order(&self, ended: Ended) {
        if self.order.get().is_none() {
            self.order.set(Some(ended));
        }
        self.wake();
    }

    /// Does what a write calls for.
    fn after_write(&self, flow: Flow) -> Result<(), Ended> {
        match flow {
            Flow::Idle => Ok(()),
            Flow::More => {
                self.wake();
                Ok(())
            }
            Flow::Blocked => {
                self.blocked.set(true);
                self.wake();
                Ok(())
            }
            Flow::Gone => Err(Ended::Peer(Reason::ClientReset.into())),
            Flow::GiveUp => Err(Ended::Order(CloseReason::with(Reason::SlowConsumer, "overflows"))),
        }
    }

    /// The same for a write that its task did not make.
    fn obey(&self, flow: Flow) {
        if let Err(ended) = self.after_write(flow) {
            self.order(ended);
        }
    }

    /// False while the pump is to leave it alone: its task knows what to do.
    fn takes_writes(&self) -> bool {
        !self.blocked.get() && self.phase.get() == Phase::Open && self.order.get().is_none()
    }

    /// True until either side ended it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase.get() == Phase::Open
    }

    /// What its adapter is, for the clerk.
    pub fn with_adapter<R>(&self, use_it: impl FnOnce(&mut Rtmp) -> R) -> R {
        use_it(&mut self.adapter.borrow_mut())
    }

    /// True when the clock has something for it.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        match self.phase.get() {
            Phase::Open => self.deadline.get().is_some_and(|deadline| deadline <= now),
            Phase::Lingering { until, .. } => until <= now,
            Phase::Closed => false,
        }
    }

    /// True once it publishes or plays.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.admitted.get()
    }
}

/// The socket as adapters see it, counting for the shard.
struct Socket<'a> {
    stream: &'a tcp::Stream,
    shard: &'a Shard,
}

impl Wire for Socket<'_> {
    fn send(&mut self, slices: &[IoSlice<'_>]) -> Sent {
        let mut totals = self.shard.totals.borrow_mut();
        totals.writes += 1;
        match self.stream.try_write(slices) {
            tcp::Sent::Bytes(sent) => {
                totals.tx_bytes += sent as u64;
                Sent::Bytes(sent)
            }
            tcp::Sent::Blocked => Sent::Blocked,
            tcp::Sent::Gone => Sent::Gone,
        }
    }
}

/// One of the pump's writes under way.
pub struct Write {
    connection: Rc<Connection>,
    /// What became of the offer; `None` before, and where a defect ended it.
    offered: Option<Offered>,
}

/// Serves a connection until it is closed.
pub async fn serve(shard: Rc<Shard>, connection: Rc<Connection>) {
    poll_fn(|cx| {
        // A panic is a defect of ours in what this one peer sent: it costs this connection and nothing else.
        catch_unwind(AssertUnwindSafe(|| shard.poll_connection(cx, &connection))).unwrap_or_else(|_| {
            shard.on_panic(&connection);
            Poll::Ready(())
        })
    })
    .await;
    shard.forget(&connection);
}

impl Shard {
    fn poll_connection(&self, cx: &mut Context<'_>, connection: &Connection) -> Poll<()> {
        let known = connection.waker.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !known {
            *connection.waker.borrow_mut() = Some(cx.waker().clone());
        }
        let now = Instant::now();
        if connection.phase.get() == Phase::Open {
            self.poll_open(cx, connection, now);
        }
        let poll = match connection.phase.get() {
            Phase::Open => Poll::Pending,
            Phase::Lingering { until, bytes } => self.poll_lingering(cx, connection, now, until, bytes),
            Phase::Closed => Poll::Ready(()),
        };
        self.wake_pump();
        self.post_outgoing(now);
        poll
    }

    fn poll_open(&self, cx: &mut Context<'_>, connection: &Connection, now: Instant) {
        match self.turn(cx, connection, now) {
            Ok(()) => {
                self.note_progress(connection);
                // An answer may have brought a deadline that has passed already.
                if connection.is_due(now) {
                    cx.waker().wake_by_ref();
                }
            }
            Err(Ended::Peer(reason)) => self.finish(connection, now, reason),
            Err(Ended::Us(reason)) => self.end(connection, now, reason, false),
            Err(Ended::Order(reason)) => self.end(connection, now, reason, true),
        }
    }

    fn turn(&self, cx: &mut Context<'_>, connection: &Connection, now: Instant) -> Result<(), Ended> {
        if let Some(ended) = connection.order.take() {
            return Err(ended);
        }
        if connection.is_due(now) {
            let result = connection.adapter.borrow_mut().handle_timeout(now, &mut self.core.borrow_mut());
            result.map_err(Ended::Us)?;
        }
        self.read_turn(cx, connection, now)?;
        self.write_turn(cx, connection, now)?;
        match connection.adapter.borrow_mut().end() {
            Some(reason) => Err(Ended::Us(reason)),
            None => Ok(()),
        }
    }

    fn read_turn(&self, cx: &mut Context<'_>, connection: &Connection, now: Instant) -> Result<(), Ended> {
        if connection.resting.get() {
            return Ok(());
        }
        let mut buffer = self.read_buffer.borrow_mut();
        connection.adapter.borrow_mut().begin_turn(MESSAGES_PER_TURN);
        for turn in 0.. {
            {
                let core = self.core.borrow();
                if connection.adapter.borrow().unflushed_bytes(&core) > UNFLUSHED_MAX {
                    // Woken by the pump when it has handed that out.
                    self.paced.borrow_mut().push(connection.key);
                    return Ok(());
                }
            }
            if connection.adapter.borrow().has_more() {
                connection.adapter.borrow_mut().handle_more(now, &mut self.core.borrow_mut()).map_err(Ended::Us)?;
            }
            let has_more = connection.adapter.borrow().has_more();
            if turn == READS_PER_TURN || has_more {
                self.totals.borrow_mut().turns_cut += u64::from(has_more);
                cx.waker().wake_by_ref();
                return Ok(());
            }
            if !connection.adapter.borrow().wants_read(now, &self.core.borrow()) {
                // The clerk looks again at its next tick.
                self.paused.borrow_mut().push(connection.key);
                self.hurry_clerk();
                return Ok(());
            }
            if turn > 0 && self.reads_in_rounds.get() && connection.adapter.borrow().is_publisher() {
                connection.resting.set(true);
                self.resting.borrow_mut().push(connection.key);
                return Ok(());
            }
            let read = connection.stream.borrow_mut().poll_read(cx, &mut buffer);
            let bytes = match read {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => return Err(Ended::Peer(Reason::ClientReset.into())),
                Poll::Ready(Ok(0)) => return Err(Ended::Peer(Reason::ClientDone.into())),
                Poll::Ready(Ok(bytes)) => bytes,
            };
            {
                let mut totals = self.totals.borrow_mut();
                totals.reads += 1;
                totals.rx_bytes += bytes as u64;
            }
            let input = buffer.get(..bytes).unwrap_or_default();
            let result = connection.adapter.borrow_mut().handle_bytes(now, &mut self.core.borrow_mut(), input);
            result.map_err(Ended::Us)?;
        }
        Ok(())
    }

    /// Reads the publishers that rest, before a round hands out what they sent. On a busy shard this saves asking for
    /// readiness for every frame, and costs no time: the round would have waited for the frame in any case.
    pub(super) fn read_resting(&self, now: Instant) {
        let mut resting = std::mem::take(&mut *self.resting.borrow_mut());
        resting.retain(|key| {
            let Some(connection) = self.connection(*key).filter(|it| it.resting.get()) else { return false };
            self.guarded(&connection, || self.read_one_resting(&connection, now));
            let stays = connection.is_open() && connection.resting.get();
            if !stays {
                connection.resting.set(false);
                connection.wake();
            }
            stays
        });
        resting.append(&mut self.resting.borrow_mut());
        *self.resting.borrow_mut() = resting;
    }

    fn read_one_resting(&self, connection: &Connection, now: Instant) {
        let mut buffer = self.read_buffer.borrow_mut();
        connection.adapter.borrow_mut().begin_turn(MESSAGES_PER_TURN);
        for _ in 0..READS_PER_TURN {
            if !self.reads_in_rounds.get() || !connection.is_open() || connection.order.get().is_some() {
                return connection.resting.set(false);
            }
            {
                let core = self.core.borrow();
                let adapter = connection.adapter.borrow();
                if !adapter.is_publisher() || !adapter.wants_read(now, &core) {
                    return connection.resting.set(false);
                }
                if adapter.unflushed_bytes(&core) > UNFLUSHED_MAX {
                    return;
                }
            }
            let bytes = match connection.stream.borrow().try_read(&mut buffer) {
                Ok(None) => return,
                Ok(Some(0)) => return connection.order(Ended::Peer(Reason::ClientDone.into())),
                Err(_) => return connection.order(Ended::Peer(Reason::ClientReset.into())),
                Ok(Some(bytes)) => bytes,
            };
            {
                let mut totals = self.totals.borrow_mut();
                totals.reads += 1;
                totals.rx_bytes += bytes as u64;
            }
            let input = buffer.get(..bytes).unwrap_or_default();
            let result = connection.adapter.borrow_mut().handle_bytes(now, &mut self.core.borrow_mut(), input);
            if let Err(reason) = result {
                return connection.order(Ended::Us(reason));
            }
            self.note_progress(connection);
            if connection.adapter.borrow_mut().has_output() {
                connection.wake();
            }
            if connection.adapter.borrow().has_more() {
                // Its own task goes on, after the others.
                self.totals.borrow_mut().turns_cut += 1;
                return connection.resting.set(false);
            }
            if bytes < buffer.len() {
                return;
            }
        }
    }

    fn write_turn(&self, cx: &mut Context<'_>, connection: &Connection, now: Instant) -> Result<(), Ended> {
        if connection.blocked.get() {
            let mut core = self.core.borrow_mut();
            let mut adapter = connection.adapter.borrow_mut();
            let mut stream = connection.stream.borrow_mut();
            // Readiness is asked for with the first bytes that wait; where there is room by now they go out.
            let poll = adapter.with_first_waiting(&core, |bytes| {
                if bytes.is_empty() { Poll::Ready(Ok(0)) } else { stream.poll_write(cx, bytes) }
            });
            match poll {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => return Err(Ended::Peer(Reason::ClientReset.into())),
                Poll::Ready(Ok(sent)) => {
                    {
                        let mut totals = self.totals.borrow_mut();
                        totals.writes += 1;
                        totals.tx_bytes += sent as u64;
                    }
                    adapter.handle_written(now, &mut core, sent);
                    connection.blocked.set(false);
                }
            }
        }
        self.write_now(connection, now)
    }

    /// Writes what is due for a connection that is not known to be full.
    fn write_now(&self, connection: &Connection, now: Instant) -> Result<(), Ended> {
        let stream = connection.stream.borrow();
        let mut socket = Socket { stream: &stream, shard: self };
        let flow = connection.adapter.borrow_mut().write(now, &mut self.core.borrow_mut(), &mut socket);
        connection.after_write(flow)
    }

    /// The pump's writes for some players, a step at a time for all of them (see [`Rtmp::begin_write`]). Whatever ends a
    /// connection is left to its task. `writes` is the pump's, kept for its memory.
    pub(super) fn write_to(&self, players: &[Subscriber], now: Instant, writes: &mut Vec<Write>) {
        self.gather(players, writes);
        writes.retain(|Write { connection, .. }| {
            let mut end = None;
            self.guarded(connection, || {
                end = Some(connection.adapter.borrow_mut().begin_write(now, &mut self.core.borrow_mut()));
            });
            if let Some(Some(flow)) = end {
                connection.obey(flow);
            }
            matches!(end, Some(None))
        });
        for Write { connection, offered } in &mut *writes {
            self.guarded(connection, || {
                let stream = connection.stream.borrow();
                let mut socket = Socket { stream: &stream, shard: self };
                *offered = Some(connection.adapter.borrow().offer(&self.core.borrow(), &mut socket));
            });
        }
        for Write { connection, offered } in writes.drain(..) {
            let Some(offered) = offered else { continue };
            self.guarded(&connection, || {
                let flow = connection.adapter.borrow_mut().settle(now, &mut self.core.borrow_mut(), offered);
                connection.obey(flow);
            });
        }
    }

    /// The players that take a write. What the writes will touch is asked for on the way, for all of them at a time: each
    /// object is found through the one before it, and comes while the others' are asked for.
    fn gather(&self, players: &[Subscriber], writes: &mut Vec<Write>) {
        let connections = self.connections.borrow();
        // The connection may be gone, or another's by now: then this write finds nothing due.
        let get = |player: &Subscriber| connections.get(player.0);
        for connection in players.iter().filter_map(get) {
            ahead::fetch(&**connection);
        }
        writes.clear();
        for connection in players.iter().filter_map(get).filter(|it| it.takes_writes()) {
            connection.adapter.borrow().fetch_place();
            writes.push(Write { connection: Rc::clone(connection), offered: None });
        }
        let core = self.core.borrow();
        for Write { connection, .. } in &*writes {
            connection.adapter.borrow().fetch_session(&core);
        }
    }

    fn note_progress(&self, connection: &Connection) {
        let adapter = connection.adapter.borrow();
        connection.deadline.set(adapter.next_deadline());
        let admitted = adapter.is_admitted();
        if connection.admitted.replace(admitted) != admitted {
            self.count_admitted(connection, admitted);
        }
    }

    /// Has a connection adopt what the core obeys by now.
    pub(super) fn adopt(&self, connection: &Connection) {
        connection.adapter.borrow_mut().adopt(&self.core.borrow());
        self.note_progress(connection);
    }

    /// The clerk's look at the clock for one connection.
    pub(super) fn look_after(&self, connection: &Connection, now: Instant) {
        if connection.phase.get() != Phase::Open {
            return connection.wake();
        }
        let result = connection.adapter.borrow_mut().handle_timeout(now, &mut self.core.borrow_mut());
        match result {
            Ok(()) => {
                self.note_progress(connection);
                if connection.adapter.borrow_mut().has_output() {
                    connection.wake();
                }
            }
            Err(reason) => self.end(connection, now, reason, reason.reason == Reason::SlowConsumer),
        }
    }

    /// Ends a connection by order; its user reads `text` where a back end has words of its own.
    pub(super) fn end_saying(&self, connection: &Connection, now: Instant, reason: CloseReason, text: Option<&str>) {
        if let Some(text) = text.filter(|_| connection.is_open()) {
            connection.adapter.borrow_mut().say_goodbye(reason, Some(text));
        }
        self.end(connection, now, reason, text.is_none());
    }

    /// Ends a connection from our side, now: last words where they can still be read, the session's record, the end of
    /// our half of the socket. Its task does the rest.
    pub(super) fn end(&self, connection: &Connection, now: Instant, reason: CloseReason, goodbye: bool) {
        if connection.phase.get() != Phase::Open {
            return;
        }
        self.report_trouble(connection, now, reason);
        let mut full = connection.blocked.get();
        {
            let mut adapter = connection.adapter.borrow_mut();
            let mut core = self.core.borrow_mut();
            if goodbye {
                adapter.say_goodbye(reason, None);
            }
            let stream = connection.stream.borrow();
            let mut socket = Socket { stream: &stream, shard: self };
            for _ in 0..LAST_WRITES {
                if full {
                    break;
                }
                match adapter.write(now, &mut core, &mut socket) {
                    Flow::Idle => break,
                    Flow::More => {}
                    Flow::Blocked | Flow::Gone | Flow::GiveUp => full = true,
                }
            }
            adapter.handle_close(now, &mut core, reason);
        }
        // What it was it stays in the books until its socket is gone: a thousand that are ended at once are no strangers.
        let stream = connection.stream.borrow();
        if full {
            // A peer that does not read will not read a goodbye; what the kernel holds for it is let go.
            stream.reset_on_close();
            connection.phase.set(Phase::Closed);
        } else {
            stream.shutdown(Shutdown::Write);
            connection.phase.set(Phase::Lingering { until: now + LINGER, bytes: 0 });
        }
        connection.wake();
    }

    fn poll_lingering(
        &self,
        cx: &mut Context<'_>,
        connection: &Connection,
        now: Instant,
        until: Instant,
        mut bytes: usize,
    ) -> Poll<()> {
        let mut buffer = self.read_buffer.borrow_mut();
        let mut reads = 0;
        while now < until && bytes < LINGER_BYTES {
            reads += 1;
            if reads > READS_PER_TURN {
                connection.phase.set(Phase::Lingering { until, bytes });
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match connection.stream.borrow_mut().poll_read(cx, &mut buffer) {
                Poll::Pending => {
                    connection.phase.set(Phase::Lingering { until, bytes });
                    return Poll::Pending;
                }
                Poll::Ready(Ok(read @ 1..)) => bytes += read,
                Poll::Ready(_) => break,
            }
        }
        connection.stream.borrow().shutdown(Shutdown::Both);
        connection.phase.set(Phase::Closed);
        Poll::Ready(())
    }

    /// Closes after the peer's end.
    fn finish(&self, connection: &Connection, now: Instant, reason: CloseReason) {
        connection.adapter.borrow_mut().handle_close(now, &mut self.core.borrow_mut(), reason);
        connection.stream.borrow().shutdown(Shutdown::Both);
        connection.phase.set(Phase::Closed);
    }

    /// Closes without a word, now: what a newcomer takes the place of.
    pub(super) fn cut(&self, connection: &Connection, now: Instant, reason: CloseReason) {
        if connection.phase.get() == Phase::Open {
            connection.stream.borrow().reset_on_close();
            self.finish(connection, now, reason);
            connection.wake();
        }
    }

    /// Closes after a defect of ours. The adapter is in an unknown state: it is asked only for its session.
    pub(super) fn on_panic(&self, connection: &Connection) {
        self.totals.borrow_mut().internal_errors += 1;
        let now = Instant::now();
        let closed = catch_unwind(AssertUnwindSafe(|| {
            self.report_trouble(connection, now, Reason::InternalError.into());
            self.note_defect(connection, now);
            connection.adapter.borrow_mut().handle_close(
                now,
                &mut self.core.borrow_mut(),
                Reason::InternalError.into(),
            );
        }));
        if closed.is_err() {
            tracing::error!(remote = %connection.remote, "a connection's session could not be closed after a defect");
        }
        connection.stream.borrow().shutdown(Shutdown::Both);
        connection.phase.set(Phase::Closed);
        connection.wake();
        self.wake_pump();
        self.post_outgoing(now);
    }
}

impl Shard {
    /// Counts a defect against the type of the connection's session, which is refused once it has too many.
    fn note_defect(&self, connection: &Connection, now: Instant) {
        let core = self.core.borrow();
        let of = connection.with_adapter(|adapter| adapter.facts(&core).map(|facts| (facts.protocol, facts.kind)));
        if let Some((protocol, kind)) = of
            && core.guard.note_defect(now, protocol, kind)
        {
            tracing::error!(
                ev = "type_disabled",
                proto = protocol.as_str(),
                role = kind.as_str(),
                "a second defect within a second: such sessions are refused until the next start or reload"
            );
        }
    }
}

/// Why a turn ended the connection.
#[derive(Clone, Copy)]
pub(super) enum Ended {
    /// The peer closed or is gone: nothing can be said any more.
    Peer(CloseReason),
    /// We end it, and the engine has said why where the protocol has words for it.
    Us(CloseReason),
    /// We end it and say why first.
    Order(CloseReason),
}
