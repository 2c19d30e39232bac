//! What happened, asked of the day files.
//!
//! A [`Reader`] answers one question at a time on the thread that it is called on, which waits for a disk:
//! [`History`] is how asynchronous code asks, on threads made for waiting, few at once, and given up on after their
//! time. Connections only read. None of them holds a file's state of one moment any longer than one page takes, so
//! that no reader keeps the writer's log from being folded into its file.
//!
//! All times are milliseconds since the Unix epoch. A range of time holds the sessions that were there at any moment
//! of it, and begins with its first moment and ends before its last. Days and hours are those of UTC.
//!
//! What is asked for is found by an index wherever it names a user, a stream, an address, running sessions or a range
//! of time (`walk`); what else a filter says is looked at row by row.

mod filter;
mod life;
mod page;
mod pool;
mod row;
mod summary;
mod sweep;
mod timeline;
mod walk;

pub use filter::Filter;
pub use page::Page;
pub use row::Record;
pub use summary::{CELLS_MAX, Every, Field, GROUPS_MAX, Group, Order, Summary, SummaryQuery, Sums, UNIQUES_MAX};
pub use timeline::{BUCKETS_MAX, Point, Timeline, TimelineQuery};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::ledger::Files;
use crate::ledger::history::pool::Pool;

/// Pages that are read at once.
const PAGES_AT_ONCE: usize = 2;
/// Sums that are made at once: each reads everything in its range, and holds groups and sets meanwhile.
const SCANS_AT_ONCE: usize = 1;
/// Questions of one kind that wait for their turn; one more is refused.
const WAITING_MAX: usize = 64;
/// How long a question waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(5);
/// How long a page may take to read.
const PAGE_WITHIN: Duration = Duration::from_secs(5);
/// How long a sum may take.
const SCAN_WITHIN: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too many others ask. A repeat may pass.
    #[error("too many questions about the history are being answered; ask again in a moment")]
    Busy,
    /// It took too long. A narrower question may pass.
    #[error("there is too much to look through in {} s; narrow the time or the filter", .0.as_secs())]
    TooLong(Duration),
    /// Nobody waits for the answer any more.
    #[error("the question was given up")]
    GivenUp,
    /// There would be more groups than are kept apart.
    #[error("more than {GROUPS_MAX} groups; group by fewer fields or narrow the filter")]
    TooManyGroups,
    /// There would be more hours or days, over all groups, than are kept apart.
    #[error("more than {CELLS_MAX} hours or days over all groups; choose days for hours, fewer groups or less time")]
    TooManyTimes,
    /// A file cannot be read.
    #[error("{file}: {message}")]
    File {
        /// Its name.
        file: String,
        /// What SQLite says of it.
        message: String,
    },
    /// A defect of ours.
    #[error("a defect in the server; its log has more")]
    Defect,
}

/// How much a question reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A bounded number of rows.
    Page,
    /// Everything in a range of time.
    Scan,
}

/// The history, for asynchronous code. Cheap to clone; one for a process.
#[derive(Clone)]
pub struct History(Arc<Shared>);

struct Shared {
    pool: Arc<Pool>,
    pages: Places,
    scans: Places,
}

/// Who may read now, and who may wait for it.
struct Places {
    turns: Arc<Semaphore>,
    queue: Semaphore,
}

impl History {
    /// The history in `files`. Nothing is opened before somebody asks.
    #[must_use]
    pub fn new(files: Arc<Files>) -> Self {
        let places = |at_once| Places { turns: Arc::new(Semaphore::new(at_once)), queue: Semaphore::new(WAITING_MAX) };
        let pool = Arc::new(Pool::new(files));
        Self(Arc::new(Shared { pool, pages: places(PAGES_AT_ONCE), scans: places(SCANS_AT_ONCE) }))
    }

    /// Has `ask` answered on a thread that may wait. An answer is best made ready to be sent there too. When nobody
    /// waits for it any more, because this future was dropped, the reading ends soon.
    ///
    /// # Errors
    /// Those of `ask`, and [`Error::Busy`].
    pub async fn ask<T: Send + 'static>(
        &self,
        work: Work,
        ask: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (places, within) = match work {
            Work::Page => (&self.0.pages, PAGE_WITHIN),
            Work::Scan => (&self.0.scans, SCAN_WITHIN),
        };
        let turn = {
            let _queued = places.queue.try_acquire().map_err(|_| Error::Busy)?;
            let turn = tokio::time::timeout(TURN_WITHIN, Arc::clone(&places.turns).acquire_owned());
            turn.await.map_err(|_| Error::Busy)?.map_err(|_| Error::Busy)?
        };
        let patience =
            Arc::new(Patience { within, until: Instant::now().checked_add(within), left: AtomicBool::new(false) });
        let _waiting = Waiting(Arc::clone(&patience));
        let pool = Arc::clone(&self.0.pool);
        let answer = tokio::task::spawn_blocking(move || {
            // The turn ends with the reading, and not with whoever waited for it.
            let _turn = turn;
            ask(&Reader { pool, patience })
        });
        answer.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a question about the history was not answered");
            Err(Error::Defect)
        })
    }
}

/// Answers questions on the thread that asks.
pub struct Reader {
    pool: Arc<Pool>,
    patience: Arc<Patience>,
}

impl Reader {
    /// A reader of `files` with all the time in the world, for tools.
    #[must_use]
    pub fn patient(files: Arc<Files>) -> Self {
        let patience = Patience { within: Duration::MAX, until: None, left: AtomicBool::new(false) };
        Self { pool: Arc::new(Pool::new(files)), patience: Arc::new(patience) }
    }
}

/// How long an answer is worth waiting for.
struct Patience {
    within: Duration,
    /// `None` is for ever.
    until: Option<Instant>,
    /// Whoever waited has left.
    left: AtomicBool,
}

impl Patience {
    fn check(&self) -> Result<(), Error> {
        if self.left.load(Ordering::Relaxed) {
            return Err(Error::GivenUp);
        }
        match self.until {
            Some(until) if Instant::now() >= until => Err(Error::TooLong(self.within)),
            _ => Ok(()),
        }
    }
}

/// Somebody who waits; says so when they leave.
struct Waiting(Arc<Patience>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.left.store(true, Ordering::Relaxed);
    }
}
