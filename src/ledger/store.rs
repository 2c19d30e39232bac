//! The files: how they are opened, what is known of each, and what can go wrong with them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use crate::ledger::entry::SumKey;
use crate::ledger::row::{self, int};
use crate::ledger::{FileKey, Total, online};
use crate::names::{Kind, Protocol};

/// What is written into the header of every file, so that no other program's file is taken for ours: `SlGt`.
pub const APPLICATION: i32 = 0x536c_4774;
/// The version of a day file's schema that this server writes.
pub const DAY_VERSION: i32 = 2;
/// The version of the schema of `state.db` that this server writes.
pub const STATE_VERSION: i32 = 2;
/// The file of what belongs to no day.
pub const STATE_FILE: &str = "state.db";
/// The file whose lock keeps a second server out.
pub const LOCK_FILE: &str = "lock";

use crate::ledger::DAY_SCHEMA;
const STATE_SCHEMA: &str = include_str!("state.sql");
/// What makes each version of a day's file the next, from the first on.
const DAY_STEPS: &[Step] = &[day_from_1];
/// The same of `state.db`.
const STATE_STEPS: &[Step] = &[|state| state.execute_batch(include_str!("state_from_1.sql"))];

/// Makes a database of one version one of the next, as a part of a transaction.
type Step = fn(&Connection) -> rusqlite::Result<()>;

/// Pages of a log after which a commit flows over into the file itself.
const LOG_PAGES: u32 = 4_000;
/// The same while a start closes what a crash left open: the server need not wait until all is written twice.
const LOG_PAGES_AT_START: u32 = 32_000;

/// How long a statement waits for another program that holds a file. It delays records, not media.
const BUSY: Duration = Duration::from_secs(2);

/// The files that are open, and what is in them.
pub struct Store {
    pub directory: PathBuf,
    pub state: Connection,
    pub open: BTreeMap<FileKey, DayFile>,
    pub shared: Arc<Files>,
    pub obstacle: Option<Obstacle>,
    /// The name of the next row of an outbox. A name is used once, also when its transaction fails.
    pub next_outbox_id: i64,
    _lock: File,
}

/// One open file of a day.
pub struct DayFile {
    pub key: FileKey,
    pub connection: Connection,
    /// Sessions of this process in it that run.
    pub running: u64,
    pub outbox_rows: u64,
    /// Streams that are online by what it says.
    pub online: u64,
    pub totals: BTreeMap<SumKey, Total>,
    pub next_attempt: i64,
}

/// The day files, for whoever reads them.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    /// Those with rows in their outbox.
    pending: Mutex<Vec<FileKey>>,
    /// The last id of an outbox row that is committed.
    outbox_committed: AtomicI64,
}

/// Where a file is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before it is opened.
    Open,
    /// Before a statement is run.
    Statement,
    /// Before a transaction is committed.
    Commit,
}

/// What a test puts in the way of the files: an error is what SQLite would have said; a sleep is a slow disk.
pub type Obstacle = Arc<dyn Fn(Point, FileKey) -> rusqlite::Result<()> + Send + Sync>;

/// What an error means for the file that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no room, no memory, or another program is in the way: nothing was written, and it may be tried again.
    Later,
    /// The disk failed, or the file is damaged: what was written last may be there or not, and nobody can tell.
    Suspect,
    /// It would fail again in the same way: a defect of ours.
    Defect,
}

impl Trouble {
    pub fn of(error: &rusqlite::Error) -> Self {
        let Some(code) = error.sqlite_error() else { return Self::Defect };
        match code.code {
            ErrorCode::DiskFull
            | ErrorCode::OutOfMemory
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::OperationInterrupted => Self::Later,
            // The index of the log is memory; no room for it is no harm to the file.
            ErrorCode::SystemIoFailure
                if matches!(
                    code.extended_code,
                    rusqlite::ffi::SQLITE_IOERR_SHMSIZE
                        | rusqlite::ffi::SQLITE_IOERR_SHMOPEN
                        | rusqlite::ffi::SQLITE_IOERR_SHMMAP
                        | rusqlite::ffi::SQLITE_IOERR_NOMEM
                ) =>
            {
                Self::Later
            }
            ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Suspect,
            _ => Self::Defect,
        }
    }
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The folder or a file cannot be made or locked.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// SQLite says no.
    #[error("{}: {error}", path.display())]
    Database {
        /// Which.
        path: PathBuf,
        /// Why.
        error: rusqlite::Error,
    },
    /// Another process has the folder.
    #[error("{}: another server is using this ledger", path.display())]
    InUse {
        /// The lock.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error("{}: has version {found} and this server knows version {known}; use the newer server, or another folder", path.display())]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// It is a database of something else.
    #[error("{}: is a database of another program", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
    },
}

impl FileError {
    /// Whether the same may succeed when there is room again, or when another program is out of the way.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Database { error, .. } if Trouble::of(error) == Trouble::Later)
    }

    /// What it means for the file. What has no code of SQLite's may be tried again.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Database { error, .. } => Trouble::of(error),
            _ => Trouble::Later,
        }
    }
}

impl Store {
    /// Makes the folder if it is not there, takes its lock and opens `state.db`. `findings` hears of a state that had to
    /// be put aside.
    pub fn open(directory: &Path, findings: &mut Vec<String>) -> Result<Self, FileError> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |error| FileError::Io { path, error }
        };
        if !directory.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io(directory))?;
        }
        let lock = lock(directory)?;
        let path = directory.join(STATE_FILE);
        let state = match database(&path, STATE_VERSION, STATE_SCHEMA, STATE_STEPS) {
            Err(error @ FileError::Database { .. }) if error.trouble() == Trouble::Suspect => {
                let aside = put_aside(&path).map_err(io(&path))?;
                findings.push(format!(
                    "{error}; it is now {}: its bans and the sums of removed days are lost",
                    aside.display()
                ));
                database(&path, STATE_VERSION, STATE_SCHEMA, STATE_STEPS)?
            }
            other => other?,
        };
        Ok(Self {
            directory: directory.to_path_buf(),
            state,
            open: BTreeMap::new(),
            shared: Arc::new(Files {
                directory: directory.to_path_buf(),
                pending: Mutex::default(),
                outbox_committed: AtomicI64::new(0),
            }),
            obstacle: None,
            next_outbox_id: 1,
            _lock: lock,
        })
    }

    /// The file of `key`, opened if it is not.
    pub fn file(&mut self, key: FileKey) -> Result<&mut DayFile, FileError> {
        if !self.open.contains_key(&key) {
            if let Some(obstacle) = &self.obstacle {
                let path = key.path(&self.directory);
                obstacle(Point::Open, key).map_err(|error| FileError::Database { path, error })?;
            }
            let file = DayFile::open(&self.directory, key)?;
            let newest = file
                .newest_outbox_id()
                .map_err(|error| FileError::Database { path: key.path(&self.directory), error })?;
            self.next_outbox_id = self.next_outbox_id.max(newest.saturating_add(1));
            self.open.insert(key, file);
        }
        Ok(self.open.get_mut(&key).expect("it was put there"))
    }

    /// The file that takes what is new of a day: its highest generation.
    pub fn current(&self, day: crate::ledger::Day) -> FileKey {
        let of_day = FileKey::first(day)..=FileKey { day, generation: u8::MAX };
        if let Some((key, _)) = self.open.range(of_day).next_back() {
            return *key;
        }
        let of_day = self.shared.list().into_iter().filter(|key| key.day == day);
        of_day.max().unwrap_or(FileKey::first(day))
    }

    /// Everything up to the last name given is committed, or will never be.
    pub fn publish(&self) {
        // The files go first: whoever sees the new end must see every file that has something before it.
        let with_rows = self.open.values().filter(|file| file.outbox_rows > 0).map(|file| file.key);
        *self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner) = with_rows.collect();
        self.shared.outbox_committed.store(self.next_outbox_id - 1, Ordering::Release);
    }

    /// Closes a file for good without writing to it once more.
    pub fn abandon(&mut self, key: FileKey) {
        if let Some(file) = self.open.remove(&key) {
            let _ = file.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

impl DayFile {
    fn open(directory: &Path, key: FileKey) -> Result<Self, FileError> {
        let path = key.path(directory);
        let connection = day(&path)?;
        Self::read(key, connection).map_err(|error| FileError::Database { path, error })
    }

    fn read(key: FileKey, connection: Connection) -> rusqlite::Result<Self> {
        // A commit that flows over into the file itself is one in thousands of pages instead of every few.
        connection.execute_batch("PRAGMA journal_size_limit = 67108864")?;
        connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        connection.set_prepared_statement_cache_capacity(32);
        let outbox_rows: i64 = connection.query_row("SELECT COUNT(*) FROM outbox", [], |row| row.get(0))?;
        let outbox_rows = u64::try_from(outbox_rows).unwrap_or(0);
        let next_attempt =
            connection.query_row("SELECT COALESCE(MAX(id), 0) + 1 FROM attempt", [], |row| row.get(0))?;
        let (totals, online) = (totals(&connection)?, online::count(&connection)?);
        Ok(Self { key, connection, running: 0, outbox_rows, online, totals, next_attempt })
    }

    fn newest_outbox_id(&self) -> rusqlite::Result<i64> {
        self.connection.query_row("SELECT COALESCE(MAX(id), 0) FROM outbox", [], |row| row.get(0))
    }

    /// Lets the log grow during a start. The first commit after it writes the log's pages back, and nobody waits for that.
    pub fn at_start(&self, is_start: bool) -> rusqlite::Result<()> {
        let pages = if is_start { LOG_PAGES_AT_START } else { LOG_PAGES };
        self.connection.pragma_update(None, "wal_autocheckpoint", pages)
    }

    /// Writes one sum.
    pub fn write_total(&self, key: &SumKey, total: Total) -> rusqlite::Result<()> {
        write_total(&self.connection, key, total)
    }
}

fn write_total(connection: &Connection, key: &SumKey, total: Total) -> rusqlite::Result<()> {
    let [collector, kind, reason, detail] = key.each_ref().map(|text| &**text);
    let numbers = [total.sessions, total.rx_bytes, total.tx_bytes, total.ended].map(int);
    let texts = [collector, kind, reason, detail].map(|text| ValueRef::Text(text.as_bytes()));
    let columns: Vec<_> = texts.into_iter().chain(numbers.map(ValueRef::Integer)).collect();
    let crc = row::checksum(&columns);
    let [sessions, rx, tx, ended] = numbers;
    let sql = "INSERT OR REPLACE INTO total (collector, kind, reason, detail, sessions, rx_bytes, tx_bytes, ended, crc) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let mut statement = connection.prepare_cached(sql)?;
    statement.execute(params![collector, kind, reason, detail, sessions, rx, tx, ended, crc])?;
    Ok(())
}

/// The second version of a day's file knows which streams are online, and why the sessions in its sums ended.
fn day_from_1(file: &Connection) -> rusqlite::Result<()> {
    file.execute_batch(include_str!("schema_from_1.sql"))?;
    for (key, total) in add_up(file)? {
        write_total(file, &key, total)?;
    }
    Ok(())
}

/// The sums in a file; where one of them is damaged, what the sessions in the file add up to.
pub fn totals(connection: &Connection) -> rusqlite::Result<BTreeMap<SumKey, Total>> {
    let sql = "SELECT collector, kind, reason, detail, sessions, rx_bytes, tx_bytes, ended, crc FROM total";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut sums = BTreeMap::new();
    while let Some(row) = rows.next()? {
        if !row::row_is_whole(row, 8)? {
            return add_up(connection);
        }
        sums.insert(sum_key(row, 0)?, total(row, 4)?);
    }
    Ok(sums)
}

/// What the finished sessions and the attempts in a file add up to.
pub fn add_up(connection: &Connection) -> rusqlite::Result<BTreeMap<SumKey, Total>> {
    let sql = "SELECT protocol, kind, COALESCE(reason, ''), COALESCE(detail, ''), COUNT(started_ms), \
               COALESCE(SUM(rx_bytes) FILTER (WHERE started_ms IS NOT NULL), 0), \
               COALESCE(SUM(tx_bytes) FILTER (WHERE started_ms IS NOT NULL), 0), COUNT(*) \
               FROM session WHERE closed_ms IS NOT NULL GROUP BY 1, 2, 3, 4 \
               UNION ALL SELECT protocol, '', reason, COALESCE(detail, ''), 0, 0, 0, COUNT(*) \
               FROM attempt GROUP BY 1, 3, 4";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut sums = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let [protocol, kind, reason, detail] = sum_key(row, 0)?;
        let Some(protocol) = Protocol::ALL.into_iter().find(|known| known.as_str() == protocol) else { continue };
        add(sums.entry([protocol.collector().into(), kind, reason, detail]).or_default(), total(row, 4)?);
    }
    Ok(sums)
}

/// What a sum is kept by, from four columns of a row.
pub fn sum_key(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<SumKey> {
    let text = |index: usize| row.get::<_, String>(first + index).map(Cow::Owned);
    Ok([text(0)?, text(1)?, text(2)?, text(3)?])
}

/// A sum from four columns of a row.
pub fn total(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Total> {
    let number = |index: usize| row.get::<_, i64>(index).map(|number| u64::try_from(number).unwrap_or(0));
    Ok(Total {
        sessions: number(first)?,
        rx_bytes: number(first + 1)?,
        tx_bytes: number(first + 2)?,
        ended: number(first + 3)?,
    })
}

/// Adds.
pub fn add(sum: &mut Total, more: Total) {
    sum.sessions = sum.sessions.saturating_add(more.sessions);
    sum.rx_bytes = sum.rx_bytes.saturating_add(more.rx_bytes);
    sum.tx_bytes = sum.tx_bytes.saturating_add(more.tx_bytes);
    sum.ended = sum.ended.saturating_add(more.ended);
}

/// The kind of a name on record.
pub fn kind(text: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
}

impl Files {
    /// Of a folder that no server of this process has open.
    #[must_use]
    pub fn offline(directory: &Path) -> Self {
        Self { directory: directory.to_path_buf(), pending: Mutex::default(), outbox_committed: AtomicI64::new(0) }
    }

    /// Where they are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Every file there is now, oldest first. A day has several when one of them had to be given up; a session that is
    /// in several of them is what the last one says.
    #[must_use]
    pub fn list(&self) -> Vec<FileKey> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut found: Vec<FileKey> = entries.filter_map(|entry| FileKey::parse(entry.file_name().to_str()?)).collect();
        found.sort_unstable();
        found
    }

    /// A connection to a file that can only read. It may be opened while the server writes, and holds nothing up.
    ///
    /// # Errors
    /// When the file is not there or cannot be read.
    pub fn reader(&self, key: FileKey) -> rusqlite::Result<Connection> {
        reader(&key.path(&self.directory))
    }

    pub(super) fn pending(&self) -> Vec<FileKey> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn outbox_committed(&self) -> i64 {
        self.outbox_committed.load(Ordering::Acquire)
    }
}

/// A connection that can only read.
pub fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// Takes the lock of a folder; it is held until the file is dropped, and the system lets go of it when the process dies.
pub fn lock(directory: &Path) -> Result<File, FileError> {
    let path = directory.join(LOCK_FILE);
    let made = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = made.map_err(|error| FileError::Io { path: path.clone(), error })?;
    // A child that some thread is just starting holds the lock of its parent for a moment longer.
    for is_last in [false, false, false, false, true] {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if is_last => break,
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            Err(fs::TryLockError::Error(error)) => return Err(FileError::Io { path, error }),
        }
    }
    Err(FileError::InUse { path })
}

/// Opens one day's file to write.
pub fn day(path: &Path) -> Result<Connection, FileError> {
    database(path, DAY_VERSION, DAY_SCHEMA, DAY_STEPS)
}

/// Opens a database of ours, or makes it. One of an earlier version becomes one of this: `steps` are what makes each
/// version the next.
fn database(path: &Path, known: i32, schema: &str, steps: &[Step]) -> Result<Connection, FileError> {
    // SQLite gives its files the mode of the first one.
    if let Err(error) = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        // A full disk is what SQLite would say of it, too.
        return Err(FileError::Io { path: path.to_path_buf(), error });
    }
    let open = || -> rusqlite::Result<Result<Connection, FileError>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        let number = |connection: &Connection, name: &str| -> rusqlite::Result<i32> {
            connection.pragma_query_value(None, name, |row| row.get(0))
        };
        let (application, version) = (number(&connection, "application_id")?, number(&connection, "user_version")?);
        let tables: i64 = connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if version > known {
            return Ok(Err(FileError::Newer { path: path.to_path_buf(), found: version, known }));
        }
        if tables > 0 && application != APPLICATION {
            return Ok(Err(FileError::Foreign { path: path.to_path_buf() }));
        }
        if tables == 0 {
            // Both are only obeyed before the first table is made.
            connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
        }
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA cache_size = -16384")?;
        if tables == 0 {
            let transaction = connection.transaction()?;
            transaction.execute_batch(schema)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", known)?;
            transaction.commit()?;
        } else if version < known {
            let transaction = connection.transaction()?;
            let done = usize::try_from(version.saturating_sub(1)).unwrap_or(0);
            for step in steps.iter().skip(done) {
                step(&transaction)?;
            }
            transaction.pragma_update(None, "user_version", known)?;
            transaction.commit()?;
        }
        Ok(Ok(connection))
    };
    open().map_err(|error| FileError::Database { path: path.to_path_buf(), error })?
}

/// Renames a file that cannot be read, with its log, so that a new one can take its place.
pub fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let base = path.as_os_str().to_owned();
    let with = |tail: &str| {
        let mut name = base.clone();
        name.push(tail);
        PathBuf::from(name)
    };
    let tails = (0_u32..).map(|count| if count == 0 { ".bad".to_owned() } else { format!(".{count}.bad") });
    let tail = tails.into_iter().find(|tail| !with(tail).exists()).unwrap_or_default();
    for end in ["-wal", "-shm"] {
        let log = with(end);
        if log.exists() {
            fs::rename(&log, with(&format!("{tail}{end}")))?;
        }
    }
    fs::rename(path, with(&tail))?;
    Ok(with(&tail))
}

/// Removes a file with its log. The log goes first: without it the file is merely older.
pub fn remove(path: &Path) -> io::Result<()> {
    for end in ["-wal", "-shm", ""] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match fs::remove_file(PathBuf::from(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
