//! Which file holds what, for how long, and for whom.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use sluicegate::ledger::{FileKey, Files, Settings, open as open_ledger};
use sluicegate::names::Kind;
use sluicegate::session::What;
use sluicegate::stdx::clock::WallAnchor;

use crate::support::*;

const MIDNIGHT_MS: u64 = NOON_MS + DAY_MS / 2;

#[test]
fn a_session_stays_in_the_file_of_the_day_it_opened() {
    let folder = folder();
    let mut bed = Bed::at(&settings(folder.path()), MIDNIGHT_MS - 1_000);
    let (old, new) = (bed.facts(1, Kind::Publish, 999), bed.facts(2, Kind::Play, 1_000));
    bed.happens(&old, 1, 999, What::Opened);
    bed.happens(&old, 2, 999, What::Started);
    bed.happens(&new, 1, 1_000, What::Opened);
    bed.happens(&new, 2, 1_000, What::Started);
    bed.settle();
    bed.happens(&old, 3, 7_200_000, What::Closed(done(), bytes(1, 2)));
    bed.settle();
    let closed = "SELECT COUNT(*) FROM session WHERE closed_ms IS NOT NULL";
    assert_eq!(number(folder.path(), key("2026-11-20"), closed), 1);
    assert_eq!(number(folder.path(), key("2026-11-21"), closed), 0);
    assert_eq!(
        number(folder.path(), key("2026-11-20"), "SELECT COUNT(*) FROM outbox"),
        2,
        "what is told stays beside it"
    );
    let told: Vec<String> = bed.outbox().iter().map(|row| row.event_id.to_string()).collect();
    let expected = [(&old, 2), (&new, 2), (&old, 3)].map(|(facts, seq)| format!("{}-{seq}", facts.id));
    assert_eq!(told, expected, "the order is that of recording, over all files");
    bed.stop();
}

#[test]
fn a_day_that_is_over_is_closed_when_its_last_session_ends_and_all_is_told() {
    let folder = folder();
    // What is to be told keeps the file open; what was told lets go of it at the next start, which looks at once.
    let mut bed = Bed::at(&settings(folder.path()), MIDNIGHT_MS - 1_000);
    let old = bed.facts(1, Kind::Publish, 0);
    bed.happens(&old, 1, 0, What::Opened);
    bed.happens(&old, 2, 0, What::Started);
    bed.happens(&old, 3, 500, What::Closed(done(), bytes(1, 2)));
    bed.settle();
    bed.stop();
    for (rows, open_files) in [(2, 1), (0, 0)] {
        let bed = Bed::at(&settings(folder.path()), MIDNIGHT_MS + 5_000);
        let waiting = bed.outbox();
        let ids: Vec<i64> = waiting.iter().map(|row| row.id).collect();
        bed.ledger.told(SINK, ids);
        until(|| bed.outbox().is_empty(), || "it is told for ever".into());
        // The rows are gone a moment before the ledger says what it has open.
        until(|| bed.status().open_files == open_files, || format!("{:?}", bed.status()));
        assert_eq!(waiting.len(), rows);
        bed.stop();
    }
}

#[test]
fn files_belong_to_their_owner_alone() {
    let folder = folder();
    let inside = folder.path().join("deep/ledger");
    let mut bed = Bed::new(&settings(&inside));
    let facts = bed.facts(1, Kind::Play, 0);
    bed.happens(&facts, 1, 0, What::Opened);
    bed.settle();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inside), 0o700);
    let names: Vec<String> =
        fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for name in ["lock", "state.db", "2026-11-20.db", "2026-11-20.db-wal", "2026-11-20.db-shm"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
        assert_eq!(mode(&inside.join(name)), 0o600, "{name}");
    }
    bed.stop();
}

#[test]
fn a_folder_that_cannot_be_made_is_told_with_its_name() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let start = std::time::Instant::now();
    let wall = WallAnchor::at(start, Duration::from_millis(NOON_MS));
    let error = open_ledger(&settings(&file.join("ledger")), wall, start).err().unwrap().to_string();
    assert!(error.contains("file/ledger"), "{error}");
}

/// One session of 10 and 20 bytes on each of the days before noon of the 20th.
fn days(folder: &std::path::Path, count: u64) {
    for ago in (0..count).rev() {
        let mut bed = Bed::at(&settings(folder), NOON_MS - ago * DAY_MS);
        let facts = bed.facts(ago, Kind::Publish, 0);
        for (seq, what) in [(1, What::Opened), (2, What::Started), (3, What::Closed(done(), bytes(10, 20)))] {
            bed.happens(&facts, seq, 0, what);
        }
        bed.settle();
        bed.ledger.told(SINK, bed.outbox().iter().map(|row| row.id).collect());
        until(|| bed.outbox().is_empty(), || "it is told for ever".into());
        bed.stop();
    }
}

fn names(folder: &std::path::Path) -> Vec<String> {
    Files::offline(folder).list().into_iter().map(FileKey::file_name).collect()
}

#[test]
fn days_leave_after_their_time_and_stay_in_the_sums() {
    let folder = folder();
    days(folder.path(), 5);
    let settings = Settings { retain_days: 2, ..settings(folder.path()) };
    let bed = Bed::new(&settings);
    until(|| names(folder.path()).len() == 3, || format!("{:?}", names(folder.path())));
    assert_eq!(names(folder.path()), ["2026-11-18.db", "2026-11-19.db", "2026-11-20.db"]);
    bed.stop();
    for _ in 0..2 {
        let (opened, _) = open(&settings, NOON_MS);
        let total = opened.totals()[&("rtmp".to_owned(), Kind::Publish)];
        assert_eq!((total.sessions, total.rx_bytes, total.tx_bytes), (5, 50, 100));
    }
}

#[test]
fn a_removal_that_was_cut_short_is_neither_lost_nor_counted_twice() {
    let folder = folder();
    days(folder.path(), 3);
    // The sums were written, and the process died before the file went.
    let state = rusqlite::Connection::open(folder.path().join("state.db")).unwrap();
    state
        .execute("INSERT INTO removed VALUES ('2026-11-18.db', 'rtmp', 'publish', 'client_done', '', 1, 10, 20, 1)", [])
        .unwrap();
    drop(state);
    let settings = Settings { retain_days: 1, ..settings(folder.path()) };
    let sessions = || open(&settings, NOON_MS).0.totals()[&("rtmp".to_owned(), Kind::Publish)].sessions;
    assert_eq!(sessions(), 3);
    let bed = Bed::new(&settings);
    until(|| names(folder.path()).len() == 2, || format!("{:?}", names(folder.path())));
    bed.stop();
    assert_eq!(sessions(), 3);
}

#[test]
fn the_oldest_days_leave_when_all_take_too_much() {
    let folder = folder();
    days(folder.path(), 4);
    let size = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
    let two = size("2026-11-19.db") + size("2026-11-20.db");
    let bed = Bed::new(&Settings { retain_bytes: two + 1_000, ..settings(folder.path()) });
    until(|| names(folder.path()).len() == 2, || format!("{:?}", names(folder.path())));
    assert_eq!(names(folder.path()), ["2026-11-19.db", "2026-11-20.db"]);
    bed.stop();
    // Today's file stays however large it is.
    let bed = Bed::new(&Settings { retain_bytes: 1, ..settings(folder.path()) });
    until(|| names(folder.path()).len() == 1, || format!("{:?}", names(folder.path())));
    assert_eq!(names(folder.path()), ["2026-11-20.db"]);
    bed.stop();
}

#[test]
fn a_day_stays_while_something_of_it_is_still_to_be_told() {
    let folder = folder();
    days(folder.path(), 3);
    let mut bed = Bed::at(&settings(folder.path()), NOON_MS - 9 * DAY_MS);
    let facts = bed.facts(1, Kind::Publish, 0);
    bed.happens(&facts, 1, 0, What::Opened);
    bed.happens(&facts, 2, 0, What::Started);
    bed.happens(&facts, 3, 0, What::Closed(done(), bytes(1, 1)));
    bed.settle();
    bed.stop();
    let settings = Settings { retain_days: 1, ..settings(folder.path()) };
    let bed = Bed::new(&settings);
    until(|| names(folder.path()).len() == 3, || format!("{:?}", names(folder.path())));
    assert_eq!(names(folder.path()), ["2026-11-11.db", "2026-11-19.db", "2026-11-20.db"]);
    bed.stop();
    // A sink that is configured no more holds nothing up.
    let (mut opened, start) = open(&settings, NOON_MS);
    assert_eq!(opened.forget_other_sinks(&[SINK]).unwrap(), 0);
    assert_eq!(opened.forget_other_sinks(&["another"]).unwrap(), 2);
    let bed = Bed::started(opened, start, NOON_MS);
    until(|| names(folder.path()).len() == 2, || format!("{:?}", names(folder.path())));
    bed.stop();
}

#[test]
fn space_of_what_was_told_goes_back_to_the_file_system() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    for n in 0..2_000 {
        let facts = bed.facts(n, Kind::Publish, 0);
        bed.happens(&facts, 1, 0, What::Opened);
        bed.happens(&facts, 2, 0, What::Started);
        bed.happens(&facts, 3, 0, What::Closed(done(), bytes(1, 1)));
    }
    bed.settle();
    bed.ledger.told(SINK, bed.outbox().iter().map(|row| row.id).collect());
    until(|| bed.outbox().is_empty(), || "it is told for ever".into());
    assert!(sluicegate::ledger::vacuum(folder.path()).is_err(), "a server is using it");
    bed.stop();
    let done = sluicegate::ledger::vacuum(folder.path()).unwrap();
    let [(name, before, after)] = &done[..] else { panic!("{done:?}") };
    assert!(name == "2026-11-20.db" && after + 100_000 < *before, "{done:?}");
    assert_eq!(rows(folder.path()).len(), 2_000);
}
