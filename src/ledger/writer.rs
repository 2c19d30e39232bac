//! The handle of a running ledger.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::admission::Whom;
use crate::ledger::open::Files;
use crate::ledger::{Entry, OutboxRow, Status, StoredBan};
use crate::names::SessionId;
use crate::session::Counters;

/// A running ledger. Cheap to clone; nothing of it blocks.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    files: Arc<Files>,
    committed: watch::Sender<u64>,
    outbox: Mutex<(i64, VecDeque<(Arc<str>, OutboxRow)>)>,
}

impl Ledger {
    pub(super) fn new(files: Files) -> Self {
        Self(Arc::new(Inner { files: Arc::new(files), committed: watch::Sender::new(0), outbox: Mutex::default() }))
    }

    /// Records an event. Entries come in the order of their numbers, none left out.
    pub fn record(&self, entry: Entry) {
        let mut outbox = self.outbox_rows();
        for tell in entry.tells {
            outbox.0 += 1;
            let row = OutboxRow {
                id: outbox.0,
                event_id: tell.event_id.into(),
                session: tell.session,
                weight: tell.weight,
                body: tell.body,
            };
            outbox.1.push_back((tell.sink, row));
        }
        self.0.committed.send_replace(entry.number);
    }

    /// Takes down the counters of running sessions as they were at `at`.
    pub fn checkpoint(&self, _at: Instant, _samples: Vec<(SessionId, Counters)>) {}

    /// A sink has taken these rows of the outbox.
    pub fn told(&self, sink: &str, ids: Vec<i64>) {
        self.outbox_rows().1.retain(|(of, row)| &**of != sink || !ids.contains(&row.id));
    }

    /// Keeps a ban.
    pub fn ban(&self, _ban: StoredBan) {}

    /// Forgets a ban.
    pub fn unban(&self, _whom: &Whom) {}

    /// The highest number such that all events up to it are committed, or dropped and counted.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.0.committed.subscribe()
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::default()
    }

    /// What is still to be told to a sink, oldest first: at most `limit` rows behind `after` (0 is the beginning).
    pub async fn outbox(&self, sink: &str, after: i64, limit: usize) -> Vec<OutboxRow> {
        let rows = self.outbox_rows();
        let mine = rows.1.iter().filter(|(of, row)| &**of == sink && row.id > after);
        mine.take(limit).map(|(_, row)| row.clone()).collect()
    }

    /// The day files.
    #[must_use]
    pub fn files(&self) -> Arc<Files> {
        Arc::clone(&self.0.files)
    }

    /// Commits what waits and ends; returns when that is done, or `patience` has passed.
    pub fn stop(&self, _patience: std::time::Duration) {}

    fn outbox_rows(&self) -> MutexGuard<'_, (i64, VecDeque<(Arc<str>, OutboxRow)>)> {
        self.0.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
