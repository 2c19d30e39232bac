//! The handle of a running ledger.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::admission::Whom;
use crate::ledger::outbox::Reader;
use crate::ledger::queue::{BanOrder, Queue};
use crate::ledger::{Entry, Files, OutboxRow, Status, StoredBan};
use crate::names::SessionId;
use crate::session::Counters;

/// A running ledger. Cheap to clone; nothing of it but [`stop`](Self::stop) waits.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    queue: Arc<Queue>,
    reader: Reader,
    files: Arc<Files>,
}

impl Ledger {
    pub(super) fn new(queue: Arc<Queue>, reader: Reader, files: Arc<Files>) -> Self {
        Self(Arc::new(Shared { queue, reader, files }))
    }

    /// Records an event. Entries come in the order of their numbers, and none is left out, or
    /// [`committed`](Self::committed) would wait for it.
    pub fn record(&self, entry: Entry) {
        self.0.queue.record(entry);
    }

    /// Takes down the counters of running sessions as they were at `at`. A session that is not on record is ignored.
    pub fn checkpoint(&self, at: Instant, samples: Vec<(SessionId, Counters)>) {
        self.0.queue.checkpoint(at, samples);
    }

    /// A sink has taken these rows of the outbox. They are gone with one of the next commits.
    pub fn told(&self, sink: &str, ids: Vec<i64>) {
        self.0.queue.told(sink, ids);
    }

    /// Keeps a ban, in place of one that concerns the same.
    pub fn ban(&self, ban: StoredBan) {
        self.0.queue.ban(BanOrder::Keep(ban));
    }

    /// Forgets a ban.
    pub fn unban(&self, whom: &Whom) {
        self.0.queue.ban(BanOrder::Lift(whom.clone()));
    }

    /// The highest number such that all events up to it are committed, or dropped and counted.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.0.queue.committed()
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.queue.status()
    }

    /// What is still to be told to a sink and committed, oldest first: at most `limit` rows with an id above `after` (0
    /// is the beginning), and no more than a few megabytes. Rows are read by a thread of their own. None when they cannot
    /// be read just now, and may be in a moment.
    pub async fn outbox(&self, sink: &str, after: i64, limit: usize) -> Option<Vec<OutboxRow>> {
        self.0.reader.page(sink, after, limit).await
    }

    /// The day files.
    #[must_use]
    pub fn files(&self) -> Arc<Files> {
        Arc::clone(&self.0.files)
    }

    /// Commits what waits and ends. Waits for that, at most for `patience`, and says whether it has ended; what is
    /// recorded afterwards is dropped. May be called again to wait longer.
    #[must_use = "false when time ran out first"]
    pub fn stop(&self, patience: Duration) -> bool {
        self.0.queue.stop(patience)
    }
}
