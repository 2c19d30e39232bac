//! One transaction of the writer: the rows of every session that it touches, once each, and all that is told of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::params;
use rusqlite::types::ValueRef;

use crate::event::{Attempt, Event, StreamEvent, StreamWhat, Weight};
use crate::ledger::entry::{SumKey, sum_key};
use crate::ledger::queue::{Batch, Sample};
use crate::ledger::row::{self, Record, int};
use crate::ledger::store::{DayFile, Obstacle, Point, add};
use crate::ledger::tells::{delete, insert_tell};
use crate::ledger::{Entry, FileKey, Tell, Total, online};
use crate::names::{Kind, SessionId, StreamKey};
use crate::session::What;
use crate::stdx::clock::WallAnchor;

/// What one transaction reads and where it writes. It changes nothing but the file, so that a failure leaves no trace.
pub struct Transaction<'a> {
    pub file: &'a DayFile,
    pub live: &'a HashMap<SessionId, Record>,
    pub updates: &'a HashMap<(Arc<str>, SessionId), (FileKey, i64)>,
    pub wall: &'a WallAnchor,
    pub obstacle: Option<&'a Obstacle>,
    pub next_id: &'a mut i64,
}

impl Transaction<'_> {
    pub fn run(
        &mut self,
        work: &mut Work,
        group: &Group,
        batch: &Batch,
        told: &[Option<(Arc<str>, i64)>],
    ) -> rusqlite::Result<()> {
        let connection = &self.file.connection;
        self.pass(Point::Statement)?;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for index in &group.entries {
            if let Some(waiting) = batch.entries.get(*index) {
                self.entry(work, &waiting.entry)?;
            }
        }
        for (id, sample) in &group.checkpoints {
            let at_ms = self.wall.unix_ms(sample.at);
            if let Some(record) = self.record(work, *id, || None)
                && record.closed.is_none()
            {
                record.checkpoint(&sample.counters, at_ms);
            }
        }
        for record in &mut work.records {
            self.pass(Point::Statement)?;
            record.write(connection)?;
            work.rows += 1;
        }
        for (key, more) in &work.totals {
            let mut sum = self.file.totals.get(key).copied().unwrap_or_default();
            add(&mut sum, *more);
            self.file.write_total(key, sum)?;
        }
        if self.file.outbox_rows > 0 {
            for (place, row) in told.iter().enumerate() {
                let Some((sink, id)) = row else { continue };
                self.pass(Point::Statement)?;
                if let Some(bytes) = delete(connection, *id, sink)? {
                    work.told.push((place, bytes));
                }
            }
        }
        self.pass(Point::Commit)?;
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    fn entry(&mut self, work: &mut Work, entry: &Entry) -> rusqlite::Result<()> {
        let at_ms = self.wall.unix_ms(entry.event.at());
        match &*entry.event {
            Event::Session(change) => {
                let id = change.facts.id;
                let key = self.file.key;
                let unknown = || Some(Record::new(&change.facts, key));
                if let Some(record) = self.record(work, id, unknown)
                    && record.closed.is_none()
                {
                    record.apply(change, at_ms, false);
                    if let What::Closed(reason, _) = change.what {
                        let total = record.total();
                        let key = sum_key(change.facts.protocol, Some(change.facts.kind), reason);
                        add(work.totals.entry(key).or_default(), total);
                    }
                }
            }
            Event::Attempt(attempt) => self.attempt(work, attempt, at_ms)?,
            Event::Stream(StreamEvent { key, what, .. }) => match *what {
                StreamWhat::Online { publisher, .. } => {
                    self.pass(Point::Statement)?;
                    online::write(&self.file.connection, key, publisher)?;
                    work.online.push((key.clone(), Some(publisher)));
                }
                StreamWhat::Offline { .. } => {
                    self.pass(Point::Statement)?;
                    online::remove(&self.file.connection, key)?;
                    work.online.push((key.clone(), None));
                }
                StreamWhat::Idle => {}
            },
            Event::Server(_) => {}
        }
        for tell in &entry.tells {
            self.tell(work, tell, at_ms)?;
        }
        Ok(())
    }

    /// The session's row as it will be; `unknown` makes one of a session that is not on record.
    fn record<'w>(
        &self,
        work: &'w mut Work,
        id: SessionId,
        unknown: impl FnOnce() -> Option<Record>,
    ) -> Option<&'w mut Record> {
        if let Some(index) = work.index.get(&id) {
            return work.records.get_mut(*index);
        }
        let record = self.live.get(&id).cloned().or_else(unknown)?;
        work.index.insert(id, work.records.len());
        work.records.push(record);
        work.records.last_mut()
    }

    fn attempt(&self, work: &mut Work, attempt: &Attempt, at_ms: u64) -> rusqlite::Result<()> {
        self.pass(Point::Statement)?;
        let id = self.file.next_attempt + work.attempts;
        work.attempts += 1;
        work.rows += 1;
        let key = sum_key(attempt.protocol, None, attempt.reason);
        add(work.totals.entry(key).or_default(), Total { ended: 1, ..Total::default() });
        let (protocol, kind) = (attempt.protocol.as_str(), attempt.kind.map(Kind::as_str));
        let remote = attempt.remote.ip().to_canonical().to_string();
        let reason = attempt.reason.reason.as_str();
        let detail = Some(attempt.reason.detail).filter(|detail| !detail.is_empty());
        let text = |text: Option<&'static str>| text.map_or(ValueRef::Null, |text| ValueRef::Text(text.as_bytes()));
        let crc = row::checksum(&[
            ValueRef::Integer(id),
            ValueRef::Integer(int(at_ms)),
            ValueRef::Text(protocol.as_bytes()),
            text(kind),
            ValueRef::Text(remote.as_bytes()),
            ValueRef::Text(reason.as_bytes()),
            text(detail),
        ]);
        let sql = "INSERT INTO attempt (id, at_ms, protocol, kind, remote_ip, reason, detail, crc) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let mut statement = self.file.connection.prepare_cached(sql)?;
        statement.execute(params![id, int(at_ms), protocol, kind, remote, reason, detail, crc])?;
        Ok(())
    }

    fn tell(&mut self, work: &mut Work, tell: &Tell, at_ms: u64) -> rusqlite::Result<()> {
        self.pass(Point::Statement)?;
        let connection = &self.file.connection;
        let id = *self.next_id;
        if !insert_tell(connection, id, tell, at_ms)? {
            return Ok(());
        }
        *self.next_id += 1;
        work.rows += 1;
        work.spooled.push((Arc::clone(&tell.sink), tell.body.len() as u64));
        if let (Weight::Update, Some(session)) = (tell.weight, tell.session) {
            let subject = (Arc::clone(&tell.sink), session);
            let here = work.updates.iter().rev().find(|(other, _)| *other == subject).map(|(_, id)| *id);
            let before = here
                .or_else(|| self.updates.get(&subject).filter(|(file, _)| *file == self.file.key).map(|(_, id)| *id));
            if let Some(before) = before
                && let Some(bytes) = delete(connection, before, &tell.sink)?
            {
                work.replaced.push((Arc::clone(&tell.sink), bytes));
            }
            work.updates.push((subject, id));
        }
        Ok(())
    }

    fn pass(&self, point: Point) -> rusqlite::Result<()> {
        pass(self.obstacle, point, self.file.key)
    }
}

/// Buffers of one transaction, used again and again.
#[derive(Default)]
pub struct Work {
    pub records: Vec<Record>,
    pub index: HashMap<SessionId, usize>,
    pub totals: BTreeMap<SumKey, Total>,
    /// What the spools gain, and what the rows are.
    pub spooled: Vec<(Arc<str>, u64)>,
    pub updates: Vec<((Arc<str>, SessionId), i64)>,
    pub replaced: Vec<(Arc<str>, u64)>,
    /// Streams that came online, by whom, and went offline.
    pub online: Vec<(StreamKey, Option<SessionId>)>,
    /// Places in the list of what was told, with the bytes that became free.
    pub told: Vec<(usize, u64)>,
    pub rows: u64,
    pub attempts: i64,
}

/// The parts of a batch that one file gets.
#[derive(Default)]
pub struct Group {
    pub entries: Vec<usize>,
    pub checkpoints: Vec<(SessionId, Sample)>,
}

impl Work {
    pub fn clear(&mut self) {
        self.records.clear();
        self.index.clear();
        self.totals.clear();
        self.spooled.clear();
        self.updates.clear();
        self.replaced.clear();
        self.online.clear();
        self.told.clear();
        (self.rows, self.attempts) = (0, 0);
    }
}

/// Lets a test have its way.
pub fn pass(obstacle: Option<&Obstacle>, point: Point, key: FileKey) -> rusqlite::Result<()> {
    obstacle.map_or(Ok(()), |obstacle| obstacle(point, key))
}
