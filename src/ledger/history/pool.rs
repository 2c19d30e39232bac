//! Connections to day files that only read, kept open between questions.

use std::collections::VecDeque;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::ledger::history::{Error, Patience};
use crate::ledger::{FileKey, Files};

/// Connections kept open. A file a day for half a year, and each of them twice when two ask.
const IDLE_MAX: usize = 192;
/// Memory that a connection keeps of its file, in KiB. The kernel keeps the rest.
const CACHE_KIB: i64 = 256;
/// Prepared statements that a connection keeps.
const STATEMENTS_MAX: usize = 32;
/// Steps of SQLite's machine between two looks at the time: some 100 µs.
const STEPS_BETWEEN_LOOKS: i32 = 4_000;
/// How long a reader waits for the moment in which the writer opens or closes the log.
const BUSY_WITHIN: Duration = Duration::from_secs(1);

/// The connections.
pub(super) struct Pool {
    files: Arc<Files>,
    idle: Mutex<VecDeque<Open>>,
}

struct Open {
    file: FileKey,
    /// Device and inode: a file of the same name may be another one by now.
    identity: (u64, u64),
    connection: Connection,
}

/// A connection for one question; it goes back to the pool afterwards.
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    open: Option<Open>,
}

impl Pool {
    pub(super) fn new(files: Arc<Files>) -> Self {
        Self { files, idle: Mutex::default() }
    }

    /// The files that there are, oldest first. Connections to others are closed.
    pub(super) fn list(&self) -> Vec<FileKey> {
        let mut files = self.files.list();
        files.sort_unstable();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|open| files.binary_search(&open.file).is_ok());
        files
    }

    /// A connection to `file`, or `None` when there are no sessions in it: it has just been removed, or just been
    /// made.
    pub(super) fn lease(&self, file: FileKey, patience: &Arc<Patience>) -> Result<Option<Lease<'_>>, Error> {
        patience.check()?;
        let path = file.path(self.files.directory());
        let identity = match std::fs::metadata(&path) {
            Ok(found) if found.len() == 0 => return Ok(None),
            Ok(found) => (found.dev(), found.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::File { file: file.file_name(), message: error.to_string() }),
        };
        let kept = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let at = idle.iter().position(|open| open.file == file && open.identity == identity);
            at.and_then(|at| idle.remove(at))
        };
        let mut open = match kept {
            Some(open) => open,
            None => match connect(&path).map_err(|error| failed(file, &error))? {
                Some(connection) => Open { file, identity, connection },
                None => return Ok(None),
            },
        };
        let watched = Arc::clone(patience);
        let over = move || watched.check().is_err();
        open.connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(over)).map_err(|error| failed(file, &error))?;
        Ok(Some(Lease { pool: self, open: Some(open) }))
    }
}

impl Lease<'_> {
    pub(super) fn file(&self) -> FileKey {
        self.open.as_ref().map_or(FileKey::first(crate::ledger::Day(0)), |open| open.file)
    }
}

impl Deref for Lease<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.open.as_ref().expect("a lease has its connection until it is dropped").connection
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        // What is still watched by a clock that has run out would fail the next question.
        if open.connection.progress_handler(0, None::<fn() -> bool>).is_err() {
            return;
        }
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push_back(open);
        if idle.len() > IDLE_MAX {
            idle.pop_front();
        }
    }
}

/// Opens a file for reading. `None` for one without the table of sessions.
fn connect(path: &Path) -> rusqlite::Result<Option<Connection>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags).and_then(prepare);
    match opened {
        // A file with a log needs a writable folder even to be read, unless nobody writes: a copy, or a folder that is
        // mounted for reading, is taken as it lies. A log that has something in it may not be left out.
        Err(error) if is_unwritable(&error) && !has_log(path) => {
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(uri(path), flags).and_then(prepare)
        }
        other => other,
    }
}

fn prepare(connection: Connection) -> rusqlite::Result<Option<Connection>> {
    connection.busy_timeout(BUSY_WITHIN)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    let table = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'session'";
    let tables: i64 = connection.query_row(table, [], |row| row.get(0))?;
    Ok((tables > 0).then_some(connection))
}

fn is_unwritable(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

/// The file as a URI that says that nobody writes.
fn uri(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            other => {
                let _ = write!(uri, "%{other:02x}");
            }
        }
    }
    uri + "?immutable=1"
}

/// What went wrong with `file`.
pub(super) fn failed(file: FileKey, error: &rusqlite::Error) -> Error {
    Error::File { file: file.file_name(), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::ledger::Day;

    /// A statement that would run for ever.
    const ENDLESS: &str =
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT count(*) FROM n WHERE n < 0";

    fn patience(until: Option<Instant>, left: bool) -> Arc<Patience> {
        Arc::new(Patience { within: Duration::from_secs(30), until, left: AtomicBool::new(left) })
    }

    #[test]
    fn a_statement_ends_with_the_patience_for_it_and_the_connection_is_good_for_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let file = FileKey::first(Day(20_000));
        let writer = Connection::open(file.path(folder.path())).unwrap();
        writer.execute_batch(include_str!("../schema.sql")).unwrap();
        let pool = Pool::new(Arc::new(Files::offline(folder.path())));
        let gone = patience(None, false);
        let late = patience(Some(Instant::now() + Duration::from_millis(20)), false);
        for (patience, expected) in [(gone, Error::GivenUp), (late, Error::TooLong(Duration::from_secs(30)))] {
            let lease = pool.lease(file, &patience).unwrap().unwrap();
            if expected == Error::GivenUp {
                patience.left.store(true, Ordering::Relaxed);
            }
            let error = lease.query_row(ENDLESS, [], |row| row.get::<_, i64>(0)).unwrap_err();
            assert_eq!(error.sqlite_error_code(), Some(ErrorCode::OperationInterrupted));
            assert_eq!(patience.check(), Err(expected));
        }
        let lease = pool.lease(file, &patience(None, false)).unwrap().unwrap();
        assert_eq!(lease.query_row("SELECT count(*) FROM session", [], |row| row.get::<_, i64>(0)), Ok(0));
        assert!(pool.idle.lock().unwrap().is_empty(), "the one connection was used again");
    }
}
