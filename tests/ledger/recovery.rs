//! What a start makes of a life that did not end well.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use sluicegate::event::{Event, StreamEvent, StreamWhat, Weight};
use sluicegate::ledger::{FileError, Settings, Total, verify};
use sluicegate::names::{Kind, SessionId, ShardId, StreamKey};
use sluicegate::session::{Counters, Reason, What};

use crate::support::*;

#[test]
fn fa_15_what_was_running_is_closed_as_server_crash_with_its_last_checkpoint() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    let [started, waiting, over] = [1, 2, 3].map(|n| bed.facts(n, Kind::Publish, n));
    for facts in [&started, &waiting, &over] {
        bed.happens(facts, 1, 10, What::Opened);
    }
    bed.happens(&started, 2, 20, What::Started);
    bed.happens(&over, 2, 20, What::Started);
    bed.happens(&over, 3, 30, What::Closed(done(), bytes(5, 6)));
    bed.settle();
    bed.ledger.checkpoint(bed.after(5_000), vec![(started.id, bytes(7_000, 80))]);
    until(|| rows(folder.path())[0].rx_bytes == 7_000, || "no checkpoint".into());

    let copy = crashed(folder.path());
    bed.stop();
    let (mut opened, start) = open(&settings(copy.path()), NOON_MS + 60_000);
    let mut told = Vec::new();
    let recovered = opened
        .recover(&mut |event| {
            let Event::Session(change) = event else { panic!("no stream was online") };
            told.push((change.facts.id, change.seq, start.duration_since(change.at), change.what));
            vec![tell_of(change, Weight::Must)]
        })
        .unwrap();
    assert_eq!((recovered.sessions, recovered.started, recovered.damaged), (2, 1, 0));
    let reason = sluicegate::session::CloseReason::new(sluicegate::session::Reason::ServerCrash);
    let expected = [
        (started.id, 3, Duration::from_secs(55), What::Closed(reason, bytes(7_000, 80))),
        (waiting.id, 2, Duration::from_millis(59_990), What::Closed(reason, Counters::default())),
    ];
    assert_eq!(told, expected);

    let found = rows(copy.path());
    assert_eq!(
        found.iter().map(|row| row.reason.as_deref().unwrap()).collect::<Vec<_>>(),
        ["server_crash", "server_crash", "client_done"]
    );
    assert_eq!(found.iter().map(|row| row.recovered).collect::<Vec<_>>(), [true, true, false]);
    let at = (NOON_MS + 5_000).cast_signed();
    assert_eq!((found[0].closed_ms, found[0].updated_ms, found[0].seq), (Some(at), at, 3));
    assert_eq!((found[0].started_ms.is_some(), found[1].started_ms), (true, None), "who had started has started");
    let total = opened.totals()[&("rtmp".to_owned(), Kind::Publish)];
    assert_eq!((total.sessions, total.rx_bytes, total.tx_bytes), (2, 7_005, 86), "only what had started counts");

    let bed = Bed::started(opened, start, NOON_MS + 60_000);
    let told: Vec<String> = bed.outbox().iter().map(|row| row.event_id.to_string()).collect();
    let expected = [(&started, 2), (&over, 2), (&over, 3), (&started, 3), (&waiting, 2)]
        .map(|(facts, seq)| format!("{}-{seq}", facts.id));
    assert_eq!(told, expected);
    bed.stop();
}

#[test]
fn fa_15_recovering_twice_is_recovering_once() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    for n in 0..5_000 {
        let facts = bed.facts(n, Kind::Play, n / 10);
        bed.happens(&facts, 1, n / 10, What::Opened);
        bed.happens(&facts, 2, n / 10, What::Started);
    }
    bed.settle();
    let copy = crashed(folder.path());
    bed.stop();
    // The first attempt dies while it is at work: its encoder panics in the second transaction.
    let (mut opened, _) = open(&settings(copy.path()), NOON_MS);
    let mut count = 0;
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        opened.recover(&mut |event| {
            count += 1;
            assert!(count < 4_500, "this is where the process dies");
            ends_of(event)
        })
    }));
    assert!(died.is_err());
    drop(opened);
    let (mut opened, start) = open(&settings(copy.path()), NOON_MS);
    let recovered = recover(&mut opened);
    assert!(recovered.sessions > 0 && recovered.sessions < 5_000, "{recovered:?}");
    assert_eq!(recover(&mut opened).sessions, 0);
    let found = rows(copy.path());
    assert_eq!(found.len(), 5_000);
    assert!(found.iter().all(|row| row.seq == 3 && row.reason.as_deref() == Some("server_crash")));
    assert_eq!(opened.totals()[&("rtmp".to_owned(), Kind::Play)].sessions, 5_000);
    let bed = Bed::started(opened, start, NOON_MS);
    let told: Vec<Box<str>> = bed.outbox().into_iter().map(|row| row.event_id).collect();
    let once: HashSet<&Box<str>> = told.iter().collect();
    assert_eq!((told.len(), once.len()), (10_000, 10_000), "each start and each stop, once");
    bed.stop();
}

#[test]
fn fa_15_a_session_of_an_earlier_day_is_closed_in_its_own_file() {
    let folder = folder();
    let mut bed = Bed::at(&settings(folder.path()), NOON_MS - 2 * DAY_MS);
    let facts = bed.facts(1, Kind::Publish, 0);
    bed.happens(&facts, 1, 0, What::Opened);
    bed.happens(&facts, 2, 0, What::Started);
    bed.settle();
    let copy = crashed(folder.path());
    bed.stop();
    let bed = Bed::at(&settings(copy.path()), NOON_MS);
    assert_eq!(number(copy.path(), key("2026-11-18"), "SELECT COUNT(*) FROM session WHERE recovered = 1"), 1);
    let ids: Vec<String> = bed.outbox().iter().map(|row| row.event_id.to_string()).collect();
    assert_eq!(ids, [format!("{}-2", facts.id), format!("{}-3", facts.id)]);
    bed.stop();
}

#[test]
fn a_file_that_cannot_be_read_is_put_aside_and_the_start_goes_on() {
    let folder = folder();
    fs::write(folder.path().join("2026-11-20.db"), vec![0xa5; 8_192]).unwrap();
    fs::write(folder.path().join("state.db"), vec![0xa5; 8_192]).unwrap();
    let (mut opened, start) = open(&settings(folder.path()), NOON_MS);
    recover(&mut opened);
    assert_eq!(opened.findings().len(), 2, "{:?}", opened.findings());
    assert!(opened.findings()[1].contains("2026-11-20.db.bad"), "{:?}", opened.findings());
    assert_eq!(fs::read(folder.path().join("2026-11-20.db.bad")).unwrap(), vec![0xa5; 8_192]);
    let mut bed = Bed::started(opened, start, NOON_MS);
    let facts = bed.facts(1, Kind::Play, 0);
    bed.happens(&facts, 1, 0, What::Opened);
    bed.settle();
    assert_eq!(rows(folder.path()).len(), 1);
    bed.stop();
}

#[test]
fn two_servers_do_not_share_a_ledger() {
    let folder = folder();
    let (first, start) = open(&settings(folder.path()), NOON_MS);
    let wall = sluicegate::stdx::clock::WallAnchor::at(start, Duration::from_millis(NOON_MS));
    let second = sluicegate::ledger::open(&settings(folder.path()), wall, start);
    assert!(matches!(second.as_ref().err(), Some(FileError::InUse { .. })), "{:?}", second.err());
    drop(first);
    assert!(sluicegate::ledger::open(&settings(folder.path()), wall, start).is_ok());
}

/// Tells what happens to a stream as a server does.
fn streams(bed: &mut Bed, key: &StreamKey, ms: u64, what: StreamWhat) {
    let event = Event::Stream(StreamEvent { key: key.clone(), at: bed.after(ms), what });
    let tells = ends_of(&event);
    bed.record(event, tells);
}

fn online(publisher: SessionId) -> StreamWhat {
    StreamWhat::Online { publisher, shard: ShardId(1), resumed: false }
}

#[test]
fn a_stream_that_was_online_at_a_crash_goes_offline_once_and_no_other_does() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    let [first, second, idle, over] = [1, 2, 3, 4].map(|n| bed.facts(n, Kind::Publish, n));
    for facts in [&first, &second, &idle, &over] {
        bed.happens(facts, 1, 10, What::Opened);
    }
    streams(&mut bed, &first.key, 20, online(first.id));
    // Another takes it over, and a third goes and may come back.
    bed.happens(&first, 2, 30, What::Closed(Reason::Replaced.into(), bytes(1, 1)));
    streams(&mut bed, &first.key, 31, online(second.id));
    streams(&mut bed, &idle.key, 32, online(idle.id));
    bed.happens(&idle, 2, 40, What::Closed(done(), bytes(1, 1)));
    streams(&mut bed, &idle.key, 41, StreamWhat::Idle);
    streams(&mut bed, &over.key, 42, online(over.id));
    let offline = StreamWhat::Offline { publisher: over.id, reason: Reason::StreamEnded.into() };
    streams(&mut bed, &over.key, 43, offline);
    bed.settle();
    let copy = crashed(folder.path());
    bed.stop();

    let (mut opened, start) = open(&settings(copy.path()), NOON_MS + 60_000);
    let mut ended = Vec::new();
    let recovered = opened
        .recover(&mut |event| {
            if let Event::Stream(StreamEvent { key, at, what }) = event {
                ended.push((key.clone(), start.duration_since(*at), *what));
            }
            ends_of(event)
        })
        .unwrap();
    assert_eq!((recovered.streams, recovered.sessions), (2, 2));
    let offline = |publisher| StreamWhat::Offline { publisher, reason: Reason::ServerCrash.into() };
    let expected = [
        (first.key.clone(), Duration::from_millis(59_990), offline(second.id)),
        (idle.key.clone(), Duration::from_millis(59_960), offline(idle.id)),
    ];
    assert_eq!(ended, expected);
    let bed = Bed::started(opened, start, NOON_MS + 60_000);
    let told = bed.outbox();
    let told: Vec<_> = told.iter().filter(|row| row.body.starts_with(b"stream.offline")).collect();
    let ids: Vec<_> = told.iter().map(|row| (&*row.event_id, row.session.unwrap())).collect();
    let id = |facts: &sluicegate::session::Facts| format!("{}-offline", facts.id);
    assert_eq!(ids, [(&*id(&over), over.id), (&*id(&second), second.id), (&*id(&idle), idle.id)]);
    bed.stop();
    assert_eq!(recover(&mut open(&settings(copy.path()), NOON_MS + 120_000).0).streams, 0, "once");
}

#[test]
fn a_stream_that_is_online_over_midnight_is_offline_when_it_says_so() {
    let folder = folder();
    let mut bed = Bed::at(&settings(folder.path()), NOON_MS + 12 * 3_600_000 - 1_000);
    let facts = bed.facts(1, Kind::Publish, 0);
    bed.happens(&facts, 1, 10, What::Opened);
    streams(&mut bed, &facts.key, 20, online(facts.id));
    bed.settle();
    bed.happens(&facts, 2, 2_000, What::Closed(done(), bytes(1, 1)));
    let offline = StreamWhat::Offline { publisher: facts.id, reason: Reason::StreamEnded.into() };
    streams(&mut bed, &facts.key, 2_001, offline);
    bed.settle();
    let copy = crashed(folder.path());
    bed.stop();
    let (mut opened, _) = open(&settings(copy.path()), NOON_MS + 24 * 3_600_000);
    assert_eq!(recover(&mut opened).streams, 0);
}

#[test]
fn files_of_an_earlier_version_become_files_of_this_one() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    let facts = bed.facts(1, Kind::Publish, 1);
    bed.happens(&facts, 1, 10, What::Opened);
    let over = bed.facts(3, Kind::Publish, 1);
    for (seq, what) in (1..).zip([What::Opened, What::Started, What::Closed(done(), bytes(7, 8))]) {
        bed.happens(&over, seq, 11, what);
    }
    bed.settle();
    let copy = crashed(folder.path());
    bed.stop();
    let path = key(TODAY).path(copy.path());
    let old = rusqlite::Connection::open(&path).unwrap();
    // What the first version had; its sums say less than its rows.
    old.execute_batch(
        "DROP TABLE online; DROP TABLE total; PRAGMA user_version = 1; CREATE TABLE total (collector TEXT NOT NULL, \
         kind TEXT NOT NULL, sessions INTEGER NOT NULL DEFAULT 0, rx_bytes INTEGER NOT NULL DEFAULT 0, \
         tx_bytes INTEGER NOT NULL DEFAULT 0, crc INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (collector, kind)) \
         STRICT, WITHOUT ROWID",
    )
    .unwrap();
    drop(old);
    let state = rusqlite::Connection::open(copy.path().join("state.db")).unwrap();
    state
        .execute_batch(
            "DROP TABLE removed; PRAGMA user_version = 1; CREATE TABLE removed (file TEXT NOT NULL, collector TEXT NOT \
             NULL, kind TEXT NOT NULL, sessions INTEGER NOT NULL, rx_bytes INTEGER NOT NULL, tx_bytes INTEGER NOT NULL, \
             PRIMARY KEY (file, collector, kind)) STRICT, WITHOUT ROWID; \
             INSERT INTO removed VALUES ('2026-11-01.db', 'rtmp', 'play', 5, 70, 90)",
        )
        .unwrap();
    drop(state);
    let reports = verify::verify(copy.path()).unwrap();
    assert!(reports.iter().all(verify::Report::is_whole));
    let (mut opened, start) = open(&settings(copy.path()), NOON_MS + 60_000);
    assert_eq!(recover(&mut opened).sessions, 1);
    let earlier = opened.earlier();
    let (publish, reason) = (("rtmp".to_owned(), Kind::Publish), Reason::ServerCrash.into());
    assert_eq!(earlier.totals[&publish], Total { sessions: 1, rx_bytes: 7, tx_bytes: 8, ended: 1 });
    assert_eq!(earlier.totals[&("rtmp".to_owned(), Kind::Play)].sessions, 5, "of a file that is gone");
    let of = |reason| earlier.reasons[&("rtmp".to_owned(), Kind::Publish, reason)];
    assert_eq!((of(reason), of(done()), earlier.ended["rtmp"]), (1, 1, 7));
    let mut bed = Bed::started(opened, start, NOON_MS + 60_000);
    let facts = bed.facts(2, Kind::Publish, 1);
    streams(&mut bed, &facts.key, 20, online(facts.id));
    bed.settle();
    assert_eq!(number(copy.path(), key(TODAY), "SELECT COUNT(*) FROM online"), 1);
    bed.stop();
}

#[test]
fn files_of_a_newer_version_or_of_another_program_are_left_alone() {
    for (name, sql, newer) in [
        (
            "2026-11-20.db",
            "PRAGMA application_id = 1399605108; PRAGMA user_version = 3; CREATE TABLE session (id)",
            true,
        ),
        ("state.db", "PRAGMA application_id = 1399605108; PRAGMA user_version = 3; CREATE TABLE ban (id)", true),
        ("2026-11-20.db", "CREATE TABLE invoices (id)", false),
    ] {
        let folder = folder();
        let path = folder.path().join(name);
        rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let before = fs::read(&path).unwrap();
        let (start, settings) = (std::time::Instant::now(), settings(folder.path()));
        let wall = sluicegate::stdx::clock::WallAnchor::at(start, Duration::from_millis(NOON_MS));
        let error = sluicegate::ledger::open(&settings, wall, start).err().expect("it was opened");
        match error {
            FileError::Newer { found, known, .. } => assert!(newer && found == known + 1, "{error}"),
            FileError::Foreign { .. } => assert!(!newer, "{error}"),
            other => panic!("{other}"),
        }
        assert_eq!(fs::read(&path).unwrap(), before, "it was touched");
    }
}

#[test]
fn fa_18_a_clock_that_was_set_changes_no_duration_and_no_order() {
    for step in [-3_600_000_i64, 3_600_000] {
        let folder = folder();
        let mut bed = Bed::new(&settings(folder.path()));
        let facts = bed.facts(1, Kind::Publish, 0);
        bed.happens(&facts, 1, 0, What::Opened);
        bed.happens(&facts, 2, 1_000, What::Started);
        bed.settle();
        bed.ledger.checkpoint(bed.after(61_000), vec![(facts.id, bytes(1, 1))]);
        until(|| rows(folder.path())[0].rx_bytes == 1, || "no checkpoint".into());
        let copy = crashed(folder.path());
        bed.stop();
        // The next life's clock is an hour off.
        let now_ms = NOON_MS.checked_add_signed(step).unwrap() + 62_000;
        let mut bed = Bed::at(&settings(copy.path()), now_ms);
        let row = &rows(copy.path())[0];
        assert_eq!(row.closed_ms.unwrap() - row.started_ms.unwrap(), 60_000, "how long it ran");
        let next = bed.facts(2, Kind::Publish, 0);
        bed.happens(&next, 1, 0, What::Opened);
        bed.happens(&next, 2, 500, What::Started);
        bed.settle();
        let ids: Vec<String> = bed.outbox().iter().map(|row| row.event_id.to_string()).collect();
        let expected = [(&facts, 2), (&facts, 3), (&next, 2)].map(|(facts, seq)| format!("{}-{seq}", facts.id));
        assert_eq!(ids, expected, "what is told keeps the order of recording");
        bed.stop();
    }
}

#[test]
fn a_short_delay_makes_no_difference_to_what_is_on_record() {
    let settings = |folder: &Path, ms| Settings { commit_every: Duration::from_millis(ms), ..settings(folder) };
    let found: Vec<Vec<Row>> = [1, 20]
        .map(|ms| {
            let folder = folder();
            let mut bed = Bed::new(&settings(folder.path(), ms));
            for n in 0..50 {
                let facts = bed.facts(n, Kind::Play, 0);
                for (seq, what) in [(1, What::Opened), (2, What::Started), (3, What::Closed(done(), bytes(n, n)))] {
                    bed.happens(&facts, seq, 1, what);
                    if ms == 1 {
                        bed.settle();
                    }
                }
            }
            bed.stop();
            rows(folder.path())
        })
        .into();
    assert_eq!(found[0].len(), 50);
    assert_eq!(found[0], found[1], "one commit for each event, or one for all");
}
