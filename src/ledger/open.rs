//! The start: opens what is there, looks for damage, and closes what a crash left open.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};

use crate::admission::Whom;
use crate::ledger::outbox::Reader;
use crate::ledger::queue::Queue;
use crate::ledger::row::{Clock, Record, SELECT_ONE, SELECT_OPEN, int, read_open, session_id};
use crate::ledger::store::{self, DayFile, Store, Trouble, add, put_aside};
use crate::ledger::tells::{copy_outbox, insert_tell};
use crate::ledger::transaction::pass;
use crate::ledger::writer::{Ending, Writer, rest_after};
use crate::ledger::{
    Day, FileError, FileKey, Files, Health, Ledger, Obstacle, Point, Settings, StoredBan, Tell, Total, retention,
};
use crate::names::{Kind, Name, StreamKey};
use crate::session::{Change, CloseReason, Reason, What};
use crate::stdx::clock::WallAnchor;

/// Opens the ledger of a folder, which is made if it is not there, and keeps other servers out of it. A file that cannot
/// be read is put aside and told of in [`Opened::findings`].
///
/// # Errors
/// When the folder cannot be used, is used by another server, or holds files of a newer version.
pub fn open(settings: &Settings, wall: WallAnchor, now: Instant) -> Result<Opened, FileError> {
    let mut findings = Vec::new();
    let directory = Path::new(&settings.directory);
    let mut store = Store::open(directory, &mut findings)?;
    let mut totals = BTreeMap::new();
    let mut damaged = BTreeSet::new();
    let mut void = Vec::new();
    let files = store.shared.list();
    let newest = files.last().copied();
    let mut patience = CHECK_PATIENCE;

    for key in files {
        let path = key.path(directory);
        // A clean end empties the log, even where a reader keeps it from being removed.
        let was_in_use = std::fs::metadata(log_of(&path)).is_ok_and(|log| log.len() > 0);
        let file = match store.file(key) {
            Ok(file) => file,
            Err(error @ FileError::Database { .. }) if error.trouble() == Trouble::Suspect => {
                store.abandon(key);
                let aside = put_aside(&path).map_err(|error| FileError::Io { path: path.clone(), error })?;
                findings.push(format!("{error}; it is now {}", aside.display()));
                continue;
            }
            Err(error) => return Err(error),
        };
        if was_in_use || Some(key) == newest {
            let began = Instant::now();
            match check(&file.connection, patience) {
                Checked::Whole | Checked::Interrupted => {}
                Checked::Damaged(what) => {
                    findings.push(format!("{}: {what}; what follows goes into another file", path.display()));
                    damaged.insert(key);
                }
            }
            patience = patience.saturating_sub(began.elapsed());
        }
        for ((collector, kind), more) in &file.totals {
            add(totals.entry((collector.clone(), kind.clone())).or_default(), *more);
        }
        let database = |error| FileError::Database { path: path.clone(), error };
        let older: Option<u8> = file
            .connection
            .query_row("SELECT generation FROM took_over", [], |row| row.get(0))
            .optional()
            .map_err(database)?;
        if let Some(generation) = older {
            void.push((FileKey { generation, ..key }, key));
        }
        let has_open: bool = file
            .connection
            .query_row("SELECT EXISTS (SELECT 1 FROM session WHERE closed_ms IS NULL)", [], |row| row.get(0))
            .map_err(database)?;
        if !has_open
            && file.outbox_rows == 0
            && older.is_none()
            && !damaged.contains(&key)
            && key.day < Day::of_unix_ms(wall.unix_ms(now))
        {
            store.open.remove(&key);
        }
    }
    for ((collector, kind), more) in retention::removed(&store)
        .map_err(|error| FileError::Database { path: directory.join(store::STATE_FILE), error })?
    {
        add(totals.entry((collector, kind)).or_default(), more);
    }
    Ok(Opened {
        store,
        settings: settings.clone(),
        wall,
        clock: Clock::new(&wall, now),
        totals,
        findings,
        damaged,
        void,
    })
}

/// Files opened and checked, nothing running yet.
pub struct Opened {
    store: Store,
    settings: Settings,
    wall: WallAnchor,
    clock: Clock,
    totals: BTreeMap<(String, String), Total>,
    findings: Vec<String>,
    /// Files that may only be read.
    damaged: BTreeSet<FileKey>,
    /// Files that were given up, with those that took their places.
    void: Vec<(FileKey, FileKey)>,
}

/// What a start found of a life that did not end well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Sessions closed as `server_crash`.
    pub sessions: u64,
    /// Of those, the ones that had started.
    pub started: u64,
    /// Sessions whose rows are damaged; they stay as they are.
    pub damaged: u64,
    /// How long it took.
    pub took: Duration,
}

/// Says what each sink must be told of the end of a session, on the ledger's thread.
pub type Encode = Box<dyn FnMut(&Change) -> Vec<Tell> + Send>;

/// Sums of finished sessions that had started, per collector and kind.
pub type Totals = BTreeMap<(String, Kind), Total>;

/// How long the start looks for damage, in all files together.
const CHECK_PATIENCE: Duration = Duration::from_millis(500);
/// Sessions that are closed in one transaction.
const CLOSED_AT_ONCE: i64 = 4_000;

impl Opened {
    /// Closes what was running as `server_crash`, with the counters and at the time of its last checkpoint. `encode` says
    /// what each sink must be told of that end, and both are committed together; it may be cut short and done again.
    ///
    /// # Errors
    /// When a file cannot be written for lack of room; nothing is lost by trying again, and
    /// [`start_recovering`](Self::start_recovering) does.
    pub fn recover(&mut self, encode: &mut dyn FnMut(&Change) -> Vec<Tell>) -> Result<Recovered, FileError> {
        let began = Instant::now();
        let mut recovered = Recovered::default();
        while let Some((old, new)) = self.void.first().copied() {
            self.clear(old, new)?;
            self.void.remove(0);
        }
        let keys: Vec<FileKey> = self.store.open.keys().copied().collect();
        for key in keys {
            let mut result = Ok(());
            if !self.damaged.contains(&key) {
                result = self.close_in(key, encode, &mut recovered);
            }
            match result {
                Err(error) if error.trouble() == Trouble::Suspect => {
                    self.findings.push(format!("{error}; what follows goes into another file"));
                    self.damaged.insert(key);
                }
                other => other?,
            }
            if self.damaged.contains(&key) {
                self.replace(key, encode, &mut recovered)?;
            }
        }
        self.store.publish();
        recovered.took = began.elapsed();
        Ok(recovered)
    }

    /// What was found that the operator should know: files that cannot be read, rows that are damaged.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// The bans that are still in force.
    #[must_use]
    pub fn bans(&self) -> Vec<StoredBan> {
        self.read_bans().unwrap_or_default()
    }

    /// The sums over all files, removed ones included. To be asked after [`recover`](Self::recover).
    #[must_use]
    pub fn totals(&self) -> Totals {
        let known = self.totals.iter().filter_map(|((collector, name), total)| {
            let kind = store::kind(name)?;
            Some(((collector.clone(), kind), *total))
        });
        known.collect()
    }

    /// Forgets what was to be told to sinks that are not configured any more; how many rows that was. What waits for a
    /// sink keeps its day's file, for ever if the sink does not come back.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn forget_other_sinks(&mut self, known: &[&str]) -> Result<u64, FileError> {
        let mut count = 0;
        let names = serde_json::to_string(known).unwrap_or_default();
        for file in self.store.open.values_mut() {
            let sql = "DELETE FROM outbox WHERE sink NOT IN (SELECT value FROM json_each(?1))";
            let gone = file.connection.execute(sql, [&names]);
            let path = file.key.path(&self.store.directory);
            let gone = gone.map_err(|error| FileError::Database { path, error })? as u64;
            file.outbox_rows = file.outbox_rows.saturating_sub(gone);
            count += gone;
        }
        self.store.publish();
        Ok(count)
    }

    /// Puts something in the way of every touch of a day file, for tests of what disks do.
    #[cfg(feature = "faults")]
    #[must_use]
    pub fn with_obstacle(mut self, obstacle: store::Obstacle) -> Self {
        self.store.obstacle = Some(obstacle);
        self
    }

    /// The day files.
    #[must_use]
    pub fn files(&self) -> Arc<Files> {
        Arc::clone(&self.store.shared)
    }

    /// Starts the threads `ledger`, which writes, and `ledger-read`.
    ///
    /// # Errors
    /// When the system gives no thread, or a file cannot be read.
    pub fn start(self) -> std::io::Result<Ledger> {
        let Self { store, settings, wall, .. } = self;
        store.publish();
        let files = Arc::clone(&store.shared);
        let queue = Arc::new(Queue::new(&settings));
        let reader = Reader::start(Arc::clone(&files))?;
        let writer = Writer::new(Arc::clone(&queue), store, settings, wall).map_err(std::io::Error::other)?;
        std::thread::Builder::new().name("ledger".into()).spawn(move || writer.run())?;
        Ok(Ledger::new(queue, reader, files))
    }

    /// The same when [`recover`](Self::recover) met trouble that may pass: the thread `ledger` tries it again, and commits
    /// nothing before it is done. Until then the ledger is degraded, and what is recorded waits.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start_recovering(mut self, mut encode: Encode) -> std::io::Result<Ledger> {
        self.store.publish();
        let files = Arc::clone(&self.store.shared);
        let queue = Arc::new(Queue::new(&self.settings));
        let reader = Reader::start(Arc::clone(&files))?;
        let ledger = Ledger::new(Arc::clone(&queue), reader, files);
        queue.report(|status| status.health = Health::Degraded);
        let work = move || {
            let ending = Ending(Arc::clone(&queue));
            if !self.recover_in_time(&queue, &mut *encode) {
                return;
            }
            let Self { store, settings, wall, .. } = self;
            match Writer::new(Arc::clone(&queue), store, settings, wall) {
                Ok(writer) => writer.run(),
                Err(error) => queue.report(|status| {
                    status.health = Health::Degraded;
                    status.trouble = Some(error.to_string());
                }),
            }
            drop(ending);
        };
        std::thread::Builder::new().name("ledger".into()).spawn(work)?;
        Ok(ledger)
    }

    /// Recovers, however often it takes; false when the ledger is stopped before.
    fn recover_in_time(&mut self, queue: &Queue, encode: &mut dyn FnMut(&Change) -> Vec<Tell>) -> bool {
        let mut failures = 0;
        loop {
            match self.recover(encode) {
                Ok(recovered) => {
                    tracing::warn!(
                        ev = "ledger",
                        sessions = recovered.sessions,
                        started = recovered.started,
                        "what an earlier life left open is closed as server_crash"
                    );
                    queue.report(|status| {
                        status.health = Health::Ok;
                        status.trouble = None;
                    });
                    return true;
                }
                Err(error) => queue.report(|status| {
                    status.health = Health::Degraded;
                    status.trouble = Some(error.to_string());
                }),
            }
            failures += 1;
            if queue.rest(rest_after(failures)) {
                return false;
            }
        }
    }

    /// Closes the open sessions of one file, some at a time.
    fn close_in(
        &mut self,
        key: FileKey,
        encode: &mut dyn FnMut(&Change) -> Vec<Tell>,
        recovered: &mut Recovered,
    ) -> Result<(), FileError> {
        let path = key.path(&self.store.directory);
        let database = |error| FileError::Database { path: path.clone(), error };
        let mut after = [0_u8; 16];
        loop {
            let Some(file) = self.store.open.get_mut(&key) else { return Ok(()) };
            let found = open_sessions(&file.connection, key, &mut after, &self.clock).map_err(database)?;
            file.at_start(!found.is_empty()).map_err(database)?;
            if found.is_empty() {
                return Ok(());
            }
            let next_id = &mut self.store.next_outbox_id;
            let obstacle = self.store.obstacle.as_ref();
            let closed = close(file, found, &self.clock, next_id, obstacle, encode).map_err(database)?;
            self.take(key, closed, recovered);
        }
    }

    fn take(&mut self, key: FileKey, closed: ClosedSessions, recovered: &mut Recovered) {
        recovered.sessions += closed.sessions;
        recovered.started += closed.started;
        recovered.damaged += closed.damaged.len() as u64;
        let name = key.file_name();
        self.findings.extend(closed.damaged.into_iter().map(|what| format!("{name}: {what}")));
        for ((collector, kind), more) in &closed.totals {
            add(self.totals.entry((collector.clone(), kind.clone())).or_default(), *more);
        }
        if let Some(file) = self.store.open.get_mut(&closed.file.unwrap_or(key)) {
            file.outbox_rows += closed.tells;
            for (sum, more) in closed.totals {
                add(file.totals.entry(sum).or_default(), more);
            }
        }
    }

    /// A damaged file is not written to. What runs in it and waits in it moves to a new file of its day, as far as it
    /// can be read.
    fn replace(
        &mut self,
        key: FileKey,
        encode: &mut dyn FnMut(&Change) -> Vec<Tell>,
        recovered: &mut Recovered,
    ) -> Result<(), FileError> {
        let newest = self.store.shared.list().into_iter().filter(|other| other.day == key.day).max().unwrap_or(key);
        if newest != key {
            // It was replaced in an earlier life.
            self.store.abandon(key);
            return Ok(());
        }
        let to = FileKey { generation: key.generation.saturating_add(1), ..key };
        let path = to.path(&self.store.directory);
        self.store.file(to)?;
        let (Some(old), Some(new)) = (self.store.open.get(&key), self.store.open.get(&to)) else { return Ok(()) };
        let mut sessions = readable_sessions(&old.connection, to, &self.clock);
        for session in sessions.iter_mut().flatten() {
            session.is_written = false;
        }
        let next_id = &mut self.store.next_outbox_id;
        let obstacle = self.store.obstacle.as_ref();
        let fill = || -> rusqlite::Result<(ClosedSessions, u64)> {
            new.connection.execute_batch("BEGIN IMMEDIATE")?;
            let copied = copy_outbox(&old.connection, &new.connection, next_id)?;
            new.connection.execute("INSERT INTO took_over (generation) VALUES (?1)", [key.generation])?;
            Ok((close(new, sessions, &self.clock, next_id, obstacle, encode)?, copied))
        };
        let (mut closed, copied) = match fill() {
            Ok(filled) => filled,
            Err(error) => {
                // It holds nothing, and must not be taken for the one that took the other's place.
                self.store.abandon(to);
                let _ = store::remove(&path);
                return Err(FileError::Database { path, error });
            }
        };
        closed.file = Some(to);
        if let Some(new) = self.store.open.get_mut(&to) {
            new.outbox_rows = copied;
        }
        self.take(key, closed, recovered);
        self.store.abandon(key);
        Ok(())
    }

    /// Takes out of a file that was given up what the one that took its place says better.
    fn clear(&mut self, old: FileKey, new: FileKey) -> Result<(), FileError> {
        let path = new.path(&self.store.directory);
        let before = match self.store.open.get(&old) {
            Some(file) if !self.damaged.contains(&old) => {
                let before = file.totals.clone();
                let mine = self.store.open.get(&new);
                match mine.map_or(Ok(BTreeMap::new()), |mine| clear(file, &mine.connection)) {
                    Ok(after) => Some((before, after)),
                    Err(error) if Trouble::of(&error) == Trouble::Later => {
                        return Err(FileError::Database { path: old.path(&self.store.directory), error });
                    }
                    Err(error) => {
                        self.findings.push(format!("{}: {error}", old.file_name()));
                        self.damaged.insert(old);
                        None
                    }
                }
            }
            _ => None,
        };
        let Some((before, after)) = before else {
            // It stays as it is, and what the new file says counts.
            self.store.abandon(old);
            return Ok(());
        };
        for (sum, was) in before {
            let is = after.get(&sum).copied().unwrap_or_default();
            if let Some(total) = self.totals.get_mut(&sum) {
                total.sessions = (total.sessions + is.sessions).saturating_sub(was.sessions);
                total.rx_bytes = (total.rx_bytes + is.rx_bytes).saturating_sub(was.rx_bytes);
                total.tx_bytes = (total.tx_bytes + is.tx_bytes).saturating_sub(was.tx_bytes);
            }
        }
        if let Some(file) = self.store.open.get_mut(&old) {
            file.outbox_rows = 0;
            file.totals = after;
        }
        let file = self.store.open.get(&new);
        let done = file.map_or(Ok(0), |file| file.connection.execute("DELETE FROM took_over", []));
        done.map(drop).map_err(|error| FileError::Database { path, error })
    }

    fn read_bans(&self) -> rusqlite::Result<Vec<StoredBan>> {
        let now_ms = self.clock.now_ms();
        let sql = "SELECT address, kind, vhost, app, stream, until_ms FROM ban WHERE until_ms > ?1";
        let mut statement = self.store.state.prepare(sql)?;
        let mut rows = statement.query([int(now_ms)])?;
        let mut bans = Vec::new();
        while let Some(row) = rows.next()? {
            let text = |index: usize| row.get::<_, String>(index);
            let Some(whom) = whom(&text(0)?, &text(1)?, [text(2)?, text(3)?, text(4)?]) else { continue };
            bans.push(StoredBan { whom, until_unix_ms: u64::try_from(row.get::<_, i64>(5)?).unwrap_or(0) });
        }
        Ok(bans)
    }
}

/// Whom a row of `ban` concerns; nobody when this version does not know what it says.
fn whom(address: &str, kind: &str, [vhost, app, stream]: [String; 3]) -> Option<Whom> {
    let address: IpAddr = address.parse().ok()?;
    let kind = if kind.is_empty() { None } else { Some(store::kind(kind)?) };
    let key = if stream.is_empty() {
        None
    } else {
        let (vhost, app, stream) = (Name::app(&vhost).ok()?, Name::app(&app).ok()?, Name::stream(&stream).ok()?);
        Some(StreamKey::new(&vhost, &app, &stream))
    };
    Some(Whom { address, kind, key })
}

/// What one transaction closed.
#[derive(Default)]
struct ClosedSessions {
    file: Option<FileKey>,
    sessions: u64,
    started: u64,
    tells: u64,
    damaged: Vec<String>,
    totals: BTreeMap<(String, String), Total>,
}

/// The next open sessions behind `after`, which moves on.
fn open_sessions(
    connection: &Connection,
    key: FileKey,
    after: &mut [u8; 16],
    clock: &Clock,
) -> rusqlite::Result<Vec<Result<Record, String>>> {
    let mut statement = connection.prepare_cached(SELECT_OPEN)?;
    let mut rows = statement.query(params![&after[..], CLOSED_AT_ONCE])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if let Ok(id) = row.get_ref(0)?.as_blob()
            && let Ok(id) = <[u8; 16]>::try_from(id)
        {
            *after = id;
        } else {
            // Behind an id that is none there is no way on by ids.
            found.push(Err("a session without an id".to_owned()));
            *after = [0xff; 16];
            break;
        }
        found.push(read_open(row, key, clock)?.map_err(|damaged| damaged.what));
    }
    Ok(found)
}

/// The open sessions of a damaged file, as far as they can be read: each is looked up by itself, so that one that cannot
/// be read does not hide the others.
fn readable_sessions(connection: &Connection, key: FileKey, clock: &Clock) -> Vec<Result<Record, String>> {
    let mut found = Vec::new();
    let Ok(mut ids) = connection.prepare("SELECT id FROM session WHERE closed_ms IS NULL ORDER BY id") else {
        return found;
    };
    let Ok(mut ids) = ids.query([]) else { return found };
    while let Ok(Some(row)) = ids.next() {
        let Ok(id) = row.get::<_, Vec<u8>>(0) else { continue };
        let read = || -> rusqlite::Result<_> {
            let mut statement = connection.prepare_cached(SELECT_ONE)?;
            statement.query_row([&id], |row| read_open(row, key, clock))
        };
        found.push(match read() {
            Ok(read) => read.map_err(|damaged| damaged.what),
            Err(error) => {
                let name = session_id(&id).map_or_else(|| format!("{id:02x?}"), |id| id.to_string());
                Err(format!("session {name}: {error}"))
            }
        });
    }
    found
}

/// Closes sessions in one transaction, which may have begun already.
fn close(
    file: &DayFile,
    found: Vec<Result<Record, String>>,
    clock: &Clock,
    next_id: &mut i64,
    obstacle: Option<&Obstacle>,
    encode: &mut dyn FnMut(&Change) -> Vec<Tell>,
) -> rusqlite::Result<ClosedSessions> {
    let connection = &file.connection;
    let mut closed = ClosedSessions::default();
    let run = || -> rusqlite::Result<()> {
        if connection.is_autocommit() {
            connection.execute_batch("BEGIN IMMEDIATE")?;
        }
        for record in found {
            let mut record = match record {
                Ok(record) => record,
                Err(damaged) => {
                    closed.damaged.push(damaged);
                    continue;
                }
            };
            let at_ms = record.updated_ms;
            let change = Change {
                facts: Arc::clone(&record.facts),
                seq: record.seq.saturating_add(1),
                at: clock.instant(at_ms),
                what: What::Closed(CloseReason::new(Reason::ServerCrash), record.counters),
            };
            record.apply(&change, at_ms, true);
            record.write(connection)?;
            for tell in encode(&change) {
                if insert_tell(connection, *next_id, &tell, at_ms)? {
                    *next_id += 1;
                    closed.tells += 1;
                }
            }
            closed.sessions += 1;
            if record.started_ms.is_some() {
                closed.started += 1;
                let total =
                    Total { sessions: 1, rx_bytes: record.counters.rx_bytes, tx_bytes: record.counters.tx_bytes };
                let key = (record.facts.protocol.collector().to_owned(), record.facts.kind.as_str().to_owned());
                add(closed.totals.entry(key).or_default(), total);
            }
        }
        for ((collector, kind), more) in &closed.totals {
            let mut sum = file.totals.get(&(collector.clone(), kind.clone())).copied().unwrap_or_default();
            add(&mut sum, *more);
            file.write_total(collector, kind, sum)?;
        }
        pass(obstacle, Point::Commit, file.key)?;
        connection.execute_batch("COMMIT")
    };
    let result = run();
    if result.is_err() && !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    result.map(|()| closed)
}

/// Removes from `old` what `new` has as well, and says what the sums are then.
fn clear(old: &DayFile, new: &Connection) -> rusqlite::Result<BTreeMap<(String, String), Total>> {
    let connection = &old.connection;
    let run = || -> rusqlite::Result<BTreeMap<(String, String), Total>> {
        connection.execute_batch("BEGIN IMMEDIATE; DELETE FROM outbox; DELETE FROM total")?;
        let mut remove = connection.prepare("DELETE FROM session WHERE id = ?1")?;
        let mut ids = new.prepare("SELECT id FROM session")?;
        let mut ids = ids.query([])?;
        while let Some(row) = ids.next()? {
            remove.execute([row.get_ref(0)?.as_blob().unwrap_or_default()])?;
        }
        let sums = store::add_up(connection)?;
        for ((collector, kind), total) in &sums {
            old.write_total(collector, kind, *total)?;
        }
        connection.execute_batch("COMMIT")?;
        Ok(sums)
    };
    let result = run();
    if result.is_err() && !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    result
}

/// What a look for damage found.
enum Checked {
    Whole,
    Damaged(String),
    /// There was no time to look at everything.
    Interrupted,
}

/// Looks for damage, for so long.
fn check(connection: &Connection, patience: Duration) -> Checked {
    if patience.is_zero() {
        return Checked::Interrupted;
    }
    let handle = connection.get_interrupt_handle();
    let (done, waits) = channel::<()>();
    let result = std::thread::scope(|scope| {
        scope.spawn(move || {
            if waits.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                handle.interrupt();
            }
        });
        let result = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        drop(done);
        result
    });
    match result {
        Ok(answer) if answer == "ok" => Checked::Whole,
        Ok(answer) => Checked::Damaged(answer.lines().collect::<Vec<_>>().join(" ")),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => {
            Checked::Interrupted
        }
        Err(error) => Checked::Damaged(error.to_string()),
    }
}

fn log_of(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}
