//! Pages of sessions, the newest first.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::ledger::history::row::WIDE;
use crate::ledger::history::walk::Direction;
use crate::ledger::history::{Error, Filter, Reader, Record};
use crate::names::SessionId;

/// Rows looked at for one page; beyond it the page ends, with fewer rows than it might have, and the next goes on.
const ROWS_MAX: u32 = 200_000;
/// Time spent on one page; see [`ROWS_MAX`].
const WITHIN: Duration = Duration::from_secs(1);
/// Rows between two looks at the time.
const ROWS_BETWEEN_LOOKS: u32 = 256;

/// Some sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The sessions, the newest first.
    pub records: Vec<Record>,
    /// The last session that was looked at, where there may be more behind it.
    pub after: Option<SessionId>,
}

impl Reader {
    /// At most `limit` sessions that `filter` means and that opened before `after`. Where much has to be looked
    /// through the page may be shorter, or empty, and still have a place to go on from.
    ///
    /// # Errors
    /// When a file cannot be read, or cannot be read in time.
    pub fn sessions(&self, filter: &Filter, after: Option<SessionId>, limit: usize) -> Result<Page, Error> {
        let mut page = Page::default();
        let (mut rows, until) = (0u32, Instant::now().checked_add(WITHIN));
        let before = after.map(SessionId::as_u128);
        self.walk(filter, Direction::Descending, before, WIDE, &mut |sight, meant| {
            if meant {
                page.records.push(sight.record()?);
            }
            rows = rows.saturating_add(1);
            let late = rows.is_multiple_of(ROWS_BETWEEN_LOOKS) && until.is_some_and(|until| Instant::now() >= until);
            if page.records.len() < limit && rows < ROWS_MAX && !late {
                return Ok(ControlFlow::Continue(()));
            }
            page.after = Some(SessionId::from_u128(sight.id()?));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(page)
    }

    /// The session with this id.
    ///
    /// # Errors
    /// When a file cannot be read, or cannot be read in time.
    pub fn session(&self, id: SessionId) -> Result<Option<Record>, Error> {
        self.look_up(id.as_u128())
    }
}
