//! The disk stands still: nobody hears of what is not on record, and media goes on.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::support::back_end::BackEnd;
use crate::support::calm::Calm;
use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually};

/// The file of the day.
fn day_file(ledger: &Path) -> PathBuf {
    let names = std::fs::read_dir(ledger).unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let is_day = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("20") && name.ends_with(".db")
    };
    let mut days: Vec<PathBuf> = names.filter(is_day).collect();
    days.sort();
    days.pop().expect("a day's file")
}

fn closed(server: &Server) -> usize {
    server.events("session.closed").len()
}

/// Whether the API says that records reach the disk.
fn is_recorded(server: &Server) -> bool {
    let (status, ready) = server.get("/readyz?verbose=true");
    assert_eq!(status, 200, "a ledger that waits does not make the server unready: {ready:#}");
    let checks = ready["checks"].as_array().unwrap();
    let ledger = checks.iter().find(|check| check["name"] == "ledger").unwrap_or_else(|| panic!("{ready:#}"));
    let is_ok = ledger["ok"].as_bool().unwrap();
    assert!(is_ok || !ledger["detail"].as_str().unwrap().is_empty());
    is_ok
}

#[test]
fn nobody_hears_of_what_is_not_on_record_and_media_goes_on() {
    let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
    let config = format!("{}{}", Server::ledger_of(&dir), back_end.tell(""));
    let server = Server::start(&config);
    let mut calm = Calm::start(&server, "goes-on");
    drop(Raw::publish(server.rtmp, "live", "before").start());
    back_end.wait_for_ends(1);
    let heard = back_end.told().len();
    assert!(is_recorded(&server));

    // Somebody else writes into the file and does not come to an end: the ledger cannot commit.
    let disk = Connection::open(day_file(&dir.path().join("ledger"))).unwrap();
    disk.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 0..5 {
        drop(Raw::publish(server.rtmp, "live", &format!("meanwhile-{number}")).start());
        calm.beat();
    }
    server.wait_for_sessions("state=finished&stream=meanwhile-4", 1);
    eventually("the state is told", || {
        calm.beat();
        !is_recorded(&server)
    });
    let metrics = server.metrics();
    assert_eq!(metrics.sum("sluicegate_ledger_state", ""), 1);
    assert!(metrics.sum("sluicegate_ledger_queue_bytes", "") > 0);
    calm.assert_undisturbed(&server);
    // The log and the list of sessions know; who is told of events does not.
    assert!(server.log().contains("stream=meanwhile-4"));
    assert_eq!(closed(&server), 1, "an event is told that is not on record");
    assert_eq!(back_end.told().len(), heard, "{:#?}", back_end.told().last());

    disk.execute_batch("ROLLBACK").unwrap();
    back_end.wait_for_ends(6);
    eventually("all is well again", || is_recorded(&server));
    assert_eq!(closed(&server), 6);
    assert_eq!(server.metrics().sum("sluicegate_ledger_dropped_total", ""), 0);
    drop(calm);
    back_end.wait_for_ends(8);
    back_end.assert_whole();
}

#[test]
fn newcomers_are_refused_while_nothing_can_be_recorded_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("{}on_full = \"refuse_new\"\n", Server::ledger_of(&dir)));
    let mut calm = Calm::start(&server, "goes-on");
    drop(Raw::publish(server.rtmp, "live", "before").start());
    eventually("it is on record", || closed(&server) == 1);
    let disk = Connection::open(day_file(&dir.path().join("ledger"))).unwrap();
    disk.execute_batch("BEGIN IMMEDIATE").unwrap();
    drop(Raw::publish(server.rtmp, "live", "last").start());
    eventually("the state is told", || {
        calm.beat();
        !is_recorded(&server)
    });
    // Control hears of it a moment after the ledger.
    let mut remote = None;
    eventually("newcomers are refused", || {
        let mut late = Raw::publish(server.rtmp, "live", "too-late");
        assert!(late.pump_until(PATIENCE, |it| it.started || it.refused.is_some() || it.closed));
        remote = Some(late.local());
        calm.beat();
        !late.started
    });
    // It never was a session, of which there would be records to make.
    eventually("the attempt is counted", || {
        server.metrics().sum("sluicegate_attempts_total", "reason=\"overload\"") > 0
    });
    assert!(server.sessions(&format!("state=finished&remote={}", remote.unwrap())).is_empty());
    calm.assert_undisturbed(&server);
    disk.execute_batch("ROLLBACK").unwrap();
    eventually("all is well again", || is_recorded(&server));
    eventually("newcomers are let in again", || {
        let mut next = Raw::publish(server.rtmp, "live", "next");
        next.pump_until(PATIENCE, |it| it.started || it.refused.is_some() || it.closed);
        next.started
    });
}

#[test]
fn what_nobody_heard_may_be_lost_with_the_process_and_what_was_heard_is_not() {
    let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
    let mut server =
        Server::start(&format!("{}{}", Server::ledger_of(&dir), back_end.tell("events = [\"session.*\"]")));
    let calm = Calm::start(&server, "was-there");
    eventually("both are told", || back_end.told_of("session.started").len() == 2);
    let disk = Connection::open(day_file(&dir.path().join("ledger"))).unwrap();
    disk.execute_batch("BEGIN IMMEDIATE").unwrap();
    let _unheard = Raw::publish(server.rtmp, "live", "unheard").start();
    server.wait_for_sessions("stream=unheard", 1);
    server.settle();
    server.kill();
    disk.execute_batch("ROLLBACK").unwrap();
    drop(disk);
    server.start_again();
    back_end.wait_for_ends(2);
    server.settle();
    assert_eq!(back_end.assert_whole().len(), 2);
    let (_, page) = server.get("/v1/history/sessions");
    let streams: Vec<_> = page["sessions"].as_array().unwrap().iter().map(|row| row["stream"].clone()).collect();
    assert_eq!(streams, ["was-there", "was-there"], "{page:#}");
    drop(calm);
}
