//! A session's row: made from events, written, checked, and read back as facts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crc32fast::Hasher;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, ToSql, params};
use smallvec::SmallVec;

use crate::ledger::{FileKey, Total};
use crate::names::{ConnectionId, Kind, Name, Protocol, SessionId, ShardId, StreamKey};
use crate::session::{Change, CloseReason, Counters, Facts, Labels, What};
use crate::stdx::clock::WallAnchor;

/// A session as its row says.
#[derive(Clone)]
pub struct Record {
    pub facts: Arc<Facts>,
    /// The file that its row is in.
    pub file: FileKey,
    pub authorized_ms: Option<u64>,
    pub started_ms: Option<u64>,
    pub updated_ms: u64,
    pub closed: Option<Closed>,
    pub seq: u32,
    pub counters: Counters,
    /// The checksum as far as the facts, which most writes leave as they are.
    prefix: Hasher,
    /// True when the file holds a row whose facts are these.
    pub is_written: bool,
}

/// How a session ended.
#[derive(Clone, Copy)]
pub struct Closed {
    pub at_ms: u64,
    pub reason: CloseReason,
    /// Concluded after a crash.
    pub recovered: bool,
}

impl Record {
    /// A session of which nothing is on record.
    pub fn new(facts: &Arc<Facts>, file: FileKey) -> Self {
        Self::with_prefix(facts, file, prefix(facts))
    }

    fn with_prefix(facts: &Arc<Facts>, file: FileKey, prefix: Hasher) -> Self {
        Self {
            facts: Arc::clone(facts),
            file,
            authorized_ms: None,
            started_ms: None,
            updated_ms: facts.opened_unix_ms,
            closed: None,
            seq: 0,
            counters: Counters::default(),
            prefix,
            is_written: false,
        }
    }

    /// Takes in what happened at `at_ms`.
    pub fn apply(&mut self, change: &Change, at_ms: u64, recovered: bool) {
        if !Arc::ptr_eq(&self.facts, &change.facts) {
            self.facts = Arc::clone(&change.facts);
            self.prefix = prefix(&self.facts);
            self.is_written = false;
        }
        self.seq = self.seq.max(change.seq);
        self.updated_ms = self.updated_ms.max(at_ms);
        match change.what {
            What::Authorized => self.authorized_ms = self.authorized_ms.or(Some(at_ms)),
            What::Started => self.started_ms = self.started_ms.or(Some(at_ms)),
            What::Updated(counters) => self.count(&counters),
            What::Closed(reason, counters) => {
                self.count(&counters);
                self.closed = Some(Closed { at_ms, reason, recovered });
            }
            What::Opened
            | What::Altered
            | What::Overflowed { .. }
            | What::Stalled
            | What::Recovered
            | What::Denied(_) => {}
        }
    }

    /// Takes in the counters that the session had at `at_ms`. Totals never fall: smaller ones are late.
    pub fn checkpoint(&mut self, counters: &Counters, at_ms: u64) {
        self.count(counters);
        self.updated_ms = self.updated_ms.max(at_ms);
    }

    fn count(&mut self, news: &Counters) {
        let have = &mut self.counters;
        for (have, told) in [
            (&mut have.rx_bytes, news.rx_bytes),
            (&mut have.tx_bytes, news.tx_bytes),
            (&mut have.rx_media_bytes, news.rx_media_bytes),
            (&mut have.tx_media_bytes, news.tx_media_bytes),
            (&mut have.rx_frames, news.rx_frames),
            (&mut have.tx_frames, news.tx_frames),
            (&mut have.dropped_frames, news.dropped_frames),
            (&mut have.overflows, news.overflows),
            (&mut have.queue_peak_bytes, news.queue_peak_bytes),
        ] {
            *have = told.max(*have);
        }
    }

    /// What a session that has ended adds to the sums.
    pub fn total(&self) -> Total {
        let counters = &self.counters;
        let started = Total { sessions: 1, rx_bytes: counters.rx_bytes, tx_bytes: counters.tx_bytes, ended: 1 };
        if self.started_ms.is_some() { started } else { Total { ended: 1, ..Total::default() } }
    }

    /// Writes the row as it is now. A row that is there and has the same facts is only moved on, which touches no
    /// index until the session ends.
    pub fn write(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let moving = self.moving();
        let mut crc = self.prefix.clone();
        moving.hash(&mut crc);
        let crc = crc.finalize();
        if self.is_written && moving.move_on(connection, &id_bytes(self.facts.id), crc)? {
            return Ok(());
        }
        let facts = &*self.facts;
        let mut statement = connection.prepare_cached(WRITE)?;
        let labels = labels_text(&facts.labels);
        statement.execute(params![
            &id_bytes(facts.id)[..],
            facts.kind.as_str(),
            facts.protocol.as_str(),
            facts.key.vhost(),
            facts.key.app(),
            facts.key.stream(),
            facts.user.as_deref(),
            labels,
            facts.remote.ip().to_canonical().to_string(),
            facts.remote.port(),
            facts.local.to_string(),
            connection_number(facts.connection),
            facts.shard.0,
            facts.query.as_deref(),
            facts.user_agent.as_deref(),
            facts.referrer.as_deref(),
            facts.tc_url.as_deref(),
            facts.swf_url.as_deref(),
            int(facts.opened_unix_ms),
            moving.authorized_ms,
            moving.started_ms,
            moving.updated_ms,
            moving.closed_ms,
            moving.seq,
            moving.counters[0],
            moving.counters[1],
            moving.counters[2],
            moving.counters[3],
            moving.counters[4],
            moving.counters[5],
            moving.counters[6],
            moving.counters[7],
            moving.counters[8],
            moving.reason,
            moving.detail,
            moving.side,
            moving.recovered,
            crc,
        ])?;
        self.is_written = true;
        Ok(())
    }

    fn moving(&self) -> Moving {
        let c = &self.counters;
        let closed = self.closed.as_ref();
        Moving {
            authorized_ms: self.authorized_ms.map(int),
            started_ms: self.started_ms.map(int),
            updated_ms: int(self.updated_ms),
            closed_ms: closed.map(|closed| int(closed.at_ms)),
            seq: self.seq,
            counters: [
                c.rx_bytes,
                c.tx_bytes,
                c.rx_media_bytes,
                c.tx_media_bytes,
                c.rx_frames,
                c.tx_frames,
                c.dropped_frames,
                c.overflows,
                c.queue_peak_bytes,
            ]
            .map(int),
            reason: closed.map(|closed| closed.reason.reason.as_str()),
            detail: closed.map(|closed| closed.reason.detail).filter(|detail| !detail.is_empty()),
            side: closed.map(|closed| closed.reason.reason.side().as_str()),
            recovered: closed.is_some_and(|closed| closed.recovered),
        }
    }
}

/// The columns that change in a session's life, as they are written.
struct Moving {
    authorized_ms: Option<i64>,
    started_ms: Option<i64>,
    updated_ms: i64,
    closed_ms: Option<i64>,
    seq: u32,
    counters: [i64; 9],
    reason: Option<&'static str>,
    detail: Option<&'static str>,
    side: Option<&'static str>,
    recovered: bool,
}

impl Moving {
    fn hash(&self, crc: &mut Hasher) {
        for number in
            [self.authorized_ms, self.started_ms, Some(self.updated_ms), self.closed_ms, Some(self.seq.into())]
        {
            hash_int(crc, number);
        }
        for number in self.counters {
            hash_int(crc, Some(number));
        }
        for text in [self.reason, self.detail, self.side] {
            hash_text(crc, text);
        }
        hash_int(crc, Some(self.recovered.into()));
    }

    /// Changes the row of `id`; false when there is none.
    fn move_on(&self, connection: &Connection, id: &[u8], crc: u32) -> rusqlite::Result<bool> {
        let mut statement = connection.prepare_cached(if self.closed_ms.is_some() { CLOSE } else { MOVE_ON })?;
        let c = &self.counters;
        let mut values: SmallVec<[&dyn ToSql; 20]> = SmallVec::new();
        values.extend_from_slice(&[&id, &crc, &self.authorized_ms, &self.started_ms, &self.updated_ms, &self.seq]);
        values.extend(c.iter().map(|counter| counter as &dyn ToSql));
        if self.closed_ms.is_some() {
            values.extend_from_slice(&[&self.closed_ms, &self.reason, &self.detail, &self.side, &self.recovered]);
        }
        Ok(statement.execute(&values[..])? == 1)
    }
}

/// A row that cannot be what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    pub what: String,
}

/// Reads a row that [`SELECT_OPEN`] gave, checks it, and says what it tells. Instants are put where they would be on
/// this process's clock, which may be before the machine's start.
pub fn read_open(row: &Row<'_>, file: FileKey, wall: &Clock) -> rusqlite::Result<Result<Record, Damaged>> {
    let damaged = |what: &str| {
        let id = row.get_ref(0).ok().and_then(|id| id.as_blob().ok().and_then(session_id));
        let id = id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
        Ok(Err(Damaged { what: format!("session {id}: {what}") }))
    };
    // Whoever changes the row needs the checksum as far as the facts, which is on the way to that of the whole.
    let prefix = hash_columns(Hasher::new(), row, 0..FACTS_COLUMNS)?;
    if !is_crc(row, SESSION_COLUMNS, hash_columns(prefix.clone(), row, FACTS_COLUMNS..SESSION_COLUMNS)?)? {
        return damaged("its checksum differs");
    }
    match facts(row, wall) {
        Some(facts) => {
            let mut record = Record::with_prefix(&Arc::new(facts), file, prefix);
            record.authorized_ms = millis(row, 19);
            record.started_ms = millis(row, 20);
            record.updated_ms = millis(row, 21).unwrap_or(record.updated_ms);
            record.seq = row.get(23)?;
            let c = &mut record.counters;
            for (index, counter) in [
                &mut c.rx_bytes,
                &mut c.tx_bytes,
                &mut c.rx_media_bytes,
                &mut c.tx_media_bytes,
                &mut c.rx_frames,
                &mut c.tx_frames,
                &mut c.dropped_frames,
                &mut c.overflows,
                &mut c.queue_peak_bytes,
            ]
            .into_iter()
            .enumerate()
            {
                *counter = millis(row, 24 + index).unwrap_or(0);
            }
            record.is_written = true;
            Ok(Ok(record))
        }
        None => damaged("it holds what this version does not know"),
    }
}

/// What turns milliseconds on record into instants of this process.
pub struct Clock {
    now: Instant,
    now_ms: u64,
}

impl Clock {
    pub fn new(wall: &WallAnchor, now: Instant) -> Self {
        Self { now, now_ms: wall.unix_ms(now) }
    }

    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The instant of `unix_ms`. What would be in the future, because the wall clock was set back, is now.
    pub fn instant(&self, unix_ms: u64) -> Instant {
        let ago = Duration::from_millis(self.now_ms.saturating_sub(unix_ms));
        self.now.checked_sub(ago).unwrap_or(self.now)
    }
}

fn facts(row: &Row<'_>, wall: &Clock) -> Option<Facts> {
    let text = |index: usize| row.get_ref(index).ok()?.as_str_or_null().ok()?.map(Box::<str>::from);
    let kind_text = text(1)?;
    let protocol_text = text(2)?;
    let key = StreamKey::new(&Name::app(&text(3)?).ok()?, &Name::app(&text(4)?).ok()?, &Name::stream(&text(5)?).ok()?);
    let labels: Labels = match text(7) {
        None => Labels::default(),
        Some(text) => labels_of(&text)?,
    };
    let port: u16 = row.get(9).ok()?;
    let opened_unix_ms = millis(row, 18)?;
    Some(Facts {
        id: session_id(row.get_ref(0).ok()?.as_blob().ok()?)?,
        connection: ConnectionId(row.get::<_, i64>(11).ok()?.cast_unsigned()),
        shard: ShardId(row.get(12).ok()?),
        kind: *Kind::ALL.iter().find(|kind| *kind.as_str() == *kind_text)?,
        protocol: *Protocol::ALL.iter().find(|protocol| *protocol.as_str() == *protocol_text)?,
        key,
        asked_key: None,
        remote: std::net::SocketAddr::new(text(8)?.parse().ok()?, port),
        local: text(10)?.parse().ok()?,
        opened_at: wall.instant(opened_unix_ms),
        opened_unix_ms,
        query: text(13),
        user_agent: text(14),
        referrer: text(15),
        tc_url: text(16),
        swf_url: text(17),
        user: text(6),
        labels,
    })
}

/// Whether a row is what was written: its last column is the checksum of the `columns` before it.
pub fn row_is_whole(row: &Row<'_>, columns: usize) -> rusqlite::Result<bool> {
    is_crc(row, columns, hash_columns(Hasher::new(), row, 0..columns)?)
}

fn hash_columns(mut crc: Hasher, row: &Row<'_>, columns: std::ops::Range<usize>) -> rusqlite::Result<Hasher> {
    for index in columns {
        hash_value(&mut crc, row.get_ref(index)?);
    }
    Ok(crc)
}

fn is_crc(row: &Row<'_>, column: usize, crc: Hasher) -> rusqlite::Result<bool> {
    Ok(matches!(row.get_ref(column)?, ValueRef::Integer(found) if found == i64::from(crc.finalize())))
}

/// The checksum of values in the order of their columns.
pub fn checksum(values: &[ValueRef<'_>]) -> u32 {
    let mut crc = Hasher::new();
    for value in values {
        hash_value(&mut crc, *value);
    }
    crc.finalize()
}

fn hash_value(crc: &mut Hasher, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => hash_int(crc, None),
        ValueRef::Integer(number) => hash_int(crc, Some(number)),
        ValueRef::Real(number) => hash_bytes(crc, 4, &number.to_le_bytes()),
        ValueRef::Text(text) => hash_bytes(crc, 2, text),
        ValueRef::Blob(bytes) => hash_bytes(crc, 3, bytes),
    }
}

fn hash_int(crc: &mut Hasher, number: Option<i64>) {
    match number {
        None => crc.update(&[0]),
        Some(number) => {
            let mut bytes = [1; 9];
            bytes[1..].copy_from_slice(&number.to_le_bytes());
            crc.update(&bytes);
        }
    }
}

fn hash_text(crc: &mut Hasher, text: Option<&str>) {
    match text {
        None => hash_int(crc, None),
        Some(text) => hash_bytes(crc, 2, text.as_bytes()),
    }
}

/// The length goes first, so that no two rows run into each other.
fn hash_bytes(crc: &mut Hasher, tag: u8, bytes: &[u8]) {
    crc.update(&[tag]);
    crc.update(&(bytes.len() as u64).to_le_bytes());
    crc.update(bytes);
}

/// The checksum as far as the columns of the facts.
fn prefix(facts: &Facts) -> Hasher {
    let mut crc = Hasher::new();
    hash_bytes(&mut crc, 3, &id_bytes(facts.id));
    for text in [facts.kind.as_str(), facts.protocol.as_str(), facts.key.vhost(), facts.key.app(), facts.key.stream()] {
        hash_text(&mut crc, Some(text));
    }
    hash_text(&mut crc, facts.user.as_deref());
    hash_text(&mut crc, labels_text(&facts.labels).as_deref());
    hash_text(&mut crc, Some(&facts.remote.ip().to_canonical().to_string()));
    hash_int(&mut crc, Some(facts.remote.port().into()));
    hash_text(&mut crc, Some(&facts.local.to_string()));
    hash_int(&mut crc, Some(connection_number(facts.connection)));
    hash_int(&mut crc, Some(facts.shard.0.into()));
    for text in [&facts.query, &facts.user_agent, &facts.referrer, &facts.tc_url, &facts.swf_url] {
        hash_text(&mut crc, text.as_deref());
    }
    hash_int(&mut crc, Some(int(facts.opened_unix_ms)));
    crc
}

/// A session's id as its row has it.
pub fn id_bytes(id: SessionId) -> [u8; 16] {
    id.as_u128().to_be_bytes()
}

/// A session's id from its row.
pub fn session_id(bytes: &[u8]) -> Option<SessionId> {
    Some(SessionId::from_u128(u128::from_be_bytes(bytes.try_into().ok()?)))
}

/// SQLite's integers end at 2^63; no counter and no time of ours gets there.
pub fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn connection_number(connection: ConnectionId) -> i64 {
    connection.0.cast_signed()
}

fn millis(row: &Row<'_>, index: usize) -> Option<u64> {
    row.get::<_, Option<i64>>(index).ok()?.and_then(|number| u64::try_from(number).ok())
}

/// A JSON object in the order that the back end gave; nothing when there are none. A name may be there twice.
fn labels_text(labels: &Labels) -> Option<String> {
    if labels.is_empty() {
        return None;
    }
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{}:{}", quoted(name), quoted(value))).collect();
    Some(format!("{{{}}}", pairs.join(",")))
}

fn labels_of(text: &str) -> Option<Labels> {
    /// The pairs of an object in their order, which a map would not keep.
    struct Pairs(Vec<(Box<str>, Box<str>)>);
    impl<'de> serde::Deserialize<'de> for Pairs {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Pairs;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object of texts")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                    let mut pairs = Vec::new();
                    while let Some(pair) = map.next_entry()? {
                        pairs.push(pair);
                    }
                    Ok(Pairs(pairs))
                }
            }
            from.deserialize_map(Visitor)
        }
    }
    serde_json::from_str::<Pairs>(text).ok().map(|pairs| pairs.0.into())
}

/// How many columns of a session's row are its facts; they come first.
const FACTS_COLUMNS: usize = 19;

/// How many columns of a session's row come before its checksum.
pub const SESSION_COLUMNS: usize = 37;

/// Every column of a session's row, the checksum last.
macro_rules! columns {
    () => {
        "id, kind, protocol, vhost, app, stream, user, labels, remote_ip, remote_port, local, connection, shard, \
         query, user_agent, referrer, tc_url, swf_url, opened_ms, authorized_ms, started_ms, updated_ms, closed_ms, \
         seq, rx_bytes, tx_bytes, rx_media_bytes, tx_media_bytes, rx_frames, tx_frames, dropped_frames, overflows, \
         queue_peak_bytes, reason, detail, side, recovered, crc"
    };
}

/// Sessions without an end, behind an id and in the order of opening, a limited number of them.
pub const SELECT_OPEN: &str =
    concat!("SELECT ", columns!(), " FROM session WHERE closed_ms IS NULL AND id > ?1 ORDER BY id LIMIT ?2");

/// One session.
pub const SELECT_ONE: &str = concat!("SELECT ", columns!(), " FROM session WHERE id = ?1");

/// All sessions behind an id, in the order of opening.
pub const SELECT_ALL: &str = concat!("SELECT ", columns!(), " FROM session WHERE id > ?1 ORDER BY id");

/// All sessions before an id, the last first.
pub const SELECT_ALL_BACK: &str = concat!("SELECT ", columns!(), " FROM session WHERE id < ?1 ORDER BY id DESC");

const WRITE: &str = concat!(
    "INSERT INTO session (",
    columns!(),
    ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, \
     ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38) ON CONFLICT (id) DO UPDATE SET \
     vhost = excluded.vhost, app = excluded.app, stream = excluded.stream, user = excluded.user, \
     labels = excluded.labels, authorized_ms = excluded.authorized_ms, started_ms = excluded.started_ms, \
     updated_ms = excluded.updated_ms, closed_ms = excluded.closed_ms, seq = excluded.seq, \
     rx_bytes = excluded.rx_bytes, tx_bytes = excluded.tx_bytes, rx_media_bytes = excluded.rx_media_bytes, \
     tx_media_bytes = excluded.tx_media_bytes, rx_frames = excluded.rx_frames, tx_frames = excluded.tx_frames, \
     dropped_frames = excluded.dropped_frames, overflows = excluded.overflows, \
     queue_peak_bytes = excluded.queue_peak_bytes, reason = excluded.reason, detail = excluded.detail, \
     side = excluded.side, recovered = excluded.recovered, crc = excluded.crc"
);

// An `UPDATE` rewrites every index that has one of its columns, whether the value changes or not. What happens every few
// seconds to every session names none of those.
macro_rules! move_on {
    () => {
        "UPDATE session SET crc = ?2, authorized_ms = ?3, started_ms = ?4, updated_ms = ?5, seq = ?6, rx_bytes = ?7, \
         tx_bytes = ?8, rx_media_bytes = ?9, tx_media_bytes = ?10, rx_frames = ?11, tx_frames = ?12, \
         dropped_frames = ?13, overflows = ?14, queue_peak_bytes = ?15"
    };
}

const MOVE_ON: &str = concat!(move_on!(), " WHERE id = ?1");

const CLOSE: &str =
    concat!(move_on!(), ", closed_ms = ?16, reason = ?17, detail = ?18, side = ?19, recovered = ?20 WHERE id = ?1");
