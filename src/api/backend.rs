//! What the API needs of control. A trait, so that the API can be tested against a model made by hand.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

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
    /// A place in the order of events.
    fn subscribe(&self, after: Option<u64>) -> Cursor;
    /// The next event and how many were missed before it.
    fn next_event<'a>(&'a self, cursor: &'a mut Cursor) -> Answer<'a, (u64, Recorded)>;
}

impl Backend for Handle {
    fn read(&self, read: &mut dyn FnMut(&View)) {
        self.view(read);
    }

    fn terminate(&self, what: Terminate) -> Answer<'_, Result<Terminated, CommandError>> {
        Box::pin(Handle::terminate(self, what))
    }

    fn ban(&self, ban: Ban) -> Answer<'_, Result<Terminated, CommandError>> {
        Box::pin(Handle::ban(self, ban))
    }

    fn unban(&self, whom: Whom) -> Answer<'_, Result<bool, CommandError>> {
        Box::pin(Handle::unban(self, whom))
    }

    fn dependencies(&self) -> Dependencies {
        Handle::dependencies(self)
    }

    fn drain(&self, over: Duration) {
        Handle::drain(self, over);
    }

    fn subscribe(&self, after: Option<u64>) -> Cursor {
        Handle::subscribe(self, after)
    }

    fn next_event<'a>(&'a self, cursor: &'a mut Cursor) -> Answer<'a, (u64, Recorded)> {
        Box::pin(Handle::next_event(self, cursor))
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
