//! The thread `ledger`: takes what waits, and commits it file by file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::params;

use crate::event::{Event, StreamWhat, Weight};
use crate::ledger::queue::{BanOrder, Batch, Queue};
use crate::ledger::recover::{Recovery, Step};
use crate::ledger::row::{Record, int};
use crate::ledger::store::{self, FileError, Point, Store, Trouble, add};
use crate::ledger::tells::{copy_outbox, trim};
use crate::ledger::transaction::{Group, Transaction, Work, pass};
use crate::ledger::{Day, Encode, FileKey, Health, Settings, online, retention};
use crate::names::{Kind, SessionId, StreamKey};
use crate::stdx::clock::WallAnchor;

/// What the thread owns.
pub struct Writer {
    queue: Arc<Queue>,
    store: Store,
    settings: Settings,
    wall: WallAnchor,
    /// What is still to be closed of an earlier life, and who says what is told of it.
    earlier: Option<(Recovery, Encode)>,
    /// Every session that runs, as its row says.
    live: HashMap<SessionId, Record>,
    /// Bytes of bodies that wait for each sink.
    spools: HashMap<Arc<str>, u64>,
    /// The update of a session that a sink has not taken, as far as this process recorded it.
    updates: HashMap<(Arc<str>, SessionId), (FileKey, i64)>,
    /// Every stream that is online in this life: the file that says so, and by whom it is.
    online: HashMap<StreamKey, (FileKey, SessionId)>,
    /// Files that may not be written any more and are not followed by another yet.
    suspects: BTreeSet<FileKey>,
    failures: u32,
    chores_at: Instant,
    /// The spools are known.
    is_counted: bool,
    work: Work,
}

/// How often old days are looked at.
const CHORES_EVERY: Duration = Duration::from_mins(1);
/// The first rest after a failure; it doubles up to the last.
const REST_FIRST: Duration = Duration::from_millis(250);
const REST_LAST: Duration = Duration::from_secs(5);

/// However the ledger's thread ends, nobody waits for it in vain.
pub struct Ending(pub Arc<Queue>);

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.report(|status| {
                status.health = Health::Degraded;
                status.trouble = Some("the ledger's thread ended with a panic".into());
            });
        }
        self.0.end();
    }
}

/// How long to leave the disk alone after so many failures in a row.
pub fn rest_after(failures: u32) -> Duration {
    REST_FIRST.saturating_mul(1 << failures.min(8).saturating_sub(1)).min(REST_LAST)
}

impl Writer {
    pub fn new(
        queue: Arc<Queue>,
        store: Store,
        settings: Settings,
        wall: WallAnchor,
        earlier: Option<(Recovery, Encode)>,
    ) -> rusqlite::Result<Self> {
        let mut writer = Self {
            queue,
            store,
            settings,
            wall,
            earlier,
            live: HashMap::new(),
            spools: HashMap::new(),
            updates: HashMap::new(),
            online: HashMap::new(),
            suspects: BTreeSet::new(),
            failures: 0,
            chores_at: Instant::now(),
            is_counted: false,
            work: Work::default(),
        };
        if writer.earlier.is_none() {
            writer.count_spools()?;
        }
        Ok(writer)
    }

    /// Counts what waits for each sink.
    fn count_spools(&mut self) -> rusqlite::Result<()> {
        self.spools.clear();
        for file in self.store.open.values() {
            let sql = "SELECT sink, SUM(LENGTH(body)) FROM outbox GROUP BY sink";
            let mut statement = file.connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (sink, bytes): (String, i64) = (row.get(0)?, row.get(1)?);
                *self.spools.entry(Arc::from(sink)).or_default() += u64::try_from(bytes).unwrap_or(0);
            }
        }
        if let Some((recovery, _)) = &mut self.earlier {
            drop(recovery.take_spooled());
        }
        self.is_counted = true;
        let told = waiting(&self.spools);
        self.queue.report(|status| status.spools = told);
        Ok(())
    }

    /// Works until the ledger is stopped.
    pub fn run(mut self) {
        let ending = Ending(Arc::clone(&self.queue));
        let mut batch = Batch::default();
        if self.close_earlier(&mut batch) {
            self.work_on(&mut batch);
        }
        // The files close, which empties their logs, before whoever waits for the end goes on.
        for key in std::mem::take(&mut self.suspects) {
            self.store.abandon(key);
        }
        for file in self.store.open.values() {
            // Readers may keep a log from being removed with the last writer; an empty one says that all is in the file.
            let _ = file.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
        drop(self);
        drop(ending);
    }

    fn work_on(&mut self, batch: &mut Batch) {
        loop {
            let has_work = self.queue.take(batch);
            if has_work {
                self.commit(batch);
            }
            if batch.is_last || (self.failures > 0 && self.queue.is_stopping()) {
                break;
            }
            if !has_work || self.chores_at <= Instant::now() {
                self.chores();
            }
        }
    }

    /// Closes what an earlier life left open. What is recorded meanwhile waits, so that everybody hears of the ends first;
    /// only where it would take too much memory it is committed in between. False when the ledger is stopped before.
    fn close_earlier(&mut self, batch: &mut Batch) -> bool {
        let mut failures = 0;
        loop {
            match self.close_more() {
                Ok(true) => return true,
                Ok(false) => failures = 0,
                Err(error) => {
                    self.queue.report(|status| {
                        status.health = Health::Degraded;
                        status.trouble = Some(error.to_string());
                    });
                    failures += 1;
                    if self.queue.rest(rest_after(failures)) {
                        return false;
                    }
                    continue;
                }
            }
            let may_record = self.earlier.as_ref().is_none_or(|(recovery, _)| recovery.is_in_order());
            while may_record && (self.queue.is_half_full() || self.queue.is_stopping()) {
                if self.queue.take(batch) {
                    self.commit(batch);
                }
                // What is still open then is closed by the next start.
                if batch.is_last || (self.failures > 0 && self.queue.is_stopping()) {
                    return false;
                }
                if self.failures > 0 {
                    break;
                }
            }
        }
    }

    /// One transaction more of what an earlier life left open; true when that was all.
    fn close_more(&mut self) -> Result<bool, FileError> {
        if let Some(key) = self.suspects.first().copied() {
            self.take_over(key)?;
            return Ok(false);
        }
        // Before that there may be files that cannot be read.
        if !self.is_counted && self.earlier.as_ref().is_some_and(|(recovery, _)| recovery.is_in_order()) {
            let path = self.store.directory.clone();
            self.count_spools().map_err(|error| FileError::Database { path, error })?;
        }
        let Some((recovery, encode)) = &mut self.earlier else { return Ok(true) };
        let (live, before) = (&self.live, recovery.recovered().sessions);
        let step = recovery.step(&mut self.store, &|id| live.contains_key(&id), &mut **encode)?;
        if let Step::GivenUp(key) = step {
            self.suspects.insert(key);
        }
        let (recovered, earlier) = (recovery.recovered(), Arc::new(recovery.earlier()));
        for finding in recovery.take_findings() {
            tracing::warn!(ev = "ledger", "{finding}");
        }
        for (sink, bytes) in recovery.take_spooled() {
            *self.spools.entry(sink).or_default() += bytes;
        }
        self.store.publish();
        // A transaction that had nothing to say says nothing about the disk.
        let is_well = self.failures == 0 && (step == Step::Done || recovered.sessions > before);
        let spools = waiting(&self.spools);
        self.queue.report(|status| {
            (status.spools, status.earlier) = (spools, Some(earlier));
            if is_well {
                (status.health, status.trouble) = (Health::Ok, None);
            }
        });
        if step != Step::Done {
            return Ok(false);
        }
        self.earlier = None;
        tracing::warn!(
            ev = "ledger",
            sessions = recovered.sessions,
            started = recovered.started,
            "what an earlier life left open is closed as server_crash"
        );
        Ok(true)
    }

    /// Commits a batch. What could not be committed stays in it and goes back to the queue.
    fn commit(&mut self, batch: &mut Batch) {
        let began = Instant::now();
        let mut trouble: Option<String> = None;
        let mut failed = false;
        let (groups, worked) = self.groups(batch);
        let mut done = vec![false; batch.entries.len()];
        let mut told: Vec<Option<(Arc<str>, i64)>> = Vec::new();
        for (sink, ids) in batch.told.drain(..) {
            told.extend(ids.into_iter().map(|id| Some((Arc::clone(&sink), id))));
        }
        let (mut bytes, mut rows) = (0, 0);
        let told_count = told.len();

        for (key, group) in groups {
            match self.commit_group(key, &group, batch, &mut told) {
                Ok(count) => {
                    rows += count;
                    for index in group.entries {
                        done[index] = true;
                        bytes += batch.entries[index].bytes();
                    }
                }
                Err(error)
                    if error.trouble() == Trouble::Defect && group.entries.len() + group.checkpoints.len() > 0 =>
                {
                    // One of them cannot be recorded. The others must not suffer for it.
                    trouble = Some(error.to_string());
                    self.forget_checkpoints(&group);
                    let (count, result) = self.commit_one_by_one(key, group, batch, &mut told, &mut done, &mut bytes);
                    rows += count;
                    if let Err(error) = result {
                        trouble = Some(error.to_string());
                        failed = true;
                        self.suspect(key, &error);
                    }
                }
                Err(error) => {
                    trouble = Some(error.to_string());
                    failed = true;
                    self.suspect(key, &error);
                    self.forget_checkpoints(&group);
                }
            }
        }
        self.store.publish();
        let bans_changed = !batch.bans.is_empty();
        if let Err(error) = self.bans(&mut batch.bans) {
            trouble = Some(format!("{}: {error}", store::STATE_FILE));
            failed = true;
        }
        let mut trimmed = false;
        if !failed {
            match self.trim() {
                Ok(some) => trimmed = some,
                Err(error) => {
                    trouble = Some(error.to_string());
                    failed = true;
                }
            }
        }
        // A transaction that had nothing to say, since what failed is not tried again, says nothing about the disk.
        let is_gone = told.iter().flatten().count() < told_count;
        let wrote = !failed && (rows > 0 || is_gone || trimmed || bans_changed);

        let mut index = 0;
        batch.entries.retain(|_| {
            index += 1;
            !done[index - 1]
        });
        // What is in no file was told before; what may be in a file that failed is tried again.
        if failed {
            batch.told.extend(told.into_iter().flatten().map(|(sink, id)| (sink, vec![id])));
        }
        if failed {
            self.failures = self.failures.saturating_add(1);
        } else if wrote {
            self.failures = 0;
        }
        let rest = failed.then(|| rest_after(self.failures));
        let now = Instant::now();
        let unix_ms = self.wall.unix_ms(now);
        let open_files = self.store.open.len() as u64;
        let spools = waiting(&self.spools);
        self.queue.report(|status| {
            status.spools = spools;
            status.open_files = open_files;
            status.records += rows;
            if failed {
                status.health = Health::Degraded;
            }
            if wrote {
                status.health = Health::Ok;
                status.synced_unix_ms = unix_ms;
                status.sync_time = now.duration_since(began);
                status.commits += 1;
            }
            if wrote || trouble.is_some() {
                status.trouble = trouble;
            }
        });
        self.queue.done(batch, bytes, worked, rest);
    }

    /// Which file gets what. At most one commit's worth of checkpoints leaves the batch, and their number is told.
    fn groups(&mut self, batch: &mut Batch) -> (BTreeMap<FileKey, Group>, usize) {
        let mut groups: BTreeMap<FileKey, Group> = BTreeMap::new();
        let mut days: Vec<(Day, FileKey)> = Vec::new();
        let mut file_of = |store: &Store, day: Day| {
            if let Some((_, key)) = days.iter().find(|(known, _)| *known == day) {
                return *key;
            }
            let key = store.current(day);
            days.push((day, key));
            key
        };
        // A stream stays in the file that says that it is online, so that the same file says that it no longer is.
        let mut online: HashMap<&StreamKey, FileKey> = HashMap::new();
        for (index, waiting) in batch.entries.iter().enumerate() {
            let key = match &*waiting.entry.event {
                Event::Session(change) => match self.live.get(&change.facts.id) {
                    Some(record) => record.file,
                    None => file_of(&self.store, Day::of_session(change.facts.id)),
                },
                Event::Stream(stream) => {
                    let known = online.get(&stream.key).copied();
                    let known = known.or_else(|| self.online.get(&stream.key).map(|(file, _)| *file));
                    let key =
                        known.unwrap_or_else(|| file_of(&self.store, Day::of_unix_ms(self.wall.unix_ms(stream.at))));
                    if matches!(stream.what, StreamWhat::Online { .. }) {
                        online.insert(&stream.key, key);
                    }
                    key
                }
                other => file_of(&self.store, Day::of_unix_ms(self.wall.unix_ms(other.at()))),
            };
            groups.entry(key).or_default().entries.push(index);
        }
        let count = batch.checkpoints.len().min(self.settings.commit_records.max(1));
        let is_behind = batch.entries.len() >= self.settings.commit_records;
        let mut early = Vec::new();
        for (id, sample) in batch.checkpoints.drain(batch.checkpoints.len() - count..) {
            match self.live.get(&id) {
                Some(record) => groups.entry(record.file).or_default().checkpoints.push((id, sample)),
                // Its opening may be in this batch, or still in the queue.
                None if is_behind => early.push((id, sample)),
                None => {
                    if let Some(group) = groups.get_mut(&file_of(&self.store, Day::of_session(id))) {
                        group.checkpoints.push((id, sample));
                    }
                }
            }
        }
        let worked = count - early.len();
        batch.checkpoints.extend(early);
        // What was told is in files that nothing else may be written to.
        if !batch.told.is_empty() {
            for file in self.store.open.values().filter(|file| file.outbox_rows > 0) {
                groups.entry(file.key).or_default();
            }
        }
        (groups, worked)
    }

    /// Nothing more is written to a file of which nobody can tell what the last commit left in it.
    fn suspect(&mut self, key: FileKey, error: &FileError) {
        if error.trouble() == Trouble::Suspect {
            self.suspects.insert(key);
        }
    }

    /// Counts checkpoints that are not tried again: the next ones make up for them.
    fn forget_checkpoints(&self, group: &Group) {
        let lost = group.checkpoints.len() as u64;
        self.queue.report(|status| status.dropped.checkpoints += lost);
    }

    /// Commits the entries of a group each by itself, and drops those that cannot be recorded. Rows committed, and the
    /// trouble that kept the rest, which is to be tried again.
    fn commit_one_by_one(
        &mut self,
        key: FileKey,
        group: Group,
        batch: &Batch,
        told: &mut [Option<(Arc<str>, i64)>],
        done: &mut [bool],
        bytes: &mut u64,
    ) -> (u64, Result<(), FileError>) {
        let mut rows = 0;
        for index in group.entries {
            let one = Group { entries: vec![index], checkpoints: Vec::new() };
            match self.commit_group(key, &one, batch, told) {
                Ok(count) => rows += count,
                Err(error) if error.trouble() == Trouble::Defect => {
                    self.queue.count_dropped(&batch.entries[index].entry);
                }
                Err(error) => return (rows, Err(error)),
            }
            done[index] = true;
            *bytes += batch.entries[index].bytes();
        }
        (rows, Ok(()))
    }

    /// One transaction: the rows of every session that the group touches, once each, and all that is told of them.
    fn commit_group(
        &mut self,
        key: FileKey,
        group: &Group,
        batch: &Batch,
        told: &mut [Option<(Arc<str>, i64)>],
    ) -> Result<u64, FileError> {
        if self.suspects.contains(&key) {
            let follower = self.take_over(key)?;
            // What is new goes to the follower; it is sorted anew when it is tried again.
            let path = follower.path(&self.store.directory);
            let error = rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                Some("took the place of a file that failed".into()),
            );
            return Err(FileError::Database { path, error });
        }
        self.store.file(key)?;
        let Self { store, live, updates, work, wall, .. } = self;
        let Some(file) = store.open.get_mut(&key) else { return Ok(0) };
        work.clear();
        let mut statements = Transaction {
            file,
            live,
            updates,
            wall,
            obstacle: store.obstacle.as_ref(),
            next_id: &mut store.next_outbox_id,
        };
        let result = statements.run(work, group, batch, told);
        let (next_attempt, path) = (file.next_attempt + work.attempts, key.path(&store.directory));
        if let Err(error) = result {
            if !file.connection.is_autocommit() {
                let _ = file.connection.execute_batch("ROLLBACK");
            }
            return Err(FileError::Database { path, error });
        }
        file.next_attempt = next_attempt;
        self.committed(key, told);
        Ok(self.work.rows)
    }

    /// Takes over what a transaction did.
    fn committed(&mut self, key: FileKey, told: &mut [Option<(Arc<str>, i64)>]) {
        let Self { store, live, spools, updates, online, work, .. } = self;
        let Some(file) = store.open.get_mut(&key) else { return };
        for (key, more) in &work.totals {
            add(file.totals.entry(key.clone()).or_default(), *more);
        }
        for record in work.records.drain(..) {
            let id = record.facts.id;
            let was_running = live.contains_key(&id);
            if record.closed.is_some() {
                live.remove(&id);
                file.running = file.running.saturating_sub(u64::from(was_running));
                for sink in spools.keys() {
                    updates.remove(&(Arc::clone(sink), id));
                }
            } else {
                live.insert(id, record);
                file.running += u64::from(!was_running);
            }
        }
        for (stream, publisher) in work.online.drain(..) {
            let was_online = match publisher {
                Some(publisher) => online.insert(stream, (key, publisher)).is_some(),
                None => online.remove(&stream).is_some(),
            };
            match (was_online, publisher.is_some()) {
                (false, true) => file.online += 1,
                (true, false) => file.online = file.online.saturating_sub(1),
                _ => {}
            }
        }
        for (sink, bytes) in work.spooled.drain(..) {
            file.outbox_rows += 1;
            *spools.entry(sink).or_default() += bytes;
        }
        for (subject, id) in work.updates.drain(..) {
            if live.contains_key(&subject.1) {
                updates.insert(subject, (key, id));
            }
        }
        for (sink, bytes) in work.replaced.drain(..) {
            file.outbox_rows = file.outbox_rows.saturating_sub(1);
            spools.entry(sink).and_modify(|held| *held = held.saturating_sub(bytes));
        }
        for (place, bytes) in work.told.drain(..) {
            file.outbox_rows = file.outbox_rows.saturating_sub(1);
            if let Some((sink, _)) = told.get_mut(place).and_then(Option::take) {
                spools.entry(sink).and_modify(|held| *held = held.saturating_sub(bytes));
            }
        }
    }

    /// Gives a file up whose last commit may be there or not, and lets a new one of the same day take its place: the
    /// sessions that run get their rows there, and what is still to be told is copied. Nothing is written to the old
    /// file again.
    fn take_over(&mut self, key: FileKey) -> Result<FileKey, FileError> {
        let newest = self.store.shared.list().into_iter().filter(|other| other.day == key.day).max().unwrap_or(key);
        let full = || FileError::Io {
            path: key.path(&self.store.directory),
            error: std::io::Error::other("too many files of this day failed"),
        };
        let follower = FileKey { generation: newest.generation.checked_add(1).ok_or_else(full)?, ..key };
        let path = follower.path(&self.store.directory);
        let mut running: Vec<Record> = self.live.values().filter(|record| record.file == key).cloned().collect();
        let result = self.copy(key, follower, &mut running);
        let lost = match result {
            Ok(lost) => lost,
            Err(error) => {
                // It holds nothing that anyone was told of.
                self.store.abandon(follower);
                let _ = store::remove(&path);
                return Err(error);
            }
        };
        let count = running.len() as u64;
        for record in running {
            self.live.insert(record.facts.id, record);
        }
        let mut streams = 0;
        for (file, _) in self.online.values_mut().filter(|(file, _)| *file == key) {
            *file = follower;
            streams += 1;
        }
        if let Some(file) = self.store.open.get_mut(&follower) {
            (file.running, file.online) = (count, streams);
        }
        self.updates.retain(|_, (file, _)| *file != key);
        self.store.abandon(key);
        self.suspects.remove(&key);
        self.store.publish();
        self.queue.report(|status| {
            status.suspect_files += 1;
            status.lost_rows += lost;
        });
        Ok(follower)
    }

    fn copy(&mut self, from: FileKey, to: FileKey, running: &mut [Record]) -> Result<u64, FileError> {
        self.store.file(to)?;
        let Self { store, earlier, live, online: streams, .. } = self;
        let Store { open, next_outbox_id, obstacle, directory, .. } = store;
        let old = open.get(&from).map(|file| (&file.connection, file.outbox_rows));
        let path = to.path(directory);
        let Some(new) = open.get(&to) else { return Ok(0) };
        let connection = &new.connection;
        let (mut copied, mut closed) = (0, None);
        let fill = || -> rusqlite::Result<()> {
            pass(obstacle.as_ref(), Point::Statement, to)?;
            connection.execute_batch("BEGIN IMMEDIATE")?;
            for record in running.iter_mut() {
                record.file = to;
                record.is_written = false;
                record.write(connection)?;
            }
            for (stream, (_, publisher)) in streams.iter().filter(|(_, (file, _))| *file == from) {
                online::write(connection, stream, *publisher)?;
            }
            if let Some((old, _)) = old {
                copied = copy_outbox(old, connection, next_outbox_id)?;
            }
            if let (Some((recovery, encode)), Some((old, _))) = (earlier, old) {
                let runs = |id| live.contains_key(&id);
                closed = Some(recovery.close_elsewhere(old, new, next_outbox_id, &runs, &mut **encode)?);
            }
            connection.execute("INSERT INTO took_over (generation) VALUES (?1)", [from.generation])?;
            pass(obstacle.as_ref(), Point::Commit, to)?;
            connection.execute_batch("COMMIT")
        };
        fill().map_err(|error| FileError::Database { path, error })?;
        let had = old.map_or(0, |(_, rows)| rows);
        if let Some(new) = open.get_mut(&to) {
            new.outbox_rows = copied;
        }
        if let (Some((recovery, _)), Some(closed)) = (&mut self.earlier, closed) {
            recovery.take(&mut self.store, from, to, closed);
        }
        Ok(had.saturating_sub(copied))
    }

    /// Makes the changes to the bans; those that could not be made stay.
    fn bans(&mut self, orders: &mut Vec<BanOrder>) -> rusqlite::Result<()> {
        if orders.is_empty() {
            return Ok(());
        }
        let transaction = self.store.state.transaction()?;
        for order in orders.iter() {
            let (whom, until) = match order {
                BanOrder::Keep(ban) => (&ban.whom, Some(int(ban.until_unix_ms))),
                BanOrder::Lift(whom) => (whom, None),
            };
            let address = whom.address.to_canonical().to_string();
            let kind = whom.kind.map_or("", Kind::as_str);
            let [vhost, app, stream] =
                whom.key.as_ref().map_or(["", "", ""], |key| [key.vhost(), key.app(), key.stream()]);
            match until {
                Some(until) => transaction
                    .prepare_cached(
                        "INSERT INTO ban (address, kind, vhost, app, stream, until_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                         ON CONFLICT DO UPDATE SET until_ms = MAX(until_ms, excluded.until_ms)",
                    )?
                    .execute(params![address, kind, vhost, app, stream, until])?,
                None => transaction
                    .prepare_cached(
                        "DELETE FROM ban WHERE address = ?1 AND kind = ?2 AND vhost = ?3 AND app = ?4 AND stream = ?5",
                    )?
                    .execute(params![address, kind, vhost, app, stream])?,
            };
        }
        transaction.commit()?;
        orders.clear();
        Ok(())
    }

    /// Makes room in spools that are too full: updates go first, then the oldest of the others, and what must be told
    /// never. Whether anything left.
    fn trim(&mut self) -> Result<bool, FileError> {
        let max = self.settings.spool_bytes;
        let mut trimmed = false;
        let full: Vec<Arc<str>> =
            self.spools.iter().filter(|(_, bytes)| **bytes > max).map(|(sink, _)| Arc::clone(sink)).collect();
        for sink in full {
            for weight in [Weight::Update, Weight::Other] {
                for file in self.store.open.values_mut().filter(|file| !self.suspects.contains(&file.key)) {
                    while file.outbox_rows > 0 && self.spools.get(&sink).is_some_and(|bytes| *bytes > max) {
                        let path = file.key.path(&self.store.directory);
                        let freed = trim(&file.connection, &sink, weight)
                            .map_err(|error| FileError::Database { path, error })?;
                        if freed.is_empty() {
                            break;
                        }
                        trimmed = true;
                        let rows = freed.len() as u64;
                        let bytes: u64 = freed.iter().sum();
                        file.outbox_rows = file.outbox_rows.saturating_sub(rows);
                        self.spools.entry(Arc::clone(&sink)).and_modify(|held| *held = held.saturating_sub(bytes));
                        self.queue.report(|status| match weight {
                            Weight::Update => status.dropped.tells_update += rows,
                            _ => status.dropped.tells_other += rows,
                        });
                    }
                }
            }
        }
        Ok(trimmed)
    }

    /// What is done when there is time: old days are closed, and removed when theirs has come.
    fn chores(&mut self) {
        let now = Instant::now();
        if now < self.chores_at || !self.suspects.is_empty() {
            return;
        }
        self.chores_at = now + CHORES_EVERY;
        let unix_ms = self.wall.unix_ms(now);
        let found = retention::tidy(&mut self.store, &self.settings, unix_ms);
        self.store.publish();
        self.queue.report(|status| {
            if let Err(error) = found {
                status.trouble = Some(error.to_string());
            }
        });
    }
}

/// What waits for each sink, in the order of their names.
fn waiting(spools: &HashMap<Arc<str>, u64>) -> Vec<(Arc<str>, u64)> {
    let mut waiting: Vec<_> = spools.iter().map(|(sink, bytes)| (Arc::clone(sink), *bytes)).collect();
    waiting.sort_unstable();
    waiting
}
