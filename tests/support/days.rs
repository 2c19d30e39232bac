//! Day files made by hand from the schema: what a ledger would have left. Names nothing of the server, so that the
//! two cannot agree on a mistake.
#![allow(dead_code, reason = "each target uses its part")]

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, params};

const SCHEMA: &str = include_str!("../../src/ledger/schema.sql");

/// A row of a day file; what it does not say has a fixed value.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub id: u128,
    pub kind: &'static str,
    pub vhost: String,
    pub app: String,
    pub stream: String,
    pub user: Option<String>,
    pub labels: Option<String>,
    pub remote_ip: String,
    pub remote_port: u16,
    pub query: Option<String>,
    pub user_agent: Option<String>,
    pub tc_url: Option<String>,
    pub opened_ms: u64,
    pub started_ms: Option<u64>,
    pub updated_ms: u64,
    pub closed_ms: Option<u64>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub reason: Option<&'static str>,
    /// In which of the day's files it is.
    pub generation: u8,
}

/// The `n`-th id of a millisecond.
pub fn id(ms: u64, n: u64) -> u128 {
    u128::from(ms) << 80 | 0x7000_8000_0000_0000_0000 | u128::from(n)
}

/// An id as everybody writes it.
pub fn text(id: u128) -> String {
    let hex = format!("{id:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A player on `live/cam` that was there from `opened_ms` to `closed_ms`, or still is.
pub fn row(n: u64, opened_ms: u64, closed_ms: Option<u64>) -> Row {
    Row {
        id: id(opened_ms, n),
        kind: "play",
        vhost: "default".into(),
        app: "live".into(),
        stream: "cam".into(),
        user: None,
        labels: None,
        remote_ip: "198.51.100.4".into(),
        remote_port: 40_000,
        query: None,
        user_agent: None,
        tc_url: None,
        opened_ms,
        started_ms: Some(opened_ms),
        updated_ms: closed_ms.unwrap_or(opened_ms),
        closed_ms,
        rx_bytes: 0,
        tx_bytes: 0,
        reason: closed_ms.map(|_| "client_done"),
        generation: 0,
    }
}

/// Adds `rows` to the files in `directory`, each to that of the day which its id names.
pub fn write<'a>(directory: &Path, rows: impl IntoIterator<Item = &'a Row>) {
    let mut files: BTreeMap<(u64, u8), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let day = u64::try_from(row.id >> 80).unwrap() / 86_400_000;
        files.entry((day, row.generation)).or_default().push(row);
    }
    for ((day, generation), rows) in files {
        let mut file = open(directory, day, generation);
        let transaction = file.transaction().unwrap();
        {
            let mut insert = transaction.prepare(INSERT).unwrap();
            for row in rows {
                insert_row(&mut insert, row);
            }
        }
        transaction.commit().unwrap();
    }
}

/// The file of a day, counted from the epoch, made where it is missing.
pub fn open(directory: &Path, day: u64, generation: u8) -> Connection {
    let calendar = Connection::open_in_memory().unwrap();
    let date: String = calendar
        .query_row("SELECT strftime('%Y-%m-%d', ?1, 'unixepoch')", [signed(day * 86_400)], |row| row.get(0))
        .unwrap();
    let name = if generation == 0 { format!("{date}.db") } else { format!("{date}.{generation}.db") };
    let file = Connection::open(directory.join(name)).unwrap();
    file.pragma_update(None, "journal_mode", "wal").unwrap();
    file.pragma_update(None, "synchronous", "off").unwrap();
    let made: i64 =
        file.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'session'", [], |row| row.get(0)).unwrap();
    if made == 0 {
        file.execute_batch(SCHEMA).unwrap();
    }
    file
}

pub const INSERT: &str = "INSERT OR REPLACE INTO session (id, kind, protocol, vhost, app, stream, user, labels, \
     remote_ip, remote_port, local, connection, shard, query, user_agent, tc_url, opened_ms, authorized_ms, \
     started_ms, updated_ms, closed_ms, seq, rx_bytes, tx_bytes, reason, detail, side) VALUES \
     (?1, ?2, 'rtmp', ?3, ?4, ?5, ?6, ?7, ?8, ?9, '192.0.2.1:1935', 281474976710658, 1, ?10, ?11, ?12, ?13, ?13, \
     ?14, ?15, ?16, 3, ?17, ?18, ?19, '', iif(?19 IS NULL, NULL, 'client'))";

pub fn insert_row(insert: &mut rusqlite::Statement<'_>, row: &Row) {
    insert
        .execute(params![
            row.id.to_be_bytes(),
            row.kind,
            row.vhost,
            row.app,
            row.stream,
            row.user,
            row.labels,
            row.remote_ip,
            row.remote_port,
            row.query,
            row.user_agent,
            row.tc_url,
            signed(row.opened_ms),
            row.started_ms.map(signed),
            signed(row.updated_ms),
            row.closed_ms.map(signed),
            signed(row.rx_bytes),
            signed(row.tx_bytes),
            row.reason,
        ])
        .unwrap();
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap()
}
