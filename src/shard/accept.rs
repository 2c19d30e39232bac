//! A listener's task: takes connections, refuses what is over a limit, pauses when descriptors run out.

use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use glommio::timer::sleep;
use socket2::Socket;

use crate::adapter::Rtmp;
use crate::io::tcp::{Accepted, Listener};
use crate::names::ConnectionId;
use crate::session::{CloseReason, Reason};
use crate::shard::connection::{Connection, serve};
use crate::shard::{Phase, Shard};
use crate::stream::Subscriber;

/// Connections taken before others get their turn.
const BATCH: usize = 64;
/// How long accepting pauses when the kernel has no descriptors or control does not keep up. Peers wait in the
/// backlog meanwhile.
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
    while !stopped.get() {
        if shard.is_backed_up() {
            sleep(PAUSE).await;
            continue;
        }
        let result = listener.accept(BATCH, &mut batch).await;
        let is_full = batch.len() >= BATCH;
        shard.admit_all(std::mem::take(&mut batch));
        if is_full {
            // As long as somebody waits, accepting is ready at once: the others get their turn all the same.
            glommio::executor().yield_task_queue_now().await;
        }
        if let Err(error) = result
            && !stopped.get()
        {
            shard.totals.borrow_mut().accept_pauses += 1;
            tracing::warn!(shard = shard.id.0, %error, "accepting pauses");
            sleep(PAUSE).await;
        }
    }
}

impl Shard {
    fn admit_all(self: &Rc<Self>, accepted: Vec<Accepted>) {
        let now = Instant::now();
        for one in accepted {
            self.admit(now, one);
        }
        self.post_outgoing(now);
    }

    fn admit(self: &Rc<Self>, now: Instant, accepted: Accepted) {
        self.totals.borrow_mut().accepted += 1;
        if let Some(reason) = self.refusal(accepted.remote) {
            self.totals.borrow_mut().refused += 1;
            self.core.borrow_mut().attempt(now, None, accepted.remote, reason);
            return;
        }
        self.connections_open.fetch_add(1, Ordering::Relaxed);
        let count = self.connection_count.get() + 1;
        self.connection_count.set(count);
        let id = ConnectionId::new(self.id, count);
        let connection = {
            let mut connections = self.connections.borrow_mut();
            let entry = connections.vacant_entry();
            let key = entry.key();
            let adapter = Rtmp::new(&self.core.borrow(), now, id, Subscriber(key), accepted.remote, accepted.local);
            let connection = Rc::new(Connection::new(key, accepted.remote, accepted.stream, adapter));
            entry.insert(Rc::clone(&connection));
            connection
        };
        {
            let mut sources = self.sources.borrow_mut();
            let source = sources.entry(source_of(accepted.remote)).or_default();
            source.all += 1;
            source.unauthenticated += 1;
        }
        self.unauthenticated.set(self.unauthenticated.get() + 1);
        glommio::spawn_local(serve(Rc::clone(self), connection)).detach();
    }

    fn refusal(&self, remote: SocketAddr) -> Option<CloseReason> {
        if self.state.get() != Phase::Serving {
            return Some(Reason::Drain.into());
        }
        if self.connections_open.load(Ordering::Relaxed) >= self.connections_max {
            return Some(CloseReason::with(Reason::Overload, "connections"));
        }
        let source = self.sources.borrow().get(&source_of(remote)).copied().unwrap_or_default();
        let (all, unauthenticated) = {
            let settings = self.settings.borrow();
            (settings.connections_per_ip, settings.unauthenticated_per_ip)
        };
        if (all > 0 && source.all >= all) || (unauthenticated > 0 && source.unauthenticated >= unauthenticated) {
            return Some(CloseReason::with(Reason::ConcurrencyLimit, "ip"));
        }
        None
    }

    /// Books a connection's step from unknown to admitted, or back.
    pub(super) fn count_admitted(&self, remote: SocketAddr, admitted: bool) {
        let mut sources = self.sources.borrow_mut();
        if let Some(source) = sources.get_mut(&source_of(remote)) {
            if admitted {
                source.unauthenticated = source.unauthenticated.saturating_sub(1);
                self.unauthenticated.set(self.unauthenticated.get().saturating_sub(1));
            } else {
                source.unauthenticated += 1;
                self.unauthenticated.set(self.unauthenticated.get() + 1);
            }
        }
    }

    /// Removes a closed connection from the books.
    pub(super) fn forget(&self, connection: &Connection) {
        if self.connections.borrow_mut().try_remove(connection.key).is_some() {
            self.connections_open.fetch_sub(1, Ordering::Relaxed);
        }
        let mut sources = self.sources.borrow_mut();
        let key = source_of(connection.remote);
        if let Some(source) = sources.get_mut(&key) {
            source.all = source.all.saturating_sub(1);
            if !connection.is_admitted() {
                source.unauthenticated = source.unauthenticated.saturating_sub(1);
                self.unauthenticated.set(self.unauthenticated.get().saturating_sub(1));
            }
            if source.all == 0 {
                sources.remove(&key);
            }
        }
        if let Some(waker) = self.clerk_waker.borrow().as_ref()
            && self.state.get() != Phase::Serving
        {
            waker.wake_by_ref();
        }
    }
}

/// An IPv4 address, or an IPv6 /64, which is what one customer has.
fn source_of(remote: SocketAddr) -> IpAddr {
    match remote.ip().to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}
