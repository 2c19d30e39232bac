//! The journal: every event is numbered, put on record, and only then told.
//!
//! Without a ledger there is no record to wait for, and live consumers are told at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::control::View;
use crate::event::{Bus, Event, Recorded, Sink};
use crate::ledger::{Entry, Ledger, Tell};
use crate::names::SessionId;
use crate::stdx::clock::WallAnchor;

/// See the module.
pub struct Journal {
    wall: WallAnchor,
    record: Option<Record>,
}

/// The ledger, and what it is kept up to date with.
struct Record {
    ledger: Ledger,
    sinks: Vec<Sink>,
    committed: watch::Receiver<u64>,
    /// Sessions whose counters moved since the last checkpoint.
    moved: HashSet<SessionId>,
    checkpoint_every: Duration,
    checkpoint_at: Instant,
}

impl Journal {
    /// A journal on `ledger`, for `sinks`. Checkpoints are made from `now` on.
    #[must_use]
    pub fn new(wall: WallAnchor, now: Instant, ledger: Option<(Ledger, Duration)>, sinks: Vec<Sink>) -> Self {
        let record = ledger.map(|(ledger, checkpoint_every)| Record {
            committed: ledger.committed(),
            ledger,
            sinks,
            moved: HashSet::new(),
            checkpoint_every,
            checkpoint_at: now + checkpoint_every,
        });
        Self { wall, record }
    }

    /// True when events wait for their record.
    #[must_use]
    pub fn has_record(&self) -> bool {
        self.record.is_some()
    }

    /// Records an event.
    pub fn publish(&mut self, bus: &mut Bus, event: Event) {
        let Recorded { number, event } = bus.publish(event);
        let Some(record) = &self.record else { return };
        let tells = tells(&record.sinks, &event, number, &self.wall);
        record.ledger.record(Entry { number, event, tells });
    }

    /// The counters of a session moved.
    pub fn moved(&mut self, session: SessionId) {
        if let Some(record) = &mut self.record {
            record.moved.insert(session);
        }
    }

    /// Puts the counters of running sessions on record when it is time.
    pub fn checkpoint(&mut self, now: Instant, view: &View) {
        let Some(record) = self.record.as_mut().filter(|record| record.checkpoint_at <= now) else { return };
        record.checkpoint_at = now + record.checkpoint_every;
        let running = record.moved.drain().filter_map(|id| Some((id, view.sessions.get(&id)?.counters)));
        let samples: Vec<_> = running.collect();
        if !samples.is_empty() {
            record.ledger.checkpoint(now, samples);
        }
    }

    /// The ledger, where there is one.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        self.record.as_ref().map(|record| &record.ledger)
    }

    /// Resolves when more has been committed; for ever pending without a ledger. Safe to drop.
    pub async fn committed(&mut self) {
        match &mut self.record {
            // The ledger's thread outlives control; if it does not, nothing is told any more.
            Some(record) => {
                if record.committed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            None => std::future::pending().await,
        }
    }

    /// Lets consumers have what is on record; true when that is more than before.
    pub fn release(&mut self, bus: &mut Bus) -> bool {
        let Some(record) = &mut self.record else { return false };
        bus.tell_to(*record.committed.borrow_and_update())
    }
}

/// What each sink is told of an event.
#[must_use]
pub fn tells(sinks: &[Sink], event: &Event, number: u64, wall: &WallAnchor) -> Vec<Tell> {
    let told = sinks.iter().filter_map(|sink| {
        let encoded = sink.encode(event, number, wall)?;
        Some(Tell {
            sink: Arc::clone(&sink.name),
            event_id: encoded.event_id,
            weight: encoded.weight,
            session: event.session_id(),
            body: encoded.body,
        })
    });
    told.collect()
}
