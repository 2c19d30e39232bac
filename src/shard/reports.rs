//! What goes to the log about a session that went wrong: the last things that it said.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::admission::Rate;
use crate::session::{CloseReason, Reason};
use crate::shard::Shard;
use crate::shard::connection::Connection;

/// Reports that a shard may write: a defect that peers find at will must not fill the log.
pub struct Reports {
    epoch: Instant,
    rate_state: Cell<u64>,
    /// Reports that were left out since the last one.
    withheld: Cell<u64>,
}

/// Reports a second.
const PER_SECOND: u32 = 10;

impl Reports {
    /// None written yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, rate_state: Cell::new(0), withheld: Cell::new(0) }
    }

    /// Whether one may be written now; then, how many were left out before it.
    fn take(&self, now: Instant) -> Option<u64> {
        let now_us = u64::try_from(now.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX);
        let rate = Rate::new(PER_SECOND, Duration::from_secs(1), PER_SECOND)?;
        if let Some(next) = rate.take(self.rate_state.get(), now_us) {
            self.rate_state.set(next);
            Some(self.withheld.take())
        } else {
            self.withheld.set(self.withheld.get().saturating_add(1));
            None
        }
    }
}

impl Shard {
    /// Writes the trace of a session that ends for what it sent or for a defect of ours. To be called while the
    /// connection still has its session. Strangers that never had one are counted and not reported, except that a defect
    /// always is.
    pub(super) fn report_trouble(&self, connection: &Connection, now: Instant, reason: CloseReason) {
        if !matches!(reason.reason, Reason::ProtocolError | Reason::BadMedia | Reason::InternalError) {
            return;
        }
        let core = self.core.borrow();
        connection.with_adapter(|adapter| {
            let facts = adapter.facts(&core);
            if facts.is_none() && reason.reason != Reason::InternalError {
                return;
            }
            let Some(withheld) = self.reports.take(now) else { return };
            tracing::warn!(
                ev = "session_trace",
                sid = facts.map(|facts| tracing::field::display(facts.id)),
                peer = %connection.remote,
                worker = self.id.0,
                reason = reason.reason.as_str(),
                detail = reason.detail,
                withheld,
                "{}",
                adapter.trace()
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_ten_a_second_and_what_is_left_out_is_told() {
        let start = Instant::now();
        let reports = Reports::new(start);
        assert_eq!((0..1_000).filter(|_| reports.take(start) == Some(0)).count(), 10);
        assert_eq!(reports.take(start + Duration::from_secs(1)), Some(990));
        assert_eq!(reports.take(start + Duration::from_secs(1)), Some(0));
    }
}
