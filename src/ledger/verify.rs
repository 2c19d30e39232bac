//! Looks for damage in files, without changing them.
//!
//! SQLite finds what is wrong with the structure of a file, and the checksum in each row what is wrong with what it says.
//! Space that holds nothing is not looked at.

use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, Row};

use crate::ledger::row::{SELECT_ALL, SELECT_ALL_BACK, SESSION_COLUMNS, row_is_whole, session_id};
use crate::ledger::store::{self, APPLICATION, DAY_VERSION, STATE_FILE, STATE_VERSION};
use crate::ledger::{FileKey, Files};

/// What was found in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Which.
    pub path: PathBuf,
    /// Sessions that could be read and are as they were written.
    pub sessions: u64,
    /// The same of refused connections.
    pub attempts: u64,
    /// The same of what is still to be told.
    pub outbox: u64,
    /// What is damaged, with its place: the page and its offset in the file, or the row.
    pub damage: Vec<String>,
    /// The file was written by a newer version; nothing of it was looked at.
    pub is_newer: bool,
}

impl Report {
    /// True when nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty() && !self.is_newer
    }
}

/// Damage that is told of one file; a file that is worse is told in full by `PRAGMA integrity_check`.
const DAMAGE_MAX: usize = 1_000;

/// Looks at every file of a folder, those that were put aside left out.
///
/// # Errors
/// When the folder cannot be read.
pub fn verify(directory: &Path) -> std::io::Result<Vec<Report>> {
    std::fs::read_dir(directory)?;
    let mut reports = Vec::new();
    let state = directory.join(STATE_FILE);
    if state.exists() {
        reports.push(verify_state(&state));
    }
    let files = Files::offline(directory).list();
    reports.extend(files.into_iter().map(|key| verify_day(directory, key)));
    Ok(reports)
}

/// Looks at one day's file.
#[must_use]
pub fn verify_day(directory: &Path, key: FileKey) -> Report {
    look(&key.path(directory), DAY_VERSION, |connection, report| {
        let damage = &mut report.damage;
        report.sessions = scan(connection, "session", SELECT_ALL, SELECT_ALL_BACK, SESSION_COLUMNS, damage);
        report.attempts = scan(
            connection,
            "attempt",
            "SELECT id, at_ms, protocol, kind, remote_ip, reason, detail, crc FROM attempt WHERE id > ?1 ORDER BY id",
            "SELECT id, at_ms, protocol, kind, remote_ip, reason, detail, crc FROM attempt WHERE id < ?1 ORDER BY id DESC",
            7,
            damage,
        );
        report.outbox = scan(
            connection,
            "outbox",
            "SELECT id, sink, event_id, session, weight, at_ms, body, crc FROM outbox WHERE id > ?1 ORDER BY id",
            "SELECT id, sink, event_id, session, weight, at_ms, body, crc FROM outbox WHERE id < ?1 ORDER BY id DESC",
            7,
            damage,
        );
        // The first version keeps fewer sums, and does not know which streams are online; the next start of a server
        // makes it one of this.
        if connection.table_exists(None, "online").unwrap_or(true) {
            scan(
                connection,
                "online",
                "SELECT stream, app, vhost, publisher, crc FROM online WHERE stream > ?1 ORDER BY stream",
                "SELECT stream, app, vhost, publisher, crc FROM online WHERE stream < ?1 ORDER BY stream DESC",
                4,
                damage,
            );
            scan(
                connection,
                "total",
                "SELECT collector, kind, reason, detail, sessions, rx_bytes, tx_bytes, ended, crc FROM total \
                 WHERE collector > ?1 ORDER BY collector",
                "SELECT collector, kind, reason, detail, sessions, rx_bytes, tx_bytes, ended, crc FROM total \
                 WHERE collector < ?1 ORDER BY collector DESC",
                8,
                damage,
            );
        } else {
            scan(
                connection,
                "total",
                "SELECT collector, kind, sessions, rx_bytes, tx_bytes, crc FROM total WHERE collector > ?1 \
                 ORDER BY collector",
                "SELECT collector, kind, sessions, rx_bytes, tx_bytes, crc FROM total WHERE collector < ?1 \
                 ORDER BY collector DESC",
                5,
                damage,
            );
        }
    })
}

fn verify_state(path: &Path) -> Report {
    look(path, STATE_VERSION, |_, _| {})
}

fn look(path: &Path, known: i32, rows: impl FnOnce(&Connection, &mut Report)) -> Report {
    let mut report = Report { path: path.to_path_buf(), ..Report::default() };
    let run = || -> rusqlite::Result<()> {
        let connection = store::reader(path)?;
        let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let (application, version) = (number("application_id")?, number("user_version")?);
        if application == APPLICATION && version > known {
            report.is_newer = true;
            return Ok(());
        }
        if application != APPLICATION || !(1..=known).contains(&version) {
            report.damage.push(format!("header: application {application:#x} of version {version} is none of ours"));
        }
        // One that stops half-way has said what it stopped at.
        if let Err(error) = structure(&connection, &mut report.damage) {
            report.damage.push(format!("structure: {error}"));
        }
        rows(&connection, &mut report);
        Ok(())
    };
    if let Err(error) = run() {
        report.damage.push(error.to_string());
    }
    report.damage.truncate(DAMAGE_MAX);
    report
}

fn structure(connection: &Connection, damage: &mut Vec<String>) -> rusqlite::Result<()> {
    let page_bytes: u64 = connection.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0))?.into();
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({DAMAGE_MAX})"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        for line in text.lines().filter(|line| *line != "ok" && !line.starts_with("***")) {
            damage.push(match page_of(line) {
                Some(page) => format!("{line} (byte {} of the file)", page.saturating_sub(1) * page_bytes),
                None => line.to_owned(),
            });
        }
    }
    Ok(())
}

/// The page that a line of the integrity check speaks of.
fn page_of(line: &str) -> Option<u64> {
    let mut words = line.split([' ', ':']);
    words.find(|word| word.eq_ignore_ascii_case("page"))?;
    words.next()?.parse().ok()
}

/// Reads a table from its beginning and, when that ends at damage, from its end. How many rows are as they were written.
fn scan(
    connection: &Connection,
    table: &str,
    forward: &str,
    backward: &str,
    columns: usize,
    damage: &mut Vec<String>,
) -> u64 {
    let (first, end) = if matches!(table, "total" | "online") {
        (Value::Text(String::new()), Value::Blob(Vec::new()))
    } else if table == "session" {
        (Value::Blob(Vec::new()), Value::Blob(vec![0xff; 17]))
    } else {
        (Value::Integer(i64::MIN), Value::Integer(i64::MAX))
    };
    let mut whole = 0;
    let mut seen: Option<Value> = None;
    let Err(error) = each(connection, forward, &first, |row| {
        whole += u64::from(row_is_told(row, table, columns, damage)?);
        seen = Some(row.get(0)?);
        Ok(true)
    }) else {
        return whole;
    };
    damage.push(format!("{table}: {error} behind {}", seen.as_ref().map_or("its beginning".into(), name)));
    let rest = each(connection, backward, &end, |row| {
        let id: Value = row.get(0)?;
        if seen.as_ref() == Some(&id) {
            return Ok(false);
        }
        whole += u64::from(row_is_told(row, table, columns, damage)?);
        Ok(true)
    });
    if let Err(error) = rest {
        damage.push(format!("{table}: {error} from the end on"));
    }
    whole
}

fn each(
    connection: &Connection,
    sql: &str,
    from: &Value,
    mut see: impl FnMut(&Row<'_>) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([from])?;
    while let Some(row) = rows.next()? {
        if !see(row)? {
            break;
        }
    }
    Ok(())
}

fn row_is_told(row: &Row<'_>, table: &str, columns: usize, damage: &mut Vec<String>) -> rusqlite::Result<bool> {
    let is_whole = row_is_whole(row, columns)?;
    if !is_whole {
        damage.push(format!("{table} {}: its checksum differs", name(&row.get(0)?)));
    }
    Ok(is_whole)
}

/// A row's key as it is told.
fn name(key: &Value) -> String {
    match key {
        Value::Blob(bytes) => session_id(bytes).map_or_else(|| format!("{bytes:02x?}"), |id| id.to_string()),
        Value::Integer(id) => id.to_string(),
        Value::Text(text) => text.clone(),
        Value::Null | Value::Real(_) => "without a key".into(),
    }
}
