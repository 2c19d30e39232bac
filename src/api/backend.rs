//! What the API needs of control. A trait, so that the API can be tested against a model made by hand.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::admission::{Ban, Whom};
use crate::control::{CommandError, Dependencies, Handle, Terminate, Terminated, View};
use crate::event::{Cursor, Recorded};

/// A future that control works on.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Control, as the API sees it. The methods mean what those of [`Handle`] mean.
pub trait Backend: Send + Sync + 'static {
    /// Reads the model; `read` is called exactly once.
    fn read(&self, read: &mut dyn FnMut(&View));
    /// Ends sessions.
    fn terminate(&self, what: Terminate) -> Answer<'_, Result<Terminated, CommandError>>;
    /// Bans a peer and ends what it has here.
    fn ban(&self, ban: Ban) -> Answer<'_, Result<Terminated, CommandError>>;
    /// Lifts a ban; false when there was none.
    fn unban(&self, whom: Whom) -> Answer<'_, Result<bool, CommandError>>;
    /// How those are on whom control depends.
    fn dependencies(&self) -> Dependencies;
    /// Begins a drain.
    fn drain(&self, over: Duration);
    /// Over how long a drain is spread when nobody says.
    fn drain_timeout(&self) -> Duration;
    /// Has the configuration read again.
    fn reload(&self) -> Answer<'_, Result<Reloaded, ReloadError>>;
    /// A place in the order of events.
    fn subscribe(&self, after: Option<u64>) -> Cursor;
    /// The next event and how many were missed before it.
    fn next_event<'a>(&'a self, cursor: &'a mut Cursor) -> Answer<'a, (u64, Recorded)>;
}

/// What came of reading the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Which configuration is in force: 1 is that of the start.
    pub generation: u64,
    /// Keys that have another value now.
    pub changed: Vec<String>,
    /// Keys that take effect at a restart.
    pub pending: Vec<String>,
    /// What is doubtful about it.
    pub warnings: Vec<String>,
    /// Sessions that the new rules turned away.
    pub closed: usize,
}

/// Why a configuration is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadError {
    /// So much is wrong with it; nothing has changed.
    Refused(Vec<String>),
    /// [`RELOADS_MAX`] wait for their turn already; the last of them reads what is there then.
    Busy,
    /// The server could not be told, or not in time.
    Command(CommandError),
}

/// Who wants the configuration read again, to be answered with what came of it.
pub type ReloadRequest = oneshot::Sender<Result<Reloaded, ReloadError>>;

/// Reloads that may wait for their turn.
pub const RELOADS_MAX: usize = 16;

/// The server: control, and whoever read the configuration and can read it again.
pub struct Server {
    /// Control.
    pub control: Handle,
    /// Where reloads are asked for; there is room for [`RELOADS_MAX`].
    pub reloads: mpsc::Sender<ReloadRequest>,
    /// `shard.drain_timeout` as it is in force.
    pub drain_timeout: watch::Receiver<Duration>,
}

impl Backend for Server {
    fn read(&self, read: &mut dyn FnMut(&View)) {
        self.control.view(read);
    }

    fn terminate(&self, what: Terminate) -> Answer<'_, Result<Terminated, CommandError>> {
        Box::pin(self.control.terminate(what))
    }

    fn ban(&self, ban: Ban) -> Answer<'_, Result<Terminated, CommandError>> {
        Box::pin(self.control.ban(ban))
    }

    fn unban(&self, whom: Whom) -> Answer<'_, Result<bool, CommandError>> {
        Box::pin(self.control.unban(whom))
    }

    fn dependencies(&self) -> Dependencies {
        self.control.dependencies()
    }

    fn drain(&self, over: Duration) {
        self.control.drain(over);
    }

    fn drain_timeout(&self) -> Duration {
        *self.drain_timeout.borrow()
    }

    fn reload(&self) -> Answer<'_, Result<Reloaded, ReloadError>> {
        Box::pin(async {
            let (request, answer) = oneshot::channel();
            let stopping = Err(ReloadError::Command(CommandError::Stopping));
            match self.reloads.try_send(request) {
                Ok(()) => answer.await.unwrap_or(stopping),
                Err(mpsc::error::TrySendError::Full(_)) => Err(ReloadError::Busy),
                Err(mpsc::error::TrySendError::Closed(_)) => stopping,
            }
        })
    }

    fn subscribe(&self, after: Option<u64>) -> Cursor {
        self.control.subscribe(after)
    }

    fn next_event<'a>(&'a self, cursor: &'a mut Cursor) -> Answer<'a, (u64, Recorded)> {
        Box::pin(self.control.next_event(cursor))
    }
}

impl dyn Backend {
    /// Reads the model and returns what `read` made of it. Keep it short: control does nothing else meanwhile.
    pub fn view<R>(&self, read: impl FnOnce(&View) -> R) -> R {
        let (mut read, mut answer) = (Some(read), None);
        self.read(&mut |view| answer = read.take().map(|read| read(view)));
        answer.expect("control reads the model when asked to")
    }
}
