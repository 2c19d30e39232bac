//! What is on record.

use std::sync::Arc;
use std::time::Duration;

use sluicegate::event::{Attempt, Event, ServerEvent, ServerWhat, Wanted};
use sluicegate::names::{Kind, Protocol, StreamKey};
use sluicegate::session::{CloseReason, Counters, Identity, Reason, What};

use crate::support::*;

#[test]
fn a_life_is_one_row_with_all_that_was_known() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    let asked = bed.facts(1, Kind::Publish, 10);
    let told = Identity {
        key: StreamKey::new(&name("default"), &name("live"), &name("renamed")),
        user: Some("anna".into()),
        labels: Arc::new([("plan".into(), "gold \"1\"".into()), ("a".into(), "b".into())]),
    };
    let known = Arc::new(asked.identified(told));
    bed.happens(&asked, 1, 10, What::Opened);
    bed.happens(&known, 2, 20, What::Authorized);
    bed.settle();
    bed.happens(&known, 3, 500, What::Started);
    let end = Counters {
        rx_bytes: 9_000,
        tx_bytes: 3_500,
        rx_media_bytes: 8_000,
        tx_media_bytes: 1,
        rx_frames: 90,
        tx_frames: 2,
        dropped_frames: 3,
        overflows: 4,
        queue_peak_bytes: 5,
    };
    bed.happens(&known, 4, 61_000, What::Closed(CloseReason::with(Reason::LimitExceeded, "rtmp.max_video"), end));
    bed.settle();
    let found: Vec<String> = sqlite(folder.path(), key(TODAY))
        .query_row("SELECT * FROM session", [], |row| {
            (1..37).map(|index| row.get::<_, rusqlite::types::Value>(index).map(|value| format!("{value:?}"))).collect()
        })
        .unwrap();
    let text = |text: &str| format!("Text({text:?})");
    let int = |number: u64| format!("Integer({number})");
    let null = "Null".to_owned();
    let expected = vec![
        text("publish"),
        text("rtmp"),
        text("default"),
        text("live"),
        text("renamed"),
        text("anna"),
        text(r#"{"plan":"gold \"1\"","a":"b"}"#),
        text("192.0.2.1"),
        int(1_025),
        text("198.51.100.1:1935"),
        int((1 << 48) + 1),
        int(1),
        text("token=secret"),
        text("FMLE/3.0 \"ключ\""),
        null.clone(),
        text("rtmp://edge.example/live"),
        null,
        int(NOON_MS + 10),
        int(NOON_MS + 20),
        int(NOON_MS + 500),
        int(NOON_MS + 61_000),
        int(NOON_MS + 61_000),
        int(4),
        int(9_000),
        int(3_500),
        int(8_000),
        int(1),
        int(90),
        int(2),
        int(3),
        int(4),
        int(5),
        text("limit_exceeded"),
        text("rtmp.max_video"),
        text("policy"),
        int(0),
    ];
    assert_eq!(found, expected);
    bed.stop();
    let reports = sluicegate::ledger::verify::verify(folder.path()).unwrap();
    assert!(reports.iter().all(sluicegate::ledger::verify::Report::is_whole), "{reports:?}");
}

#[test]
fn checkpoints_move_a_running_session_on_and_never_back() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    let facts = bed.facts(1, Kind::Play, 0);
    bed.happens(&facts, 1, 0, What::Opened);
    bed.happens(&facts, 2, 100, What::Started);
    bed.settle();
    for (ms, sent, expected) in [(5_000, 700, 700), (10_000, 600, 700), (15_000, 900, 900)] {
        bed.ledger.checkpoint(bed.after(ms), vec![(facts.id, bytes(10, sent))]);
        until(
            || rows(folder.path()).first().is_some_and(|row| row.updated_ms == (NOON_MS + ms).cast_signed()),
            || "no checkpoint".into(),
        );
        let row = &rows(folder.path())[0];
        assert_eq!((row.seq, row.rx_bytes, row.tx_bytes, row.closed_ms), (2, 10, expected, None));
    }
    bed.happens(&facts, 3, 16_000, What::Closed(done(), bytes(11, 1_000)));
    bed.settle();
    // One that comes after the end changes nothing.
    bed.ledger.checkpoint(bed.after(20_000), vec![(facts.id, bytes(10_000, 10_000))]);
    bed.stop();
    let row = &rows(folder.path())[0];
    assert_eq!(
        (row.updated_ms, row.closed_ms),
        ((NOON_MS + 16_000).cast_signed(), Some((NOON_MS + 16_000).cast_signed()))
    );
    assert_eq!((row.rx_bytes, row.tx_bytes), (11, 1_000));
}

#[test]
fn a_checkpoint_with_the_opening_is_not_lost() {
    let folder = folder();
    let settings = sluicegate::ledger::Settings { commit_every: Duration::from_millis(200), ..settings(folder.path()) };
    let mut bed = Bed::new(&settings);
    let facts = bed.facts(1, Kind::Play, 0);
    bed.happens(&facts, 1, 0, What::Opened);
    bed.ledger.checkpoint(bed.after(50), vec![(facts.id, bytes(1, 2))]);
    bed.settle();
    assert_eq!(rows(folder.path())[0].tx_bytes, 2);
    bed.stop();
}

#[test]
fn refused_connections_are_kept_unless_that_is_switched_off() {
    for attempts in [true, false] {
        let folder = folder();
        let mut bed = Bed::new(&sluicegate::ledger::Settings { attempts, ..settings(folder.path()) });
        let attempt = Attempt {
            protocol: Protocol::Rtmp,
            kind: Some(Kind::Publish),
            remote: "[::ffff:203.0.113.9]:77".parse().unwrap(),
            at: bed.after(5),
            reason: CloseReason::with(Reason::ConcurrencyLimit, "ip"),
            wanted: Wanted::default(),
        };
        bed.record(Event::Attempt(attempt), Vec::new());
        let facts = bed.facts(1, Kind::Play, 6);
        bed.happens(&facts, 1, 6, What::Opened);
        bed.settle();
        let found: Vec<(i64, String, String, String)> = sqlite(folder.path(), key(TODAY))
            .prepare("SELECT at_ms, remote_ip, reason, detail FROM attempt")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let expected = ((NOON_MS + 5).cast_signed(), "203.0.113.9".into(), "concurrency_limit".into(), "ip".into());
        assert_eq!(found, if attempts { vec![expected] } else { vec![] });
        bed.stop();
    }
}

#[test]
fn the_watermark_passes_events_that_leave_no_trace() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    let event = Event::Server(ServerEvent { at: bed.start, what: ServerWhat::Ready });
    let number = bed.record(event, Vec::new());
    assert_eq!(*bed.ledger.committed().borrow(), number, "nothing has to be waited for");
    let facts = bed.facts(1, Kind::Play, 0);
    bed.happens(&facts, 1, 0, What::Opened);
    let event = Event::Server(ServerEvent { at: bed.start, what: ServerWhat::Draining });
    bed.record(event, Vec::new());
    bed.settle();
    assert_eq!(rows(folder.path()).len(), 1, "what the watermark has passed is there");
    bed.stop();
}

#[test]
fn what_the_watermark_has_passed_is_in_the_file() {
    let folder = folder();
    let mut bed = Bed::new(&settings(folder.path()));
    let watch = bed.ledger.committed();
    let mut last = 0;
    for n in 0..3_000_u64 {
        let facts = bed.facts(n, Kind::Play, 0);
        bed.happens(&facts, 1, 0, What::Opened);
        let committed = *watch.borrow();
        if committed > last {
            last = committed;
            let found = number(folder.path(), key(TODAY), "SELECT COUNT(*) FROM session");
            assert!(found >= committed.cast_signed(), "{found} rows, and {committed} were said to be there");
        }
    }
    bed.settle();
    assert_eq!(rows(folder.path()).len(), 3_000);
    let status = bed.status();
    assert!(status.commits > 1 && status.queue_bytes == 0 && status.synced_unix_ms >= NOON_MS, "{status:?}");
    bed.stop();
}

#[test]
fn stopping_commits_what_waits() {
    let folder = folder();
    let settings = sluicegate::ledger::Settings { commit_every: Duration::from_secs(1), ..settings(folder.path()) };
    let mut bed = Bed::new(&settings);
    for n in 0..5_000 {
        let facts = bed.facts(n, Kind::Play, 0);
        bed.happens(&facts, 1, 0, What::Opened);
    }
    bed.stop();
    assert!(!folder.path().join("2026-11-20.db-wal").exists(), "a clean end leaves no log behind");
    assert_eq!(rows(folder.path()).len(), 5_000);
}
