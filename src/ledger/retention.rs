//! Old days: closed when nothing happens in them any more, and removed when theirs has come.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rusqlite::{Connection, params};

use crate::ledger::entry::SumKey;
use crate::ledger::row::int;
use crate::ledger::store::{self, FileError, Store, remove, totals};
use crate::ledger::{Day, FileKey, Files, Settings, Total};

/// Pages given back to the file system at once.
const VACUUM_PAGES: u32 = 4_096;

/// Closes the files of old days in which nothing runs and nothing waits, and removes those that the settings do not
/// keep. What is removed stays in the sums.
pub fn tidy(store: &mut Store, settings: &Settings, now_ms: u64) -> Result<(), FileError> {
    let today = Day::of_unix_ms(now_ms);
    let at_rest = |store: &Store, key: FileKey| {
        store.open.get(&key).is_none_or(|file| file.running == 0 && file.outbox_rows == 0 && file.online == 0)
    };
    let old: Vec<FileKey> = store.open.keys().copied().filter(|key| key.day < today && at_rest(store, *key)).collect();
    for key in old {
        let path = key.path(&store.directory);
        if let Some(file) = store.open.remove(&key) {
            give_back(&file.connection, VACUUM_PAGES).map_err(|error| FileError::Database { path, error })?;
        }
    }
    let removed_bans = "DELETE FROM ban WHERE until_ms <= ?1";
    store.state.execute(removed_bans, [int(now_ms)]).map_err(|error| state_error(store, error))?;

    let files = store.shared.list();
    let mut sizes: u64 = files.iter().map(|key| size(&key.path(&store.directory))).sum();
    for key in files {
        let too_old = settings.retain_days > 0 && key.day.0.saturating_add(settings.retain_days) < today.0;
        let too_much = settings.retain_bytes > 0 && sizes > settings.retain_bytes;
        if key.day >= today || !(too_old || too_much) || !at_rest(store, key) {
            continue;
        }
        let path = key.path(&store.directory);
        // A file that is not open may have rows that wait since a start; it would be open then.
        store.open.remove(&key);
        let freed = size(&path);
        let sums = sums_of(&path)?;
        keep_sums(&mut store.state, &key.file_name(), &sums).map_err(|error| state_error(store, error))?;
        remove(&path).map_err(|error| FileError::Io { path, error })?;
        sizes = sizes.saturating_sub(freed);
    }
    Ok(())
}

/// Gives pages of day files that hold nothing back to the file system, and empties logs that a crash left. Of each file:
/// its name, and its bytes before and after.
///
/// # Errors
/// When a server is using the folder, or a file cannot be written.
pub fn vacuum(directory: &Path) -> Result<Vec<(String, u64, u64)>, FileError> {
    let _lock = store::lock(directory)?;
    let mut done = Vec::new();
    for key in Files::offline(directory).list() {
        let path = key.path(directory);
        let before = size(&path);
        let connection = store::day(&path)?;
        give_back(&connection, u32::MAX).map_err(|error| FileError::Database { path: path.clone(), error })?;
        drop(connection);
        done.push((key.file_name(), before, size(&path)));
    }
    Ok(done)
}

/// Gives pages that hold nothing back to the file system, and empties the log.
fn give_back(connection: &Connection, pages: u32) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    // Each row of the answer is a page that was given back.
    while rows.next()?.is_some() {}
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// The sums of a file that is about to go. One that cannot be read has none, and goes all the same.
fn sums_of(path: &Path) -> Result<BTreeMap<SumKey, Total>, FileError> {
    let read = || -> rusqlite::Result<_> { totals(&store::reader(path)?) };
    match read() {
        Ok(sums) => Ok(sums),
        Err(error) if store::Trouble::of(&error) == store::Trouble::Suspect => Ok(BTreeMap::new()),
        Err(error) => Err(FileError::Database { path: path.to_path_buf(), error }),
    }
}

fn keep_sums(state: &mut Connection, file: &str, sums: &BTreeMap<SumKey, Total>) -> rusqlite::Result<()> {
    let transaction = state.transaction()?;
    for ([collector, kind, reason, detail], total) in sums {
        let [sessions, rx, tx, ended] = [total.sessions, total.rx_bytes, total.tx_bytes, total.ended].map(int);
        transaction.execute(
            "INSERT OR REPLACE INTO removed (file, collector, kind, reason, detail, sessions, rx_bytes, tx_bytes, ended) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![file, collector, kind, reason, detail, sessions, rx, tx, ended],
        )?;
    }
    transaction.commit()
}

/// The sums of files that are not there any more. One that is there counts by itself.
pub fn removed(store: &Store) -> rusqlite::Result<BTreeMap<SumKey, Total>> {
    let mut sums: BTreeMap<SumKey, Total> = BTreeMap::new();
    let sql = "SELECT file, collector, kind, reason, detail, sessions, rx_bytes, tx_bytes, ended FROM removed";
    let mut statement = store.state.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let file: String = row.get(0)?;
        if !store.directory.join(file).exists() {
            store::add(sums.entry(store::sum_key(row, 1)?).or_default(), store::total(row, 5)?);
        }
    }
    Ok(sums)
}

fn state_error(store: &Store, error: rusqlite::Error) -> FileError {
    FileError::Database { path: store.directory.join(store::STATE_FILE), error }
}

/// What a file takes with its log.
fn size(path: &Path) -> u64 {
    let of = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    of(path) + of(Path::new(&log))
}
