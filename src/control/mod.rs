//! The one place that sees all shards: commands, collectors, totals, the read model.
//!
//! Control is one thread with a tokio current-thread runtime. Everything the API may want is a method of
//! [`Handle`]; reading takes a lock that only this thread ever takes, so it never waits.
//!
//! [`Control::run`] is the task behind the handles. It reads the shards' mail from a [`Mailbox`], and has its
//! parts decide: the [`registry`] who publishes what and which shards are connected, [`endings`] how sessions are
//! ended, [`reloads`] how new rules reach every shard, the [`model`] what the view shows, [`rates`] how fast bytes move. The parts know neither clock nor
//! queue, and are tested without either.

pub mod endings;
pub mod filter;
pub mod journal;
pub mod load;
pub mod log;
pub mod mailbox;
pub mod model;
pub mod questions;
pub mod rates;
pub mod registry;
pub mod reloads;
pub mod run;
pub mod settings;
pub mod spool;
pub mod view;

#[cfg(test)]
mod testing;

pub use filter::{Filter, FilterError};
pub use mailbox::Mailbox;
pub use run::{Control, Outside, Setup, start};
pub use settings::Settings;
pub use view::View;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::admission::{self, Ban, Whom};
use crate::event::{Bus, Cursor, Recorded};
use crate::hook::{self, Asks, Endpoint};
use crate::ledger::{self, Ledger};
use crate::names::SessionId;
use crate::session::CloseReason;
use crate::shard::Rules;

/// What the API, the metrics and the command line hold. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// What handles and the control task have in common. All of it is used from one thread; the locks are there so
/// that a handle may be held by what asks for `Send`.
struct Shared {
    view: Mutex<View>,
    bus: Mutex<Bus>,
    /// The rules of admission in force.
    admission: watch::Sender<Arc<admission::Settings>>,
    /// Token rules whose key set should be read again, and what is rung for them.
    stale_keys: (Mutex<BTreeSet<usize>>, Notify),
    asks: Option<Asks>,
    endpoints: Vec<Endpoint>,
    ledger: Option<Ledger>,
    /// Rung after events happened.
    happened: Notify,
    /// Rung when events may be told: at once, or when they are on record.
    recorded: Notify,
    ending: watch::Sender<Ending>,
}

/// How the server is being stopped; only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    Drain { over: Duration },
    Now,
}

enum Command {
    Terminate { what: Box<Terminate>, reply: endings::Reply },
    Ban { ban: Ban, reply: endings::Reply },
    Ready { at: Instant },
    KeySet { rule: usize, from: String, text: String, reply: oneshot::Sender<Result<usize, &'static str>> },
    Configure { rules: Arc<Rules>, reply: reloads::Reply },
    ReloadRefused,
    Unban { whom: Whom, reply: oneshot::Sender<bool> },
}

/// Commands that may wait for the control task. It takes all that wait at each turn.
const COMMANDS_MAX: usize = 64;

/// The longest drain.
const DRAIN_MAX: Duration = Duration::from_hours(24);

/// Ending sessions.
#[derive(Clone, Debug)]
pub struct Terminate {
    /// Which.
    pub filter: Filter,
    /// Why; `kicked`, or `banned` when `ban_for` is set, unless an adapter says otherwise.
    pub reason: CloseReason,
    /// How long the same peers are refused on the same stream in the same role; a year at most.
    pub ban_for: Option<Duration>,
    /// Only say which.
    pub dry_run: bool,
}

/// What came of [`Terminate`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terminated {
    /// Sessions that matched, oldest first (the first 1,000 are named).
    pub ids: Vec<SessionId>,
    /// How many matched.
    pub matched: usize,
    /// How many were closed (0 for a dry run; the rest had ended by themselves).
    pub closed: usize,
    /// Bans made.
    pub banned: usize,
}

/// How those are on whom control depends.
#[derive(Clone, Debug, Default)]
pub struct Dependencies {
    /// The durable record, where there is one.
    pub ledger: Option<ledger::Status>,
    /// The back ends that are asked.
    pub asks: Vec<hook::Status>,
    /// The receivers that are told.
    pub tells: Vec<hook::Status>,
}

/// What came of new rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configured {
    /// Which configuration this is, counted from that of the start, which is 1.
    pub generation: u64,
    /// Sessions that the new rules turned away.
    pub closed: usize,
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A shard did not answer within a second.
    #[error("a shard did not answer in time")]
    Timeout,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

impl Handle {
    /// Reads the model. Keep `read` short: control does nothing else meanwhile. It must not use a handle itself.
    pub fn view<R>(&self, read: impl FnOnce(&View) -> R) -> R {
        read(&self.shared.view())
    }

    /// Ends sessions. When it returns, every shard has closed its part and knows the bans.
    ///
    /// # Errors
    /// When a shard did not answer or the server is stopping. The orders were sent all the same, and shards that
    /// do answer have carried them out.
    pub async fn terminate(&self, what: Terminate) -> Result<Terminated, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::Terminate { what: Box::new(what), reply })
            .await
            .map_err(|_| CommandError::Stopping)?;
        answer.await.unwrap_or(Err(CommandError::Stopping))
    }

    /// Bans a peer and ends the sessions that it concerns. When it returns, every shard knows it.
    ///
    /// # Errors
    /// As for [`terminate`](Self::terminate).
    pub async fn ban(&self, ban: Ban) -> Result<Terminated, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Ban { ban, reply }).await.map_err(|_| CommandError::Stopping)?;
        answer.await.unwrap_or(Err(CommandError::Stopping))
    }

    /// Puts new rules in force, on every shard and in control. When it returns, all of them obey, and the sessions that
    /// the rules turn away are closed.
    ///
    /// # Errors
    /// When a shard did not answer, which obeys all the same as soon as it runs, or the server is stopping.
    pub async fn configure(&self, rules: Arc<Rules>) -> Result<Configured, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Configure { rules, reply }).await.map_err(|_| CommandError::Stopping)?;
        answer.await.unwrap_or(Err(CommandError::Stopping))
    }

    /// Counts a configuration that was not taken, because something was wrong with it.
    pub async fn note_refused_reload(&self) {
        // A server that is stopping counts no more.
        let _ = self.commands.send(Command::ReloadRefused).await;
    }

    /// Lifts a ban; false when there was none of exactly this peer. When it returns, the order is on its way to every
    /// shard.
    ///
    /// # Errors
    /// When the server is stopping.
    pub async fn unban(&self, whom: Whom) -> Result<bool, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Unban { whom, reply }).await.map_err(|_| CommandError::Stopping)?;
        answer.await.map_err(|_| CommandError::Stopping)
    }

    /// Begins a drain: no new sessions, goodbyes spread until `over` (a day at most) has passed, then exit.
    pub fn drain(&self, over: Duration) {
        self.shared.view().draining = true;
        self.shared.ending.send_if_modified(|ending| {
            let first = *ending == Ending::No;
            if first {
                *ending = Ending::Drain { over: over.min(DRAIN_MAX) };
            }
            first
        });
    }

    /// Ends every session now, a drain under way included.
    pub fn stop(&self) {
        self.shared.view().draining = true;
        self.shared.ending.send_replace(Ending::Now);
    }

    /// All listeners are armed: the server is ready from now on.
    pub async fn set_ready(&self, now: Instant) {
        let first = !std::mem::replace(&mut self.shared.view().ready, true);
        if first {
            // A control that has ended has nobody to tell.
            let _ = self.commands.send(Command::Ready { at: now }).await;
        }
    }

    /// Back ends and receivers are spoken to with these secrets from now on.
    pub fn sign_with(&self, settings: &hook::Settings) {
        if let Some(asks) = &self.shared.asks {
            asks.sign_with(settings);
        }
        for endpoint in &self.shared.endpoints {
            endpoint.sign_with(settings);
        }
    }

    /// The rules of admission that are in force, and what becomes of them.
    #[must_use]
    pub fn admission(&self) -> watch::Receiver<Arc<admission::Settings>> {
        self.shared.admission.subscribe()
    }

    /// Waits until a token names a key that its rule's key set does not have; the rules whose sets should be read again.
    pub async fn stale_keys(&self) -> BTreeSet<usize> {
        let (rules, rung) = &self.shared.stale_keys;
        loop {
            let wanted = rung.notified();
            let stale = std::mem::take(&mut *rules.lock().unwrap_or_else(PoisonError::into_inner));
            if !stale.is_empty() {
                return stale;
            }
            wanted.await;
        }
    }

    /// Gives a token rule its key set, which was read at `from`; returns how many keys it has.
    ///
    /// # Errors
    /// When the rules have changed and the one at that place reads another set, when the text is no key set, or the server is stopping.
    pub async fn set_jwks(&self, rule: usize, from: String, text: String) -> Result<usize, &'static str> {
        let stopping = "the server is stopping";
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::KeySet { rule, from, text, reply }).await.map_err(|_| stopping)?;
        answer.await.unwrap_or(Err(stopping))
    }

    /// How those are on whom control depends.
    #[must_use]
    pub fn dependencies(&self) -> Dependencies {
        let Shared { ledger, asks, endpoints, .. } = &*self.shared;
        Dependencies {
            ledger: ledger.as_ref().map(Ledger::status),
            asks: asks.as_ref().map(Asks::status).unwrap_or_default(),
            tells: endpoints.iter().map(Endpoint::status).collect(),
        }
    }

    /// A cursor at the newest event, or just after event `number` for a consumer that resumes.
    #[must_use]
    pub fn subscribe(&self, after: Option<u64>) -> Cursor {
        let bus = self.shared.bus();
        after.map_or_else(|| bus.subscribe(), |number| bus.resume(number))
    }

    /// The next event and how many were missed before it; waits for one.
    pub async fn next_event(&self, cursor: &mut Cursor) -> (u64, Recorded) {
        loop {
            // Made before looking, so that an event recorded in between rings it.
            let recorded = self.shared.recorded.notified();
            if let Some(next) = self.try_next_event(cursor) {
                return next;
            }
            recorded.await;
        }
    }

    /// The next event if there is one already.
    pub fn try_next_event(&self, cursor: &mut Cursor) -> Option<(u64, Recorded)> {
        self.shared.bus().next(cursor)
    }

    /// The next event, on record or not: for the log, which tells nobody outside. Waits for one.
    pub async fn next_happened(&self, cursor: &mut Cursor) -> (u64, Recorded) {
        loop {
            let happened = self.shared.happened.notified();
            if let Some(next) = self.shared.bus().next_happened(cursor) {
                return next;
            }
            happened.await;
        }
    }

    /// Control has ended: what is on record up to event `number` may be told, and what follows never.
    pub fn tell_to(&self, number: u64) {
        self.shared.bus().tell_to(number);
        self.shared.recorded.notify_waiters();
        self.shared.happened.notify_waiters();
    }

    /// Events recorded since the server's start.
    #[must_use]
    pub fn events_recorded(&self) -> u64 {
        self.shared.bus().subscribe().next.saturating_sub(1)
    }
}

impl Shared {
    // A panic while a lock was held (in a reader's closure) leaves the data whole: readers cannot change it.
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bus(&self) -> MutexGuard<'_, Bus> {
        self.bus.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
