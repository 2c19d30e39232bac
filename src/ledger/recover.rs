//! The end of a life that did not end well: streams that it left online go offline, all of them before anything else, so
//! that nobody hears of it after they are online again; and sessions that it left open are closed as `server_crash`, some
//! in each transaction, so that it may be cut short at any moment and gone on with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use crate::event::{Event, StreamEvent, StreamWhat};
use crate::ledger::entry::{Earlier, SumKey, sum_key};
use crate::ledger::row::{Clock, Record, SELECT_ONE, SELECT_OPEN, read_open, session_id};
use crate::ledger::store::{self, DayFile, FileError, Obstacle, Point, Store, Trouble, add};
use crate::ledger::tells::{copy_outbox, insert_tell};
use crate::ledger::transaction::pass;
use crate::ledger::{FileKey, Tell, Total, online};
use crate::names::{Kind, SessionId, StreamKey};
use crate::session::{Change, CloseReason, Reason, What};

/// What is still to be closed, and what was found on the way.
pub struct Recovery {
    clock: Clock,
    /// Sums of what earlier lives finished, over all files.
    totals: BTreeMap<SumKey, Total>,
    findings: Vec<String>,
    /// Files that may only be read, and are to be replaced.
    damaged: BTreeSet<FileKey>,
    /// Files that were given up, with those that took their places.
    void: Vec<(FileKey, FileKey)>,
    /// No stream of an earlier life is online any more.
    has_ended_streams: bool,
    /// The files that are still to be looked through, once the others are out of the way.
    left: Option<VecDeque<FileKey>>,
    /// How far the first of them is done.
    after: [u8; 16],
    recovered: Recovered,
    /// What the spools have gained since they were last asked for.
    spooled: BTreeMap<Arc<str>, u64>,
}

/// What a start found of a life that did not end well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Sessions closed as `server_crash`.
    pub sessions: u64,
    /// Of those, the ones that had started.
    pub started: u64,
    /// Streams that were online.
    pub streams: u64,
    /// Sessions whose rows are damaged; they stay as they are.
    pub damaged: u64,
    /// How long it took.
    pub took: Duration,
}

/// Says what each sink must be told of the end of a session or stream, on the ledger's thread.
pub type Encode = Box<dyn FnMut(&Event) -> Vec<Tell> + Send>;

/// Sums of finished sessions that had started, per collector and kind.
pub type Totals = BTreeMap<(String, Kind), Total>;

/// Where a recovery is after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do.
    More,
    /// Everything is closed.
    Done,
    /// This file may not be written any more.
    GivenUp(FileKey),
}

/// Sessions that are closed in one transaction.
const CLOSED_AT_ONCE: u32 = 4_000;

impl Recovery {
    /// Of files that were opened and checked.
    pub fn new(
        clock: Clock,
        totals: BTreeMap<SumKey, Total>,
        findings: Vec<String>,
        damaged: BTreeSet<FileKey>,
        void: Vec<(FileKey, FileKey)>,
    ) -> Self {
        Self {
            clock,
            totals,
            findings,
            damaged,
            void,
            has_ended_streams: false,
            left: None,
            after: [0; 16],
            recovered: Recovered::default(),
            spooled: BTreeMap::new(),
        }
    }

    /// Puts files in order, and closes sessions for about so long; nothing else may write meanwhile. `encode` says what
    /// each sink must be told of an end, and both are committed together.
    pub fn run(
        &mut self,
        store: &mut Store,
        patience: Duration,
        encode: &mut dyn FnMut(&Event) -> Vec<Tell>,
    ) -> Result<Recovered, FileError> {
        let began = Instant::now();
        self.recovered = Recovered::default();
        while !self.is_done() && (!self.is_in_order() || began.elapsed() < patience) {
            match self.step(store, &|_| false, encode)? {
                Step::More | Step::Done => {}
                Step::GivenUp(key) => {
                    self.damaged.insert(key);
                }
            }
        }
        store.publish();
        Ok(Recovered { took: began.elapsed(), ..self.recovered })
    }

    /// Whether every file that may not be written is out of the way and all streams have ended, so that others may write.
    pub fn is_in_order(&self) -> bool {
        self.void.is_empty() && self.damaged.is_empty() && self.has_ended_streams
    }

    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.is_in_order() && self.left.as_ref().is_some_and(VecDeque::is_empty)
    }

    /// What was closed so far.
    pub fn recovered(&self) -> Recovered {
        self.recovered
    }

    /// What each spool has gained since this was last asked.
    pub fn take_spooled(&mut self) -> BTreeMap<Arc<str>, u64> {
        std::mem::take(&mut self.spooled)
    }

    /// What was found that the operator should know.
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// The same, of what was not asked for yet.
    pub fn take_findings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.findings)
    }

    /// When it began.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What earlier lives finished, as far as this one has got.
    pub fn earlier(&self) -> Earlier {
        Earlier::new(&self.totals)
    }

    /// The next transaction. A file that may not be written is out of the way before anything is closed in the others.
    /// Whoever `runs` in this life already is left alone.
    pub fn step(
        &mut self,
        store: &mut Store,
        runs: &dyn Fn(SessionId) -> bool,
        encode: &mut dyn FnMut(&Event) -> Vec<Tell>,
    ) -> Result<Step, FileError> {
        if let Some((old, new)) = self.void.first().copied() {
            self.clear(store, old, new)?;
            self.void.remove(0);
            return Ok(Step::More);
        }
        if let Some(key) = self.damaged.first().copied() {
            self.replace(store, key, encode)?;
            self.damaged.remove(&key);
            return Ok(Step::More);
        }
        if !self.has_ended_streams {
            let given_up = self.end_streams(store, encode)?;
            self.has_ended_streams = given_up.is_none();
            return Ok(given_up.map_or(Step::More, Step::GivenUp));
        }
        let left = self.left.get_or_insert_with(|| store.open.keys().copied().collect());
        let Some(key) = left.front().copied() else { return Ok(Step::Done) };
        match self.close_some(store, key, runs, encode) {
            Ok(true) => {}
            Ok(false) => self.next_file(),
            Err(error) if error.trouble() == Trouble::Suspect => {
                self.findings.push(format!("{error}; what follows goes into another file"));
                self.next_file();
                return Ok(Step::GivenUp(key));
            }
            Err(error) => return Err(error),
        }
        Ok(Step::More)
    }

    /// Ends the streams that were online, in one transaction for each file. A file that may not be written any more ends it
    /// before its time.
    fn end_streams(
        &mut self,
        store: &mut Store,
        encode: &mut dyn FnMut(&Event) -> Vec<Tell>,
    ) -> Result<Option<FileKey>, FileError> {
        let with_streams: Vec<FileKey> =
            store.open.values().filter(|file| file.online > 0).map(|file| file.key).collect();
        for key in with_streams {
            let Some(file) = store.open.get(&key) else { continue };
            let next_id = &mut store.next_outbox_id;
            let obstacle = store.obstacle.as_ref();
            let run = || {
                let streams = online::read(&file.connection)?;
                let closed = write_ends_of_streams(&file.connection, streams, &self.clock, next_id, encode)?;
                file.connection.execute("DELETE FROM online", [])?;
                Ok(closed)
            };
            match in_transaction(file, obstacle, run) {
                Ok(closed) => {
                    self.take(store, key, key, closed);
                    if let Some(file) = store.open.get_mut(&key) {
                        file.online = 0;
                    }
                }
                Err(error) => {
                    let error = FileError::Database { path: key.path(&store.directory), error };
                    if error.trouble() != Trouble::Suspect {
                        return Err(error);
                    }
                    self.findings.push(format!("{error}; what follows goes into another file"));
                    return Ok(Some(key));
                }
            }
        }
        Ok(None)
    }

    fn next_file(&mut self) {
        self.left.as_mut().and_then(VecDeque::pop_front);
        self.after = [0; 16];
    }

    /// Closes some of the open sessions of one file; false when those were the last.
    fn close_some(
        &mut self,
        store: &mut Store,
        key: FileKey,
        runs: &dyn Fn(SessionId) -> bool,
        encode: &mut dyn FnMut(&Event) -> Vec<Tell>,
    ) -> Result<bool, FileError> {
        let path = key.path(&store.directory);
        let database = |error| FileError::Database { path: path.clone(), error };
        let Some(file) = store.open.get(&key) else { return Ok(false) };
        let mut after = self.after;
        let (found, is_more) = open_sessions(&file.connection, key, &mut after, &self.clock, runs).map_err(database)?;
        if !found.is_empty() {
            file.at_start(true).map_err(database)?;
            let next_id = &mut store.next_outbox_id;
            let obstacle = store.obstacle.as_ref();
            let closed = close(file, found, &self.clock, next_id, obstacle, encode).map_err(database)?;
            self.take(store, key, key, closed);
        }
        if !is_more && let Some(file) = store.open.get(&key) {
            file.at_start(false).map_err(database)?;
        }
        self.after = after;
        Ok(is_more)
    }

    /// Takes down what was closed of `from` and is on record in `to`.
    pub fn take(&mut self, store: &mut Store, from: FileKey, to: FileKey, closed: ClosedSessions) {
        self.recovered.sessions += closed.sessions;
        self.recovered.started += closed.started;
        self.recovered.streams += closed.streams;
        self.recovered.damaged += closed.damaged.len() as u64;
        for (sink, bytes) in closed.spooled {
            *self.spooled.entry(sink).or_default() += bytes;
        }
        let name = from.file_name();
        self.findings.extend(closed.damaged.into_iter().map(|what| format!("{name}: {what}")));
        let file = store.open.get_mut(&to);
        let mut sums = file.map(|file| {
            file.outbox_rows += closed.tells;
            &mut file.totals
        });
        for (sum, more) in closed.totals {
            if let Some(sums) = &mut sums {
                add(sums.entry(sum.clone()).or_default(), more);
            }
            add(self.totals.entry(sum).or_default(), more);
        }
    }

    /// A damaged file is not written to. What runs in it and waits in it moves to a new file of its day, as far as it
    /// can be read.
    fn replace(
        &mut self,
        store: &mut Store,
        key: FileKey,
        encode: &mut dyn FnMut(&Event) -> Vec<Tell>,
    ) -> Result<(), FileError> {
        let newest = store.shared.list().into_iter().filter(|other| other.day == key.day).max().unwrap_or(key);
        if newest != key {
            // It was replaced in an earlier life.
            store.abandon(key);
            return Ok(());
        }
        let to = FileKey { generation: key.generation.saturating_add(1), ..key };
        let path = to.path(&store.directory);
        store.file(to)?;
        let (Some(old), Some(new)) = (store.open.get(&key), store.open.get(&to)) else { return Ok(()) };
        let next_id = &mut store.next_outbox_id;
        let obstacle = store.obstacle.as_ref();
        let mut fill = || -> rusqlite::Result<(ClosedSessions, u64)> {
            new.connection.execute_batch("BEGIN IMMEDIATE")?;
            let copied = copy_outbox(&old.connection, &new.connection, next_id)?;
            new.connection.execute("INSERT INTO took_over (generation) VALUES (?1)", [key.generation])?;
            let closed = self.close_elsewhere(&old.connection, new, next_id, &|_| false, encode)?;
            pass(obstacle, Point::Commit, to)?;
            new.connection.execute_batch("COMMIT")?;
            Ok((closed, copied))
        };
        let (closed, copied) = match fill() {
            Ok(filled) => filled,
            Err(error) => {
                // It holds nothing, and must not be taken for the one that took the other's place.
                store.abandon(to);
                let _ = store::remove(&path);
                return Err(FileError::Database { path, error });
            }
        };
        if let Some(new) = store.open.get_mut(&to) {
            new.outbox_rows = copied;
        }
        self.take(store, key, to, closed);
        store.abandon(key);
        Ok(())
    }

    /// Closes in `new`, as a part of a transaction, what is open in `old` and does not run.
    pub fn close_elsewhere(
        &self,
        old: &Connection,
        new: &DayFile,
        next_id: &mut i64,
        runs: &dyn Fn(SessionId) -> bool,
        encode: &mut dyn FnMut(&Event) -> Vec<Tell>,
    ) -> rusqlite::Result<ClosedSessions> {
        let mut sessions = readable_sessions(old, new.key, &self.clock);
        sessions.retain(|session| session.as_ref().map_or(true, |session| !runs(session.facts.id)));
        for session in sessions.iter_mut().flatten() {
            session.is_written = false;
        }
        // Whatever is online when those of earlier lives have ended is of this life.
        let streams = if self.has_ended_streams { Vec::new() } else { online::read(old).unwrap_or_default() };
        let ended = write_ends_of_streams(&new.connection, streams, &self.clock, next_id, encode)?;
        let mut closed = close_rows(new, sessions, &self.clock, next_id, encode)?;
        closed.streams = ended.streams;
        closed.tells += ended.tells;
        for (sink, bytes) in ended.spooled {
            *closed.spooled.entry(sink).or_default() += bytes;
        }
        Ok(closed)
    }

    /// Takes out of a file that was given up what the one that took its place says better.
    fn clear(&mut self, store: &mut Store, old: FileKey, new: FileKey) -> Result<(), FileError> {
        let path = new.path(&store.directory);
        let before = match store.open.get(&old) {
            Some(file) if !self.damaged.contains(&old) => {
                let before = file.totals.clone();
                let mine = store.open.get(&new);
                match mine.map_or(Ok(BTreeMap::new()), |mine| clear(file, &mine.connection)) {
                    Ok(after) => Some((before, after)),
                    Err(error) if Trouble::of(&error) == Trouble::Later => {
                        return Err(FileError::Database { path: old.path(&store.directory), error });
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
            store.abandon(old);
            return Ok(());
        };
        for (sum, was) in before {
            let is = after.get(&sum).copied().unwrap_or_default();
            if let Some(total) = self.totals.get_mut(&sum) {
                total.sessions = (total.sessions + is.sessions).saturating_sub(was.sessions);
                total.rx_bytes = (total.rx_bytes + is.rx_bytes).saturating_sub(was.rx_bytes);
                total.tx_bytes = (total.tx_bytes + is.tx_bytes).saturating_sub(was.tx_bytes);
                total.ended = (total.ended + is.ended).saturating_sub(was.ended);
            }
        }
        if let Some(file) = store.open.get_mut(&old) {
            (file.outbox_rows, file.online) = (0, 0);
            file.totals = after;
        }
        let file = store.open.get(&new);
        let done = file.map_or(Ok(0), |file| file.connection.execute("DELETE FROM took_over", []));
        done.map(drop).map_err(|error| FileError::Database { path, error })
    }
}

/// What one transaction closed.
#[derive(Default)]
pub struct ClosedSessions {
    sessions: u64,
    started: u64,
    streams: u64,
    tells: u64,
    spooled: BTreeMap<Arc<str>, u64>,
    damaged: Vec<String>,
    totals: BTreeMap<SumKey, Total>,
}

/// The next open sessions behind `after`, which moves on, and whether there may be more. Who `runs` is passed over.
fn open_sessions(
    connection: &Connection,
    key: FileKey,
    after: &mut [u8; 16],
    clock: &Clock,
    runs: &dyn Fn(SessionId) -> bool,
) -> rusqlite::Result<(Vec<Result<Record, String>>, bool)> {
    let mut statement = connection.prepare_cached(SELECT_OPEN)?;
    let mut rows = statement.query(params![&after[..], CLOSED_AT_ONCE])?;
    let (mut found, mut count) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        count += 1;
        if let Ok(id) = row.get_ref(0)?.as_blob()
            && let Ok(id) = <[u8; 16]>::try_from(id)
        {
            *after = id;
            if session_id(&id).is_some_and(runs) {
                continue;
            }
        } else {
            // Behind an id that is none there is no way on by ids.
            found.push(Err("a session without an id".to_owned()));
            *after = [0xff; 16];
            break;
        }
        found.push(read_open(row, key, clock)?.map_err(|damaged| damaged.what));
    }
    Ok((found, count == CLOSED_AT_ONCE))
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

/// Closes sessions in one transaction.
fn close(
    file: &DayFile,
    found: Vec<Result<Record, String>>,
    clock: &Clock,
    next_id: &mut i64,
    obstacle: Option<&Obstacle>,
    encode: &mut dyn FnMut(&Event) -> Vec<Tell>,
) -> rusqlite::Result<ClosedSessions> {
    in_transaction(file, obstacle, || close_rows(file, found, clock, next_id, encode))
}

/// All of `work` or nothing.
fn in_transaction<T>(
    file: &DayFile,
    obstacle: Option<&Obstacle>,
    work: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let connection = &file.connection;
    let run = || -> rusqlite::Result<T> {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let done = work()?;
        pass(obstacle, Point::Commit, file.key)?;
        connection.execute_batch("COMMIT")?;
        Ok(done)
    };
    let result = run();
    if result.is_err() && !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    result
}

/// Writes what is told of the ends of streams.
fn write_ends_of_streams(
    connection: &Connection,
    streams: Vec<(StreamKey, SessionId, Option<u64>)>,
    clock: &Clock,
    next_id: &mut i64,
    encode: &mut dyn FnMut(&Event) -> Vec<Tell>,
) -> rusqlite::Result<ClosedSessions> {
    let mut closed = ClosedSessions::default();
    for (key, publisher, heard_ms) in streams {
        let at_ms = heard_ms.unwrap_or(clock.now_ms());
        let what = StreamWhat::Offline { publisher, reason: Reason::ServerCrash.into() };
        let event = Event::Stream(StreamEvent { key, at: clock.instant(at_ms), what });
        insert_tells(connection, encode(&event), at_ms, next_id, &mut closed)?;
        closed.streams += 1;
    }
    Ok(closed)
}

fn insert_tells(
    connection: &Connection,
    tells: Vec<Tell>,
    at_ms: u64,
    next_id: &mut i64,
    closed: &mut ClosedSessions,
) -> rusqlite::Result<()> {
    for tell in tells {
        if insert_tell(connection, *next_id, &tell, at_ms)? {
            *next_id += 1;
            closed.tells += 1;
            *closed.spooled.entry(tell.sink).or_default() += tell.body.len() as u64;
        }
    }
    Ok(())
}

/// Writes the ends of sessions, what is told of them, and the sums.
fn close_rows(
    file: &DayFile,
    found: Vec<Result<Record, String>>,
    clock: &Clock,
    next_id: &mut i64,
    encode: &mut dyn FnMut(&Event) -> Vec<Tell>,
) -> rusqlite::Result<ClosedSessions> {
    let connection = &file.connection;
    let mut closed = ClosedSessions::default();
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
        insert_tells(connection, encode(&Event::Session(change)), at_ms, next_id, &mut closed)?;
        closed.sessions += 1;
        closed.started += u64::from(record.started_ms.is_some());
        let key = sum_key(record.facts.protocol, Some(record.facts.kind), Reason::ServerCrash.into());
        add(closed.totals.entry(key).or_default(), record.total());
    }
    for (key, more) in &closed.totals {
        let mut sum = file.totals.get(key).copied().unwrap_or_default();
        add(&mut sum, *more);
        file.write_total(key, sum)?;
    }
    Ok(closed)
}

/// Removes from `old` what `new` has as well, and says what the sums are then.
fn clear(old: &DayFile, new: &Connection) -> rusqlite::Result<BTreeMap<SumKey, Total>> {
    let connection = &old.connection;
    in_transaction(old, None, || {
        connection.execute_batch("DELETE FROM outbox; DELETE FROM online; DELETE FROM total")?;
        let mut remove = connection.prepare("DELETE FROM session WHERE id = ?1")?;
        let mut ids = new.prepare("SELECT id FROM session")?;
        let mut ids = ids.query([])?;
        while let Some(row) = ids.next()? {
            remove.execute([row.get_ref(0)?.as_blob().unwrap_or_default()])?;
        }
        let sums = store::add_up(connection)?;
        for (key, total) in &sums {
            old.write_total(key, *total)?;
        }
        Ok(sums)
    })
}
