//! Disks that are full, slow or broken.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::ffi;
use sluicegate::ledger::{FileKey, Health, Obstacle, OnFull, Point, Settings};
use sluicegate::names::Kind;
use sluicegate::session::What;

use crate::support::*;

fn error(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

/// A disk that fails with `code` at `point` while the switch is on.
fn failing(point: Point, code: i32) -> (Arc<AtomicBool>, Obstacle) {
    let switch = Arc::new(AtomicBool::new(false));
    let is_on = Arc::clone(&switch);
    let obstacle = Arc::new(
        move |at: Point, _: FileKey| {
            if at == point && is_on.load(Ordering::Relaxed) { Err(error(code)) } else { Ok(()) }
        },
    );
    (switch, obstacle)
}

fn bed(settings: &Settings, obstacle: Obstacle) -> Bed {
    let (mut opened, start) = open(settings, NOON_MS);
    recover(&mut opened);
    Bed::started(opened.with_obstacle(obstacle), start, NOON_MS)
}

fn life(bed: &mut Bed, n: u64) {
    let facts = bed.facts(n, Kind::Publish, n);
    bed.happens(&facts, 1, n, What::Opened);
    bed.happens(&facts, 2, n, What::Started);
    bed.happens(&facts, 3, n, What::Closed(done(), bytes(n, n)));
}

fn degraded(bed: &Bed) {
    until(|| bed.status().health == Health::Degraded, || format!("{:?}", bed.status()));
}

/// Everything is there once: rows, what is told of them, and the sums.
fn whole(folder: &Path, bed: &Bed, lives: usize) {
    let found = rows(folder);
    assert_eq!(found.len(), lives);
    assert!(found.iter().all(|row| row.closed_ms.is_some() && row.seq == 3));
    let told: std::collections::BTreeSet<_> = bed.outbox().into_iter().map(|row| row.event_id).collect();
    assert_eq!((told.len(), bed.outbox().len()), (2 * lives, 2 * lives), "each start and each stop, once");
    assert_eq!(bed.status().dropped, sluicegate::ledger::Dropped::default());
}

fn sessions(folder: &Path) -> u64 {
    open(&settings(folder), NOON_MS).0.totals()[&("rtmp".to_owned(), Kind::Publish)].sessions
}

#[test]
fn fa_13_a_full_disk_degrades_the_ledger_and_heals_by_itself() {
    for (point, code) in [
        (Point::Commit, ffi::SQLITE_FULL),
        (Point::Statement, ffi::SQLITE_FULL),
        (Point::Open, ffi::SQLITE_FULL),
        (Point::Open, ffi::SQLITE_CANTOPEN),
        (Point::Commit, ffi::SQLITE_BUSY),
    ] {
        let folder = folder();
        let (is_full, obstacle) = failing(point, code);
        let mut bed = bed(&settings(folder.path()), obstacle);
        let mut lives = 0;
        if point != Point::Open {
            life(&mut bed, 0);
            bed.settle();
            lives = 1;
        }
        is_full.store(true, Ordering::Relaxed);
        let committed = bed.number;
        for n in lives..lives + 20 {
            life(&mut bed, n);
        }
        degraded(&bed);
        let status = bed.status();
        assert!(status.trouble.is_some() && status.queue_bytes > 0 && !status.refuse_new, "{status:?}");
        assert_eq!(*bed.ledger.committed().borrow(), committed, "nobody hears of what is not on record");
        assert_eq!(bed.outbox().len() as u64, 2 * lives);
        is_full.store(false, Ordering::Relaxed);
        bed.settle();
        until(|| bed.status().health == Health::Ok, || format!("{:?}", bed.status()));
        assert_eq!(bed.status().trouble, None);
        let lives = usize::try_from(lives).unwrap() + 20;
        whole(folder.path(), &bed, lives);
        bed.stop();
        assert_eq!(sessions(folder.path()), lives as u64, "{point:?}");
    }
}

#[test]
fn fa_13_newcomers_are_refused_only_where_that_is_wanted_and_only_while_it_lasts() {
    let folder = folder();
    let (is_full, obstacle) = failing(Point::Commit, ffi::SQLITE_FULL);
    let mut bed = bed(&Settings { on_full: OnFull::RefuseNew, ..settings(folder.path()) }, obstacle);
    life(&mut bed, 0);
    bed.settle();
    assert!(!bed.status().refuse_new);
    is_full.store(true, Ordering::Relaxed);
    life(&mut bed, 1);
    until(|| bed.status().refuse_new, || format!("{:?}", bed.status()));
    is_full.store(false, Ordering::Relaxed);
    until(|| !bed.status().refuse_new, || format!("{:?}", bed.status()));
    bed.stop();
}

#[test]
fn fa_13_a_disk_that_is_really_full() {
    // Only an administrator may mount; for the others the injected errors above stand for it.
    let Some(small) = tmpfs() else { return };
    let mut bed = Bed::new(&settings(&small.path));
    life(&mut bed, 0);
    bed.settle();
    let ballast = small.path.join("ballast");
    fill(&ballast);
    for n in 1..400 {
        life(&mut bed, n);
    }
    degraded(&bed);
    std::fs::remove_file(&ballast).unwrap();
    bed.settle();
    until(|| bed.status().health == Health::Ok, || format!("{:?}", bed.status()));
    whole(&small.path, &bed, 400);
    bed.stop();
    assert_eq!(sessions(&small.path), 400);
}

/// A file system of two megabytes, where one may be mounted.
struct Small {
    path: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

fn tmpfs() -> Option<Small> {
    let folder = folder();
    let path = folder.path().join("small");
    std::fs::create_dir(&path).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m,mode=0700", "small"])
        .arg(&path)
        .output();
    mount.is_ok_and(|done| done.status.success()).then_some(Small { path, _folder: folder })
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    for size in [65_536, 4_096, 512] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[test]
fn fa_14_a_slow_disk_fills_the_queue_and_holds_nobody_up() {
    let folder = folder();
    let gate = Arc::new(Mutex::new(()));
    let at_the_gate = Arc::clone(&gate);
    let obstacle: Obstacle = Arc::new(move |at, _| {
        if at == Point::Commit {
            drop(at_the_gate.lock().unwrap());
        }
        Ok(())
    });
    let settings = Settings { queue_bytes: 1 << 20, ..settings(folder.path()) };
    let mut bed = bed(&settings, obstacle);
    life(&mut bed, 0);
    bed.settle();
    let closed = gate.lock().unwrap();
    let before = Instant::now();
    for n in 1..5_000 {
        let facts = bed.facts(n, Kind::Play, 0);
        bed.happens(&facts, 1, 0, What::Opened);
    }
    let status = bed.status();
    assert!(status.queue_bytes <= status.queue_bytes_max, "{status:?}");
    assert!(status.lag <= before.elapsed() + Duration::from_secs(1));
    assert!(status.dropped.opens > 0, "{status:?}");
    drop(closed);
    bed.settle();
    let kept = rows(folder.path()).len() as u64;
    assert_eq!(kept + bed.status().dropped.opens, 5_000, "what is not there was counted");
    bed.stop();
}

#[test]
fn fa_14_after_an_error_on_commit_the_file_is_given_up_and_another_follows() {
    for (point, code) in [
        (Point::Commit, ffi::SQLITE_IOERR_FSYNC),
        (Point::Statement, ffi::SQLITE_IOERR_WRITE),
        (Point::Commit, ffi::SQLITE_CORRUPT),
    ] {
        let folder = folder();
        let failed: Arc<Mutex<Vec<FileKey>>> = Arc::default();
        let (is_broken, touched) = (Arc::new(AtomicBool::new(false)), Arc::clone(&failed));
        let switch = Arc::clone(&is_broken);
        let obstacle: Obstacle = Arc::new(move |at, file| {
            // Once broken a file stays broken; the one that follows it is on another part of the disk.
            let mut failed = touched.lock().unwrap();
            assert!(!failed.contains(&file), "a file that failed is touched again");
            if at == point && switch.swap(false, Ordering::Relaxed) {
                failed.push(file);
                return Err(error(code));
            }
            Ok(())
        });
        let mut bed = bed(&settings(folder.path()), obstacle);
        let running = bed.facts(1_000, Kind::Publish, 0);
        bed.happens(&running, 1, 0, What::Opened);
        bed.happens(&running, 2, 0, What::Started);
        for n in 0..10 {
            life(&mut bed, n);
        }
        bed.settle();
        is_broken.store(true, Ordering::Relaxed);
        for n in 10..20 {
            life(&mut bed, n);
        }
        bed.settle();
        until(|| bed.status().health == Health::Ok, || format!("{:?}", bed.status()));
        assert_eq!((bed.status().suspect_files, bed.status().lost_rows), (1, 0));
        assert_eq!(*failed.lock().unwrap(), [key(TODAY)]);
        bed.happens(&running, 3, 99, What::Closed(done(), bytes(500, 600)));
        bed.settle();
        whole(folder.path(), &bed, 21);
        let newer = "SELECT COUNT(*) FROM session WHERE closed_ms IS NOT NULL";
        assert_eq!(
            number(folder.path(), key("2026-11-20.1"), newer),
            11,
            "the ten that were tried again, and the one that ran"
        );
        assert_eq!(number(folder.path(), key(TODAY), newer), 10);
        let told = bed.outbox();
        bed.stop();
        // The next start takes away what the older file says of those that are in the newer one.
        let (mut opened, start) = open(&settings(folder.path()), NOON_MS);
        assert_eq!(recover(&mut opened).sessions, 0);
        assert_eq!(opened.totals()[&("rtmp".to_owned(), Kind::Publish)].sessions, 21);
        let bed = Bed::started(opened, start, NOON_MS);
        assert_eq!(bed.outbox(), told);
        whole(folder.path(), &bed, 21);
        assert_eq!(number(folder.path(), key(TODAY), "SELECT COUNT(*) FROM session"), 10);
        bed.stop();
        assert_eq!(sessions(folder.path()), 21);
    }
}

#[test]
fn fa_14_a_commit_that_failed_and_is_there_after_all_counts_once() {
    // The worst of it: SQLite reports an error, and what was written is on the disk all the same.
    let folder = folder();
    let switch = Arc::new(AtomicBool::new(false));
    let is_on = Arc::clone(&switch);
    let obstacle: Obstacle = Arc::new(move |at, file| {
        if at == Point::Commit && file == key(TODAY) && is_on.load(Ordering::Relaxed) {
            return Err(error(ffi::SQLITE_IOERR_FSYNC));
        }
        Ok(())
    });
    let mut bed = bed(&settings(folder.path()), obstacle);
    for n in 0..5 {
        life(&mut bed, n);
    }
    bed.settle();
    switch.store(true, Ordering::Relaxed);
    for n in 5..10 {
        life(&mut bed, n);
    }
    bed.settle();
    bed.stop();
    // Puts into the old file what the failed commit would have left: the same sessions, and their sum.
    let old = rusqlite::Connection::open(key(TODAY).path(folder.path())).unwrap();
    let newer = key("2026-11-20.1").path(folder.path());
    old.execute("ATTACH ?1 AS newer", [newer.to_str().unwrap()]).unwrap();
    old.execute_batch("INSERT INTO session SELECT * FROM newer.session; UPDATE total SET sessions = 10, rx_bytes = 45")
        .unwrap();
    drop(old);
    let (mut opened, _) = open(&settings(folder.path()), NOON_MS);
    recover(&mut opened);
    let total = opened.totals()[&("rtmp".to_owned(), Kind::Publish)];
    assert_eq!((total.sessions, total.rx_bytes), (10, 45));
    assert_eq!(number(folder.path(), key(TODAY), "SELECT COUNT(*) FROM session"), 5);
    drop(opened);
    assert_eq!(sessions(folder.path()), 10);
}

#[test]
fn fa_14_a_disk_that_stays_broken_makes_no_heap_of_files() {
    let folder = folder();
    let (is_broken, obstacle) = failing(Point::Commit, ffi::SQLITE_IOERR_FSYNC);
    let mut bed = bed(&settings(folder.path()), obstacle);
    life(&mut bed, 0);
    bed.settle();
    is_broken.store(true, Ordering::Relaxed);
    life(&mut bed, 1);
    degraded(&bed);
    std::thread::sleep(Duration::from_millis(1_500));
    let files = sluicegate::ledger::Files::offline(folder.path()).list();
    assert!(files.len() <= 2, "{files:?}");
    is_broken.store(false, Ordering::Relaxed);
    bed.settle();
    whole(folder.path(), &bed, 2);
    bed.stop();
}
