//! A server's worth of events around a ledger in a folder of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sluicegate::event::{Event, Weight};
use sluicegate::ledger::{Entry, FileKey, Ledger, Opened, OutboxRow, Recovered, Settings, Status, Tell};
use sluicegate::names::{ConnectionId, Kind, Name, Protocol, SessionId, ShardId, StreamKey};
use sluicegate::session::{Change, CloseReason, Counters, Facts, Reason, What};
use sluicegate::stdx::clock::WallAnchor;

/// Noon of 2026-11-20.
pub const NOON_MS: u64 = 1_795_176_000_000;
pub const DAY_MS: u64 = 86_400_000;
/// The only sink of most tests.
pub const SINK: &str = "backend";

/// A folder for one test.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A folder as a crash leaves it: what is on disk, while the server still runs.
pub fn crashed(from: &Path) -> tempfile::TempDir {
    let to = folder();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

/// Settings that commit at once.
pub fn settings(folder: &Path) -> Settings {
    Settings {
        directory: folder.to_str().unwrap().to_owned(),
        commit_every: Duration::from_millis(2),
        ..Settings::default()
    }
}

/// A ledger that runs, with a clock that says what the test wants.
pub struct Bed {
    pub ledger: Ledger,
    pub start: Instant,
    pub start_ms: u64,
    pub number: u64,
}

/// Opens a ledger at `start_ms`.
pub fn open(settings: &Settings, start_ms: u64) -> (Opened, Instant) {
    let start = Instant::now();
    let wall = WallAnchor::at(start, Duration::from_millis(start_ms));
    (sluicegate::ledger::open(settings, wall, start).unwrap(), start)
}

/// Recovers with one tell for each end, as a server with one sink would.
pub fn recover(opened: &mut Opened) -> Recovered {
    opened.recover(&mut ends_of).unwrap()
}

impl Bed {
    pub fn new(settings: &Settings) -> Self {
        Self::at(settings, NOON_MS)
    }

    pub fn at(settings: &Settings, start_ms: u64) -> Self {
        let (mut opened, start) = open(settings, start_ms);
        recover(&mut opened);
        Self::started(opened, start, start_ms)
    }

    pub fn started(opened: Opened, start: Instant, start_ms: u64) -> Self {
        Self { ledger: opened.start().unwrap(), start, start_ms, number: 0 }
    }

    /// The instant `ms` after the start.
    pub fn after(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// Facts of a session that opens `ms` after the start.
    pub fn facts(&self, n: u64, kind: Kind, ms: u64) -> Arc<Facts> {
        facts(n, kind, self.after(ms), self.start_ms + ms)
    }

    /// Records an event with the tells given, and returns its number.
    pub fn record(&mut self, event: Event, tells: Vec<Tell>) -> u64 {
        self.number += 1;
        self.ledger.record(Entry { number: self.number, event: Arc::new(event), tells });
        self.number
    }

    /// Records what happened to a session `ms` after the start; starts and ends are to be told.
    pub fn happens(&mut self, facts: &Arc<Facts>, seq: u32, ms: u64, what: What) -> u64 {
        let change = Change { facts: Arc::clone(facts), seq, at: self.after(ms), what };
        let tells = match what {
            What::Started | What::Closed(..) => vec![tell_of(&change, Weight::Must)],
            _ => Vec::new(),
        };
        self.record(Event::Session(change), tells)
    }

    /// Waits until everything recorded is committed.
    pub fn settle(&self) {
        self.wait_for(self.number);
    }

    pub fn wait_for(&self, number: u64) {
        let committed = self.ledger.committed();
        until(|| *committed.borrow() >= number, || format!("event {number} is not committed: {:?}", self.status()));
    }

    pub fn status(&self) -> Status {
        self.ledger.status()
    }

    /// What is to be told to the one sink.
    pub fn outbox(&self) -> Vec<OutboxRow> {
        self.page(SINK, 0, 1_000_000)
    }

    pub fn page(&self, sink: &str, after: i64, limit: usize) -> Vec<OutboxRow> {
        block_on(self.ledger.outbox(sink, after, limit)).unwrap_or_default()
    }

    pub fn stop(self) {
        assert!(self.ledger.stop(Duration::from_secs(30)), "the ledger does not end");
    }
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// Waits for something that takes as long as it takes.
pub fn until(mut done: impl FnMut() -> bool, complaint: impl FnOnce() -> String) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < patience, "{}", complaint());
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn name(text: &str) -> Name {
    Name::stream(text).unwrap()
}

/// A session from a camera or a viewer like any other.
pub fn facts(n: u64, kind: Kind, at: Instant, unix_ms: u64) -> Arc<Facts> {
    let mut tail = [0; 10];
    tail[2..].copy_from_slice(&n.to_be_bytes());
    Arc::new(Facts {
        id: SessionId::new(unix_ms, tail),
        connection: ConnectionId::new(ShardId(1), n),
        shard: ShardId(1),
        kind,
        protocol: Protocol::Rtmp,
        key: StreamKey::new(&name("default"), &name("live"), &name(&format!("cam{}", n % 7))),
        asked_key: None,
        remote: format!("[::ffff:192.0.2.{}]:{}", n % 250, 1_024 + n % 60_000).parse().unwrap(),
        local: "198.51.100.1:1935".parse().unwrap(),
        opened_at: at,
        opened_unix_ms: unix_ms,
        query: Some("token=secret".into()),
        user_agent: Some("FMLE/3.0 \"ключ\"".into()),
        referrer: None,
        tc_url: Some("rtmp://edge.example/live".into()),
        swf_url: None,
        user: None,
        labels: Arc::default(),
    })
}

pub fn tell_of(change: &Change, weight: Weight) -> Tell {
    let event_id = format!("{}-{}", change.facts.id, change.seq);
    let body = format!("{}:{}", Event::Session(change.clone()).name(), event_id).into_bytes().into();
    Tell { sink: SINK.into(), event_id, weight, session: Some(change.facts.id), body }
}

/// What a server with one sink tells of an end.
pub fn ends_of(event: &Event) -> Vec<Tell> {
    let Event::Session(change) = event else {
        let event_id = sluicegate::event::event_id(event, "start", 0);
        let body = format!("{}:{event_id}", event.name()).into_bytes().into();
        return vec![Tell { sink: SINK.into(), event_id, weight: Weight::Must, session: event.session_id(), body }];
    };
    vec![tell_of(change, Weight::Must)]
}

pub fn bytes(rx_bytes: u64, tx_bytes: u64) -> Counters {
    Counters { rx_bytes, tx_bytes, rx_frames: rx_bytes / 1_000, tx_frames: tx_bytes / 1_000, ..Counters::default() }
}

pub fn done() -> CloseReason {
    CloseReason::new(Reason::ClientDone)
}

/// A day file as an independent reader sees it.
pub fn sqlite(folder: &Path, key: FileKey) -> Connection {
    Connection::open_with_flags(key.path(folder), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

/// One number from a day file.
pub fn number(folder: &Path, key: FileKey, sql: &str) -> i64 {
    sqlite(folder, key).query_row(sql, [], |row| row.get(0)).unwrap()
}

pub fn key(text: &str) -> FileKey {
    FileKey::parse(&format!("{text}.db")).unwrap()
}

pub const TODAY: &str = "2026-11-20";

/// A session's row: id, when it started, closed, seq, received, sent, reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    pub id: SessionId,
    pub started_ms: Option<i64>,
    pub updated_ms: i64,
    pub closed_ms: Option<i64>,
    pub seq: u32,
    pub rx_bytes: i64,
    pub tx_bytes: i64,
    pub reason: Option<String>,
    pub recovered: bool,
}

/// Every session of a folder, each once: what the last file of its day says.
pub fn rows(folder: &Path) -> Vec<Row> {
    let mut found = std::collections::BTreeMap::new();
    for key in sluicegate::ledger::Files::offline(folder).list() {
        let connection = sqlite(folder, key);
        let sql =
            "SELECT id, started_ms, updated_ms, closed_ms, seq, rx_bytes, tx_bytes, reason, recovered FROM session";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| {
            Ok(Row {
                id: SessionId::from_u128(u128::from_be_bytes(row.get::<_, Vec<u8>>(0)?.try_into().unwrap())),
                started_ms: row.get(1)?,
                updated_ms: row.get(2)?,
                closed_ms: row.get(3)?,
                seq: row.get(4)?,
                rx_bytes: row.get(5)?,
                tx_bytes: row.get(6)?,
                reason: row.get(7)?,
                recovered: row.get(8)?,
            })
        });
        for row in rows.unwrap() {
            let row = row.unwrap();
            found.insert(row.id, row);
        }
    }
    found.into_values().collect()
}
