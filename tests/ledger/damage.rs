//! Power that fails and bits that turn.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value;
use sluicegate::event::{Attempt, Event, Wanted};
use sluicegate::ledger::verify::{verify, verify_day};
use sluicegate::names::{Kind, Protocol};
use sluicegate::session::{CloseReason, Reason, What};
use sluicegate::stdx::ids::SplitMix;

use crate::support::*;

/// Everything that a file says, table by table, or nothing where reading it ends in an error.
fn content(path: &Path) -> Option<BTreeMap<&'static str, Vec<Vec<Value>>>> {
    let connection = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    let mut tables = BTreeMap::new();
    for table in ["session", "attempt", "outbox", "total"] {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).ok()?;
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| (0..columns).map(|index| row.get(index)).collect()).ok()?;
        tables.insert(table, rows.collect::<Result<Vec<Vec<Value>>, _>>().ok()?);
    }
    Some(tables)
}

/// A day with sessions, attempts and an outbox, closed in order.
fn day(lives: u64) -> tempfile::TempDir {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    for n in 0..lives {
        let kind = Kind::ALL[usize::try_from(n % 4).unwrap()];
        let facts = bed.facts(n, kind, n);
        bed.happens(&facts, 1, n, What::Opened);
        bed.happens(&facts, 2, n, What::Started);
        if n % 3 > 0 {
            bed.happens(&facts, 3, n + 5, What::Closed(done(), bytes(n * 1_000, n)));
        }
        let attempt = Attempt {
            protocol: Protocol::Rtmp,
            kind: None,
            remote: facts.remote,
            at: bed.after(n),
            reason: CloseReason::new(Reason::HandshakeTimeout),
            wanted: Wanted::default(),
        };
        bed.record(Event::Attempt(attempt), Vec::new());
    }
    bed.settle();
    bed.stop();
    folder
}

#[test]
fn fa_17_a_turned_bit_is_found_or_changes_nothing() {
    let flips = std::env::var("SLUICEGATE_LEDGER_FLIPS").ok().map_or(1_500, |text| text.parse().unwrap());
    let original = day(120);
    let name = key(TODAY).file_name();
    let bytes = fs::read(original.path().join(&name)).unwrap();
    let expected = content(&original.path().join(&name)).unwrap();
    let copy = folder();
    let path = copy.path().join(&name);
    let mut random = SplitMix::new(17);
    let (mut found, mut without_effect) = (0, 0);
    for flip in 0..flips {
        let (at, bit) = (usize::try_from(random.below(bytes.len() as u64)).unwrap(), random.below(8));
        let mut turned = bytes.clone();
        turned[at] ^= 1 << bit;
        fs::write(&path, &turned).unwrap();
        let report = verify_day(copy.path(), key(TODAY));
        if report.is_whole() {
            assert_eq!(content(&path).as_ref(), Some(&expected), "flip {flip}: bit {bit} of byte {at} went unseen");
            without_effect += 1;
        } else {
            found += 1;
        }
        for end in ["-wal", "-shm"] {
            let _ = fs::remove_file(copy.path().join(format!("{name}{end}")));
        }
    }
    println!("{flips} flips: {found} found, {without_effect} in space that holds nothing");
    assert!(found > flips / 2, "{found} of {flips} were found");
}

#[test]
fn fa_17_a_damaged_row_is_told_with_its_place_and_its_neighbours_are_read() {
    let original = day(60);
    let path = original.path().join(key(TODAY).file_name());
    let whole = verify_day(original.path(), key(TODAY));
    assert_eq!((whole.sessions, whole.attempts, whole.outbox, whole.is_whole()), (60, 60, 100, true), "{whole:?}");
    // The user agent of one session, and the body of one tell, as they stand in the file.
    let expected = rows(original.path());
    let victim = &expected[20].id;
    let connection = Connection::open(&path).unwrap();
    let agent = "UPDATE session SET user_agent = 'FMLE/3.0 other' WHERE id = ?1";
    connection.execute(agent, [&victim.as_u128().to_be_bytes()[..]]).unwrap();
    connection.execute("UPDATE outbox SET body = x'00' WHERE id = (SELECT MAX(id) FROM outbox)", []).unwrap();
    let last: i64 = connection.query_row("SELECT MAX(id) FROM outbox", [], |row| row.get(0)).unwrap();
    connection.execute("UPDATE total SET rx_bytes = rx_bytes + 1 WHERE kind = 'play'", []).unwrap();
    drop(connection);
    let report = verify_day(original.path(), key(TODAY));
    let expected = [
        format!("session {victim}: its checksum differs"),
        format!("outbox {last}: its checksum differs"),
        "total rtmp: its checksum differs".to_owned(),
    ];
    assert_eq!(report.damage, expected);
    assert_eq!((report.sessions, report.attempts, report.outbox), (59, 60, 99));
    // A sum that is damaged is added up again: those who ended, and played.
    let (opened, _) = crate::support::open(&settings(original.path()), NOON_MS);
    let played: Vec<u64> = (0..60).filter(|n| n % 3 > 0 && n % 4 == 1).collect();
    let total = opened.totals()[&("rtmp".to_owned(), Kind::Play)];
    assert_eq!((total.sessions, total.rx_bytes), (played.len() as u64, played.iter().sum::<u64>() * 1_000));
}

#[test]
fn fa_17_a_page_that_is_gone_is_told_with_its_offset_and_leaves_the_rest_readable() {
    let original = day(200);
    let path = original.path().join(key(TODAY).file_name());
    let mut bytes = fs::read(&path).unwrap();
    let page = page_of_session(&bytes, rows(original.path())[100].id);
    bytes[page * 4_096..(page + 1) * 4_096].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    let report = verify_day(original.path(), key(TODAY));
    let offset = format!("byte {} of the file", page * 4_096);
    assert!(report.damage.iter().any(|line| line.contains(&offset)), "{:#?}", report.damage);
    assert!(report.sessions >= 100 && report.sessions < 200, "{}", report.sessions);
    assert_eq!((report.attempts, report.outbox), (200, 333), "other tables have nothing to do with it");
}

#[test]
fn fa_17_what_is_damaged_is_not_told_and_not_closed_and_the_others_are() {
    let folder = day(60);
    let path = folder.path().join(key(TODAY).file_name());
    let open: Vec<_> = rows(folder.path()).into_iter().map(|row| row.id).collect();
    // The day was closed in order with twenty sessions still running, as after a crash.
    let connection = Connection::open(&path).unwrap();
    let agent = "UPDATE session SET stream = 'other' WHERE id = ?1";
    connection.execute(agent, [&open[30].as_u128().to_be_bytes()[..]]).unwrap();
    connection.execute("UPDATE outbox SET body = x'00' WHERE id = 50", []).unwrap();
    drop(connection);
    let (mut opened, start) = crate::support::open(&settings(folder.path()), NOON_MS + 60_000);
    let recovered = recover(&mut opened);
    assert_eq!((recovered.sessions, recovered.damaged), (19, 1));
    assert_eq!(opened.findings(), [format!("2026-11-20.db: session {}: its checksum differs", open[30])]);
    let bed = Bed::started(opened, start, NOON_MS + 60_000);
    let told = bed.outbox();
    assert_eq!(told.len(), 100 + 19 - 1);
    assert!(told.iter().all(|row| row.id != 50 && row.body.len() > 1));
    bed.stop();
}

#[test]
fn fa_17_a_file_with_broken_structure_is_not_written_to_and_what_ran_in_it_is_closed() {
    let folder = day(200);
    let path = folder.path().join(key(TODAY).file_name());
    let mut bytes = fs::read(&path).unwrap();
    let page = page_of_session(&bytes, rows(folder.path())[100].id);
    bytes[page * 4_096..(page + 1) * 4_096].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    for life in 0..3 {
        let (mut opened, start) = crate::support::open(&settings(folder.path()), NOON_MS + 60_000);
        let recovered = recover(&mut opened);
        assert_eq!(recovered.sessions > 0, life == 0, "life {life}: {recovered:?}");
        assert!(opened.findings().iter().any(|line| line.contains("2026-11-20.db")), "{:?}", opened.findings());
        let mut bed = Bed::started(opened, start, NOON_MS + 60_000);
        let facts = bed.facts(10_000 + life, Kind::Play, 0);
        bed.happens(&facts, 1, 0, What::Opened);
        bed.happens(&facts, 2, 0, What::Closed(done(), bytes_of(life)));
        bed.settle();
        let stops = bed.outbox().iter().filter(|row| row.body.starts_with(b"session.closed")).count() as u64;
        assert!(stops > 133 + life, "{stops}");
        bed.stop();
        let after = fs::read(&path).unwrap();
        assert_eq!(after, bytes, "the damaged file was written to");
        assert!(folder.path().join("2026-11-20.1.db").exists() && !folder.path().join("2026-11-20.2.db").exists());
    }
}

/// The page in the middle of the sessions on which the row of a publisher stands.
fn page_of_session(bytes: &[u8], id: sluicegate::names::SessionId) -> usize {
    let mut text = id.as_u128().to_be_bytes().to_vec();
    text.extend(b"publish");
    bytes.windows(text.len()).position(|window| window == text).unwrap() / 4_096
}

fn bytes_of(n: u64) -> sluicegate::session::Counters {
    bytes(n, n)
}

#[test]
fn fa_16_power_that_fails_loses_nothing_that_was_committed_and_leaves_no_halves() {
    let cuts = std::env::var("SLUICEGATE_LEDGER_CUTS").ok().map_or(150, |text| text.parse().unwrap());
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    let log = folder.path().join("2026-11-20.db-wal");
    // How long the log was when each event was said to be safe; all of it had reached the disk then.
    let mut safe = Vec::new();
    for n in 0..60 {
        let facts = bed.facts(n, Kind::Publish, n);
        bed.happens(&facts, 1, n, What::Opened);
        bed.happens(&facts, 2, n, What::Started);
        if n % 2 == 0 {
            bed.happens(&facts, 3, n, What::Closed(done(), bytes(n, n)));
        }
        bed.settle();
        safe.push((fs::metadata(&log).unwrap().len(), n + 1));
    }
    let mut random = SplitMix::new(16);
    for cut in 0..cuts {
        let (written, lives) = safe[usize::try_from(random.below(safe.len() as u64)).unwrap()];
        let copy = crate::support::folder();
        fs::copy(folder.path().join("2026-11-20.db"), copy.path().join("2026-11-20.db")).unwrap();
        // What came after it may have reached the disk in part, and in any order.
        let mut bytes = fs::read(&log).unwrap();
        let len = written + random.below((bytes.len() as u64 - written).min(20_000) + 1);
        bytes.truncate(usize::try_from(len).unwrap());
        for _ in 0..random.below(4) {
            let behind = len - written;
            if behind > 0 {
                let at = usize::try_from(written + random.below(behind)).unwrap();
                bytes[at] ^= 0x55;
            }
        }
        fs::write(copy.path().join("2026-11-20.db-wal"), &bytes).unwrap();
        let (mut opened, start) = crate::support::open(&settings(copy.path()), NOON_MS + 60_000);
        assert!(opened.findings().is_empty(), "cut {cut}: {:?}", opened.findings());
        recover(&mut opened);
        let found = rows(copy.path());
        assert!(found.len() as u64 >= lives, "cut {cut}: {} of {lives}", found.len());
        assert!(found.iter().all(|row| row.closed_ms.is_some()));
        let bed = Bed::started(opened, start, NOON_MS + 60_000);
        let mut told: BTreeMap<Box<str>, usize> = BTreeMap::new();
        for row in bed.outbox() {
            *told.entry(row.event_id).or_default() += 1;
        }
        for row in &found {
            if row.started_ms.is_some() {
                assert_eq!(told.get(&*format!("{}-2", row.id)), Some(&1), "cut {cut}: a start");
                assert_eq!(told.get(&*format!("{}-3", row.id)), Some(&1), "cut {cut}: an end");
            }
        }
        assert!(told.values().all(|count| *count == 1));
        bed.stop();
        let reports = verify(copy.path()).unwrap();
        assert!(reports.iter().all(sluicegate::ledger::verify::Report::is_whole), "cut {cut}: {reports:?}");
    }
    bed.stop();
}
