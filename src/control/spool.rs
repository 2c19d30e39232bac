//! What a sink has still to be told, read from the ledger: the record that hooks deliver from.

use std::sync::Arc;

use tokio::sync::watch;

use crate::hook::{Parcel, Spool};
use crate::ledger::{Ledger, OutboxRow};

/// One sink's part of the ledger's outbox.
#[derive(Clone)]
pub struct LedgerSpool {
    ledger: Ledger,
    sink: Arc<str>,
}

impl LedgerSpool {
    /// What is still to be told to `sink`.
    #[must_use]
    pub fn new(ledger: Ledger, sink: Arc<str>) -> Self {
        Self { ledger, sink }
    }
}

impl LedgerSpool {
    /// Changes when there may be more.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.ledger.committed()
    }
}

impl Spool for LedgerSpool {
    async fn page(&self, after: i64, limit: usize) -> Option<Vec<Parcel>> {
        let rows = self.ledger.outbox(&self.sink, after, limit).await?;
        Some(rows.into_iter().map(parcel).collect())
    }

    fn done(&self, ids: Vec<i64>) {
        self.ledger.told(&self.sink, ids);
    }
}

fn parcel(row: OutboxRow) -> Parcel {
    let OutboxRow { id, event_id, session, weight, body } = row;
    Parcel { id, event_id, session, weight, body }
}
