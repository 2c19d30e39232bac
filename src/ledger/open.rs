//! The start: opens what is there and looks for damage, so that what a crash left open can be closed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension};

use crate::admission::Whom;
use crate::event::Event;
use crate::ledger::outbox::Reader;
use crate::ledger::queue::Queue;
use crate::ledger::recover::Recovery;
use crate::ledger::row::{Clock, int};
use crate::ledger::store::{self, Store, Trouble, add, put_aside};
use crate::ledger::writer::Writer;
use crate::ledger::{
    Day, Earlier, Encode, FileError, FileKey, Files, Health, Ledger, Recovered, Settings, StoredBan, Tell, Totals,
    retention,
};
use crate::names::{Name, StreamKey};
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
        for (key, more) in &file.totals {
            add(totals.entry(key.clone()).or_default(), *more);
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
            && file.online == 0
            && older.is_none()
            && !damaged.contains(&key)
            && key.day < Day::of_unix_ms(wall.unix_ms(now))
        {
            store.open.remove(&key);
        }
    }
    for (key, more) in retention::removed(&store)
        .map_err(|error| FileError::Database { path: directory.join(store::STATE_FILE), error })?
    {
        add(totals.entry(key).or_default(), more);
    }
    Ok(Opened {
        store,
        settings: settings.clone(),
        wall,
        recovery: Recovery::new(Clock::new(&wall, now), totals, findings, damaged, void),
        has_failed: false,
    })
}

/// Files opened and checked, nothing running yet.
pub struct Opened {
    store: Store,
    settings: Settings,
    wall: WallAnchor,
    recovery: Recovery,
    /// The last try met trouble.
    has_failed: bool,
}

/// How long the start looks for damage, in all files together.
const CHECK_PATIENCE: Duration = Duration::from_millis(500);

impl Opened {
    /// Tells of the end of every stream that was online, and closes what was running as `server_crash`, with the counters
    /// and at the time of its last checkpoint. `encode` says what each sink must be told of an end, and both are committed together; it may be cut short and done again.
    ///
    /// # Errors
    /// When a file cannot be written for lack of room; nothing is lost by trying again, and
    /// [`start_recovering`](Self::start_recovering) does.
    pub fn recover(&mut self, encode: &mut dyn FnMut(&Event) -> Vec<Tell>) -> Result<Recovered, FileError> {
        self.recover_for(Duration::MAX, encode)
    }

    /// The same for about so long, and says what was closed by then. [`start_recovering`](Self::start_recovering) does
    /// the rest where there is one.
    ///
    /// # Errors
    /// As for [`recover`](Self::recover).
    pub fn recover_for(
        &mut self,
        patience: Duration,
        encode: &mut dyn FnMut(&Event) -> Vec<Tell>,
    ) -> Result<Recovered, FileError> {
        let result = self.recovery.run(&mut self.store, patience, encode);
        self.has_failed = result.is_err();
        result
    }

    /// Whether everything that a crash left open is closed.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        self.recovery.is_done()
    }

    /// What was found that the operator should know: files that cannot be read, rows that are damaged.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        self.recovery.findings()
    }

    /// The bans that are still in force.
    #[must_use]
    pub fn bans(&self) -> Vec<StoredBan> {
        self.read_bans().unwrap_or_default()
    }

    /// The sums over all files, removed ones included, without what is still open. To be asked after
    /// [`recover`](Self::recover); what is closed later is in [`Status::earlier`](crate::ledger::Status::earlier).
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.earlier().totals
    }

    /// The same with all sessions and attempts, by why they ended.
    #[must_use]
    pub fn earlier(&self) -> Earlier {
        self.recovery.earlier()
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
        self.start_with(|_| None)
    }

    /// The same when [`recover_for`](Self::recover_for) did not come to an end, or met trouble that may pass: the thread
    /// `ledger` goes on with it. What is recorded meanwhile waits, so that ends are told in their order, and is committed
    /// in between only where it would not fit into memory otherwise. After trouble the ledger is degraded until it is
    /// over, and nothing is committed before.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start_recovering(self, encode: Encode) -> std::io::Result<Ledger> {
        self.start_with(|recovery| Some((recovery, encode)))
    }

    fn start_with(self, earlier: impl FnOnce(Recovery) -> Option<(Recovery, Encode)>) -> std::io::Result<Ledger> {
        let Self { store, settings, wall, mut recovery, has_failed } = self;
        // They were there to be asked for.
        drop(recovery.take_findings());
        store.publish();
        let files = Arc::clone(&store.shared);
        let queue = Arc::new(Queue::new(&settings));
        let reader = Reader::start(Arc::clone(&files))?;
        let earlier = earlier(recovery);
        if has_failed && earlier.is_some() {
            queue.report(|status| status.health = Health::Degraded);
        }
        let writer = Writer::new(Arc::clone(&queue), store, settings, wall, earlier).map_err(std::io::Error::other)?;
        std::thread::Builder::new().name("ledger".into()).spawn(move || writer.run())?;
        Ok(Ledger::new(queue, reader, files))
    }

    fn read_bans(&self) -> rusqlite::Result<Vec<StoredBan>> {
        let now_ms = self.recovery.clock().now_ms();
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
