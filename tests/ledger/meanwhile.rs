//! What a crash left open is closed while the server runs already.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use rusqlite::ffi;
use sluicegate::event::Event;
use sluicegate::ledger::{Dropped, Encode, Health, Ledger, Obstacle, Opened, Point, Settings};
use sluicegate::names::{Kind, SessionId};
use sluicegate::session::What;

use crate::support::*;

/// Sessions that run when the process dies, and how many of them are closed in one transaction.
const RUNNING: u64 = 10_000;
const AT_ONCE: usize = 4_000;
/// When the next life begins, after the start of the one that died.
const NEXT_MS: u64 = 60_000;

/// A folder as it is after a crash with many running.
fn crash() -> tempfile::TempDir {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    for n in 0..RUNNING {
        let facts = bed.facts(n, Kind::Publish, n / 10);
        bed.happens(&facts, 1, n / 10, What::Opened);
        bed.happens(&facts, 2, n / 10, What::Started);
    }
    bed.settle();
    let copy = crashed(folder.path());
    bed.stop();
    copy
}

/// Says what is told, and stops before each of the later transactions until it is let on.
fn in_turns() -> (Encode, Receiver<()>, Sender<()>) {
    let ((comes, arrives), (lets_on, goes)) = (channel(), channel());
    let mut count = 0;
    let encode = move |event: &Event| {
        if count > 0 && count % AT_ONCE == 0 {
            let _ = comes.send(());
            let _ = goes.recv();
        }
        count += 1;
        ends_of(event)
    };
    (Box::new(encode), arrives, lets_on)
}

fn next_life(folder: &Path, queue_bytes: u64) -> (Opened, std::time::Instant) {
    let settings = Settings { queue_bytes, ..settings(folder) };
    let (mut opened, start) = open(&settings, NOON_MS + NEXT_MS);
    let recovered = opened.recover_for(std::time::Duration::ZERO, &mut |_| panic!("there was no time for it")).unwrap();
    assert_eq!((recovered.sessions, opened.is_recovered()), (0, false));
    assert!(opened.totals().is_empty(), "{:?}", opened.totals());
    (opened, start)
}

fn bed(ledger: Ledger, start: std::time::Instant) -> Bed {
    Bed { ledger, start, start_ms: NOON_MS + NEXT_MS, number: 0 }
}

fn starts(bed: &mut Bed, n: u64) -> SessionId {
    let facts = bed.facts(n, Kind::Play, n);
    bed.happens(&facts, 1, n, What::Opened);
    bed.happens(&facts, 2, n, What::Started);
    facts.id
}

/// Everything that ran in the first life has one end, and the sums of it are right; `alive` are left as they are.
fn assert_closed_once(folder: &Path, bed: &Bed, alive: &[SessionId]) {
    let found: HashMap<SessionId, Row> = rows(folder).into_iter().map(|row| (row.id, row)).collect();
    assert_eq!(found.len() as u64, RUNNING + alive.len() as u64);
    let mut told: HashMap<Box<str>, usize> = HashMap::new();
    for row in bed.outbox() {
        *told.entry(row.event_id).or_default() += 1;
    }
    for (id, row) in &found {
        let is_alive = alive.contains(id);
        assert_eq!((row.closed_ms.is_none(), row.seq), (is_alive, if is_alive { 2 } else { 3 }), "{row:?}");
        assert_eq!(row.reason.as_deref() == Some("server_crash"), !is_alive, "{row:?}");
        assert_eq!(told.get(&*format!("{id}-2")), Some(&1), "the start of {id}");
        assert_eq!(told.get(&*format!("{id}-3")), if is_alive { None } else { Some(&1) }, "the end of {id}");
    }
    let status = bed.status();
    assert_eq!((status.health, status.dropped), (Health::Ok, Dropped::default()));
    let total = status.earlier.unwrap().totals[&("rtmp".to_owned(), Kind::Publish)];
    assert_eq!(total.sessions, RUNNING);
    let spooled = bed.outbox().iter().map(|row| row.body.len() as u64).sum();
    assert_eq!(status.spools, [(SINK.into(), spooled)]);
}

#[test]
fn fa_15_a_start_that_does_not_wait_tells_of_all_ends_before_anything_new() {
    let folder = crash();
    let (opened, start) = next_life(folder.path(), 64 << 20);
    let (encode, arrives, lets_on) = in_turns();
    let mut bed = bed(opened.start_recovering(encode).unwrap(), start);
    let alive = [starts(&mut bed, RUNNING)];
    arrives.recv().unwrap();
    let ends = || bed.outbox().iter().filter(|row| row.body.starts_with(b"session.closed")).count();
    until(|| ends() == AT_ONCE, || format!("{} ends", ends()));
    let status = bed.status();
    assert_eq!((status.health, *bed.ledger.committed().borrow()), (Health::Ok, 0), "{status:?}");
    assert_eq!(status.earlier.unwrap().totals[&("rtmp".to_owned(), Kind::Publish)].sessions, AT_ONCE as u64);
    drop(lets_on);
    bed.settle();
    assert_closed_once(folder.path(), &bed, &alive);
    let told = bed.outbox();
    let first = told.iter().position(|row| row.session == Some(alive[0])).unwrap();
    assert_eq!(first, told.len() - 1, "what is new comes last");
    bed.stop();
    let (mut opened, _) = open(&settings(folder.path()), NOON_MS + 2 * NEXT_MS);
    assert_eq!(recover(&mut opened).sessions, 1, "who ran then");
    let sums = opened.totals();
    let sessions = |kind| sums[&("rtmp".to_owned(), kind)].sessions;
    assert_eq!((sessions(Kind::Publish), sessions(Kind::Play)), (RUNNING, 1));
}

#[test]
fn fa_15_who_comes_meanwhile_is_on_record_before_memory_runs_out_and_a_second_crash_changes_nothing() {
    let folder = crash();
    let (opened, start) = next_life(folder.path(), 1 << 20);
    let (encode, arrives, lets_on) = in_turns();
    let mut bed = bed(opened.start_recovering(encode).unwrap(), start);
    arrives.recv().unwrap();
    let alive: Vec<SessionId> = (0..500).map(|n| starts(&mut bed, RUNNING + n)).collect();
    assert!(bed.status().queue_bytes > 1 << 19, "{:?}", bed.status());
    lets_on.send(()).unwrap();
    arrives.recv().unwrap();
    let on_record = *bed.ledger.committed().borrow();
    assert!(on_record > 0 && bed.status().queue_bytes <= 1 << 19, "{on_record}: {:?}", bed.status());
    // Here the process dies once more: some are closed, some are not, and some of those who came are on record.
    let copy = crashed(folder.path());
    drop(lets_on);
    bed.settle();
    until(
        || bed.status().earlier.is_some_and(|sums| sums.totals.values().any(|sum| sum.sessions == RUNNING)),
        || format!("{:?}", bed.status()),
    );
    assert_closed_once(folder.path(), &bed, &alive);
    bed.stop();

    let (mut opened, start) = open(&settings(copy.path()), NOON_MS + 2 * NEXT_MS);
    let recovered = recover(&mut opened);
    let came = rows(copy.path()).len() as u64 - RUNNING;
    assert!(came >= on_record / 2 && recovered.sessions == RUNNING - 2 * AT_ONCE as u64 + came, "{recovered:?}");
    let bed = Bed::started(opened, start, NOON_MS + 2 * NEXT_MS);
    let mut told: HashMap<Box<str>, usize> = HashMap::new();
    for row in bed.outbox() {
        *told.entry(row.event_id).or_default() += 1;
    }
    for row in rows(copy.path()) {
        assert!(row.closed_ms.is_some(), "{row:?}");
        assert_eq!(told.remove(&*format!("{}-{}", row.id, row.seq)), Some(1), "the end of {row:?}");
    }
    assert!(told.values().all(|count| *count == 1));
    bed.stop();
}

#[test]
fn fa_14_a_file_that_fails_meanwhile_is_followed_by_one_with_all_that_ran_in_either_life() {
    let folder = crash();
    let (opened, start) = next_life(folder.path(), 1 << 20);
    let codes: Arc<Mutex<Vec<i32>>> = Arc::default();
    let left = Arc::clone(&codes);
    let obstacle: Obstacle = Arc::new(move |at, file| {
        let is_hit = at == Point::Commit && file == key(TODAY);
        let code = if is_hit { left.lock().unwrap().pop() } else { None };
        code.map_or(Ok(()), |code| Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)))
    });
    let (encode, arrives, lets_on) = in_turns();
    let mut bed = bed(opened.with_obstacle(obstacle).start_recovering(encode).unwrap(), start);
    arrives.recv().unwrap();
    let alive: Vec<SessionId> = (0..500).map(|n| starts(&mut bed, RUNNING + n)).collect();
    lets_on.send(()).unwrap();
    arrives.recv().unwrap();
    assert!(*bed.ledger.committed().borrow() > 0, "nobody who came is in the file that fails");
    codes.lock().unwrap().push(ffi::SQLITE_IOERR_FSYNC);
    drop(lets_on);
    bed.settle();
    until(|| bed.status().suspect_files == 1 && bed.status().lag.is_zero(), || format!("{:?}", bed.status()));
    assert_closed_once(folder.path(), &bed, &alive);
    assert!(folder.path().join("2026-11-20.1.db").exists());
    bed.stop();
    let (mut opened, _) = open(&settings(folder.path()), NOON_MS + 2 * NEXT_MS);
    assert_eq!(recover(&mut opened).sessions, 500, "{:?}", opened.findings());
    assert_eq!(opened.totals().values().map(|sum| sum.sessions).sum::<u64>(), RUNNING + 500);
    assert!(opened.findings().is_empty(), "{:?}", opened.findings());
}

#[test]
fn fa_15_a_ledger_that_is_stopped_meanwhile_commits_what_waits_and_leaves_the_rest_to_the_next_start() {
    let folder = crash();
    let (opened, start) = next_life(folder.path(), 64 << 20);
    let (encode, arrives, lets_on) = in_turns();
    let mut bed = bed(opened.start_recovering(encode).unwrap(), start);
    arrives.recv().unwrap();
    let facts = bed.facts(RUNNING, Kind::Play, 0);
    bed.happens(&facts, 1, 0, What::Opened);
    bed.happens(&facts, 2, 0, What::Started);
    bed.happens(&facts, 3, 0, What::Closed(done(), bytes(1, 1)));
    assert!(!bed.ledger.stop(std::time::Duration::from_millis(10)), "it is at work");
    drop(lets_on);
    bed.settle();
    bed.stop();
    let closed = rows(folder.path()).iter().filter(|row| row.closed_ms.is_some()).count();
    assert_eq!(closed, 2 * AT_ONCE + 1);
    let (mut opened, start) = open(&settings(folder.path()), NOON_MS + 2 * NEXT_MS);
    assert_eq!(recover(&mut opened).sessions, RUNNING - 2 * AT_ONCE as u64);
    let bed = Bed::started(opened, start, NOON_MS + 2 * NEXT_MS);
    let told = bed.outbox();
    let once: std::collections::HashSet<_> = told.iter().map(|row| &row.event_id).collect();
    assert_eq!((told.len() as u64, once.len() as u64), (2 * RUNNING + 2, 2 * RUNNING + 2));
    bed.stop();
}
