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

/// What a crash leaves of a life with so many running sessions, in a folder that is there already.
fn crash_into(folder: &Path, running: u64) {
    let before = crate::support::folder();
    let mut bed = Bed::new(&settings(before.path()));
    for n in 0..running {
        let facts = bed.facts(n, Kind::Publish, 0);
        bed.happens(&facts, 1, 0, What::Opened);
        bed.happens(&facts, 2, 0, What::Started);
    }
    bed.settle();
    for entry in std::fs::read_dir(before.path()).unwrap().flatten() {
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    bed.stop();
}

/// Starts on a disk that is full: nobody waits for it, and everything is there once it is not.
fn starts_on_a_full_disk(folder: &Path, running: u64, obstacle: Option<Obstacle>, make_room: impl FnOnce()) {
    let (mut opened, start) = open(&settings(folder), NOON_MS + 60_000);
    if let Some(obstacle) = obstacle {
        opened = opened.with_obstacle(obstacle);
    }
    let error = opened.recover(&mut ends_of).unwrap_err();
    assert!(error.may_pass(), "{error}");
    let ledger = opened.start_recovering(Box::new(ends_of)).unwrap();
    let mut bed = Bed { ledger, start, start_ms: NOON_MS + 60_000, number: 0 };
    degraded(&bed);
    for n in running..running + 20 {
        life(&mut bed, n);
    }
    until(|| bed.status().trouble.is_some(), || format!("{:?}", bed.status()));
    assert_eq!(*bed.ledger.committed().borrow(), 0, "nothing is committed before the recovery");
    make_room();
    bed.settle();
    until(|| bed.status().health == Health::Ok, || format!("{:?}", bed.status()));
    let found = rows(folder);
    assert_eq!(found.len() as u64, running + 20);
    assert!(found.iter().all(|row| row.closed_ms.is_some() && row.seq == 3));
    assert_eq!(found.iter().filter(|row| row.reason.as_deref() == Some("server_crash")).count() as u64, running);
    let told: std::collections::BTreeSet<_> = bed.outbox().into_iter().map(|row| row.event_id).collect();
    assert_eq!((told.len() as u64, bed.outbox().len() as u64), (2 * found.len() as u64, 2 * found.len() as u64));
    bed.stop();
    assert_eq!(sessions(folder), running + 20);
}

#[test]
fn fa_13_a_start_on_a_full_disk_recovers_when_there_is_room() {
    let folder = folder();
    crash_into(folder.path(), 50);
    let (is_full, obstacle) = failing(Point::Commit, ffi::SQLITE_FULL);
    is_full.store(true, Ordering::Relaxed);
    starts_on_a_full_disk(folder.path(), 50, Some(obstacle), || is_full.store(false, Ordering::Relaxed));
}

#[test]
fn fa_13_a_start_on_a_disk_that_is_really_full() {
    let Some(small) = tmpfs() else { return };
    crash_into(&small.path, 200);
    let ballast = small.path.join("ballast");
    fill(&ballast);
    starts_on_a_full_disk(&small.path, 200, None, || std::fs::remove_file(&ballast).unwrap());
}

#[test]
fn fa_13_a_ledger_that_is_stopped_before_it_could_recover_ends() {
    let folder = folder();
    crash_into(folder.path(), 3);
    let (is_full, obstacle) = failing(Point::Commit, ffi::SQLITE_FULL);
    is_full.store(true, Ordering::Relaxed);
    let (opened, _) = open(&settings(folder.path()), NOON_MS + 60_000);
    let ledger = opened.with_obstacle(obstacle).start_recovering(Box::new(|_| Vec::new())).unwrap();
    until(|| ledger.status().trouble.is_some(), || format!("{:?}", ledger.status()));
    assert!(ledger.stop(Duration::from_secs(30)));
    is_full.store(false, Ordering::Relaxed);
    assert_eq!(recover(&mut open(&settings(folder.path()), NOON_MS + 60_000).0).sessions, 3, "the next start does it");
}

/// A disk whose commits fail one after the other with these, the last first; then it is well.
fn failing_commits(codes: &[i32]) -> (Arc<Mutex<Vec<i32>>>, Obstacle) {
    let left = Arc::new(Mutex::new(codes.to_vec()));
    let codes = Arc::clone(&left);
    let obstacle = Arc::new(move |at: Point, _: FileKey| {
        if at != Point::Commit {
            return Ok(());
        }
        codes.lock().unwrap().pop().map_or(Ok(()), |code| Err(error(code)))
    });
    (left, obstacle)
}

#[test]
fn fa_13_a_disk_that_fills_while_a_bad_record_is_looked_for_is_tried_again() {
    for (second, files) in [(ffi::SQLITE_FULL, 0), (ffi::SQLITE_IOERR_FSYNC, 1)] {
        let folder = folder();
        let (codes, obstacle) = failing_commits(&[]);
        let mut bed = bed(&settings(folder.path()), obstacle);
        life(&mut bed, 0);
        bed.settle();
        *codes.lock().unwrap() = vec![second, ffi::SQLITE_CONSTRAINT];
        for n in 1..5 {
            life(&mut bed, n);
        }
        bed.settle();
        until(|| bed.status().health == Health::Ok, || format!("{:?}", bed.status()));
        assert_eq!(bed.status().suspect_files, files);
        whole(folder.path(), &bed, 5);
        bed.stop();
    }
}

#[test]
fn fa_13_a_ledger_is_not_well_again_before_something_was_written() {
    let folder = folder();
    let (is_full, obstacle) = failing(Point::Commit, ffi::SQLITE_FULL);
    let mut bed = bed(&settings(folder.path()), obstacle);
    let facts = bed.facts(1, Kind::Publish, 0);
    bed.happens(&facts, 1, 0, What::Opened);
    bed.happens(&facts, 2, 0, What::Started);
    bed.settle();
    is_full.store(true, Ordering::Relaxed);
    bed.ledger.checkpoint(bed.after(10), vec![(facts.id, bytes(10, 0))]);
    degraded(&bed);
    let commits = bed.status().commits;
    // Longer than the rest after a failure: nothing waits any more, and nothing has shown that there is room.
    std::thread::sleep(Duration::from_secs(1));
    let status = bed.status();
    assert_eq!((status.health, status.commits), (Health::Degraded, commits), "{status:?}");
    is_full.store(false, Ordering::Relaxed);
    bed.ledger.checkpoint(bed.after(20), vec![(facts.id, bytes(20, 0))]);
    until(|| bed.status().health == Health::Ok, || format!("{:?}", bed.status()));
    bed.stop();
}

#[test]
fn fa_14_bans_beyond_what_may_wait_are_counted() {
    let folder = folder();
    let gate = Arc::new(Mutex::new(()));
    let at_the_gate = Arc::clone(&gate);
    let obstacle: Obstacle = Arc::new(move |at, _| {
        if at == Point::Commit {
            drop(at_the_gate.lock().unwrap());
        }
        Ok(())
    });
    let mut bed = bed(&settings(folder.path()), obstacle);
    let closed = gate.lock().unwrap();
    life(&mut bed, 0);
    let ban = |n: u32| sluicegate::ledger::StoredBan {
        whom: sluicegate::admission::Whom { address: std::net::Ipv4Addr::from(n).into(), kind: None, key: None },
        until_unix_ms: NOON_MS + DAY_MS,
    };
    // The writer may have taken some of them before it came to the gate.
    for n in 0..300_000 {
        bed.ledger.ban(ban(n));
    }
    let dropped = bed.status().dropped.bans;
    drop(closed);
    bed.settle();
    bed.stop();
    assert!(dropped > 0);
    let (opened, _) = open(&settings(folder.path()), NOON_MS);
    assert_eq!(opened.bans().len() as u64 + dropped, 300_000);
}

#[test]
fn what_waits_for_each_sink_is_told_in_the_status() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    let expected = |bed: &Bed| bed.outbox().iter().map(|row| row.body.len() as u64).sum::<u64>();
    life(&mut bed, 0);
    bed.settle();
    let spools =
        |bed: &Bed| bed.status().spools.iter().map(|(sink, bytes)| (sink.to_string(), *bytes)).collect::<Vec<_>>();
    assert_eq!(spools(&bed), [(SINK.to_owned(), expected(&bed))]);
    bed.stop();
    let bed = Bed::new(&settings(folder.path()));
    assert_eq!(spools(&bed), [(SINK.to_owned(), expected(&bed))], "from the start on");
    bed.ledger.told(SINK, bed.outbox().iter().map(|row| row.id).collect());
    until(|| spools(&bed) == [(SINK.to_owned(), 0)], || format!("{:?}", bed.status()));
    bed.stop();
}
