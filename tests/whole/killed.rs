//! The process is killed while they publish and watch: what is on record afterwards, and who hears of it.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::back_end::{BackEnd, Say};
use crate::support::raw::Raw;
use crate::support::{Server, eventually};

fn server(dir: &tempfile::TempDir, back_end: &BackEnd, rest: &str) -> Server {
    Server::start(&format!(
        "{}checkpoint_every = \"1s\"\n{}{rest}",
        Server::ledger_of(dir),
        back_end.tell("events = [\"session.*\"]")
    ))
}

/// One publisher and some players, who go on for a while.
struct Show {
    publisher: Raw,
    players: Vec<Raw>,
    sent: u64,
}

impl Show {
    fn start(server: &Server, players: usize) -> Self {
        let publisher = Raw::publish(server.rtmp, "live", "killed").start();
        let players = (0..players).map(|_| Raw::play(server.rtmp, "live", "killed").start()).collect();
        let mut show = Self { publisher, players, sent: 0 };
        show.go_on(Duration::ZERO);
        server.wait_for_sessions("state=running", show.players.len() + 1);
        show
    }

    fn go_on(&mut self, time: Duration) {
        let until = std::time::Instant::now() + time;
        loop {
            self.publisher.send_picture(self.sent);
            self.sent += 1;
            for player in &mut self.players {
                player.pump_until(Duration::from_millis(2), |_| false);
            }
            if std::time::Instant::now() >= until {
                return;
            }
        }
    }
}

fn history(server: &Server) -> BTreeMap<String, Value> {
    let (status, page) = server.get("/v1/history/sessions?limit=1000");
    assert_eq!(status, 200, "{page}");
    let sessions = page["sessions"].as_array().unwrap().iter();
    sessions.map(|it| (it["id"].as_str().unwrap().to_owned(), it.clone())).collect()
}

/// The ledger's own look at its files finds nothing.
fn assert_whole_files(dir: &tempfile::TempDir) {
    let output = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(["ledger", "verify"])
        .arg(dir.path().join("ledger"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&said));
}

/// Everything that ran when it was killed is closed as such, with bytes of at least `at_least`.
fn assert_crashed(server: &Server, back_end: &BackEnd, at_least: &BTreeMap<String, u64>) {
    back_end.wait_for_ends(at_least.len());
    server.settle();
    let told = back_end.assert_whole();
    let on_record = history(server);
    for (id, bytes) in at_least {
        let closed = told[id].last().unwrap();
        assert_eq!((&closed["reason"], &closed["recovered"]), (&"server_crash".into(), &true.into()), "{closed:#}");
        let row = &on_record[id];
        assert_eq!((&row["state"], &row["reason"]), (&"closed".into(), &"server_crash".into()), "{row:#}");
        for (ours, theirs) in [("rx", "rx_bytes"), ("tx", "tx_bytes")] {
            assert_eq!(row["bytes"][ours], closed["counters"][theirs], "{row:#} {closed:#}");
        }
        let sum = row["bytes"]["rx"].as_u64().unwrap() + row["bytes"]["tx"].as_u64().unwrap();
        assert!(sum >= *bytes, "{sum} bytes on record, {bytes} were seen at the last checkpoint but one: {row:#}");
    }
}

#[test]
fn who_was_there_when_the_process_was_killed_is_closed_told_once_and_on_record() {
    let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
    let mut server = server(&dir, &back_end, "");
    // One that is over before: it stays as it was.
    let gone = Raw::publish(server.rtmp, "live", "gone").start();
    drop(gone);
    back_end.wait_for_ends(1);
    let mut show = Show::start(&server, 5);
    show.go_on(Duration::from_millis(300));
    let seen: BTreeMap<String, u64> = server
        .sessions("")
        .iter()
        .map(|it| {
            let bytes = it["bytes"]["rx"].as_u64().unwrap() + it["bytes"]["tx"].as_u64().unwrap();
            (it["id"].as_str().unwrap().to_owned(), bytes)
        })
        .collect();
    assert_eq!(seen.len(), 6);
    // A report, a checkpoint and a commit later it is on record.
    show.go_on(Duration::from_millis(1_800));
    let ban = json!({"address": "192.0.2.1", "ban_for": "1h"});
    assert_eq!(server.call("POST", "/v1/bans", Some(&ban)).0, 200);
    let before = server.get("/v1/bans").1["bans"].clone();
    // The ban is committed as events are: what was told after it is behind it.
    let last = Raw::publish(server.rtmp, "live", "last").start();
    drop(last);
    back_end.wait_for_ends(2);
    server.kill();

    server.start_again();
    back_end.wait_for_ends(8);
    assert_crashed(&server, &back_end, &seen);
    assert_eq!(history(&server).len(), 8);
    let after = server.get("/v1/bans").1["bans"].clone();
    assert_eq!((&after[0]["id"], &after[0]["address"]), (&before[0]["id"], &before[0]["address"]), "{after:#}");
    // What players counted is at least what is on record of them.
    let on_record = history(&server);
    for player in &show.players {
        let row = on_record.values().find(|it| it["remote"] == player.local().to_string()).unwrap();
        assert!(row["bytes"]["tx"].as_u64() <= Some(player.received), "{row:#}");
    }
    // A second start finds nothing more to close.
    server.kill();
    server.start_again();
    server.settle();
    back_end.assert_whole();
    assert_eq!(back_end.told_of("session.closed").len(), 8);
    assert_eq!(history(&server).len(), 8);
}

#[test]
fn what_a_dead_receiver_missed_before_the_kill_it_hears_after() {
    let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
    let mut server = server(&dir, &back_end, "");
    back_end.go_down();
    let mut show = Show::start(&server, 3);
    for _ in 0..3 {
        drop(Raw::publish(server.rtmp, "live", "passing").start());
        server.wait_for_sessions("stream=passing", 0);
    }
    show.go_on(Duration::from_millis(500));
    server.kill();
    server.start_again();
    back_end.go_up();
    let ended = back_end.wait_for_ends(7);
    server.settle();
    back_end.assert_whole();
    let crashed = ended.iter().filter(|it| it["recovered"] == true).count();
    assert_eq!((ended.len(), crashed), (7, 4));
}

#[test]
fn a_stream_that_was_online_when_the_process_was_killed_is_told_offline_once() {
    let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
    let mut server = Server::start(&format!(
        "[stream]\nresume_window = \"1m\"\n{}{}",
        Server::ledger_of(&dir),
        back_end.tell("events = [\"*\"]")
    ));
    let mut show = Show::start(&server, 1);
    // One whose publisher may come back, which nobody waits for after a kill.
    let mut idle = Raw::publish(server.rtmp, "live", "idle").start();
    idle.send_picture(0);
    server.wait_for_sessions("state=running", 3);
    drop(idle);
    back_end.wait_for_ends(1);
    eventually("it is idle", || back_end.told_of("stream.idle").len() == 1);
    show.go_on(Duration::from_millis(100));
    assert_eq!(back_end.told_of("stream.online").len(), 2);
    server.kill();
    server.start_again();
    back_end.wait_for_ends(3);
    eventually("both are told offline", || back_end.told_of("stream.offline").len() == 2);
    for event in back_end.told_of("stream.offline") {
        assert_eq!((&event["reason"], &event["recovered"]), (&"server_crash".into(), &true.into()), "{event:#}");
        let online = back_end.told_of("stream.online");
        let before = online.iter().find(|it| it["stream"]["stream"] == event["stream"]["stream"]).unwrap();
        assert_eq!(before["stream"]["publisher"], event["stream"]["publisher"], "{event:#}");
    }
    server.kill();
    server.start_again();
    server.settle();
    back_end.assert_whole();
    assert_eq!(back_end.told_of("stream.offline").len(), 2, "once");
}

#[test]
fn a_kill_during_the_drain_loses_nobody() {
    let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
    let mut server = server(&dir, &back_end, "[shard]\ndrain_timeout = \"4s\"\n");
    let mut show = Show::start(&server, 8);
    // Whoever came a moment ago is not on record yet, and nobody was told of him either.
    eventually("their starts are told", || back_end.told_of("session.started").len() == 9);
    server.signal(libc::SIGTERM);
    eventually("some have gone", || {
        show.go_on(Duration::ZERO);
        show.players.iter().filter(|it| it.closed).count() > 1
    });
    server.kill();
    server.start_again();
    let ended = back_end.wait_for_ends(9);
    server.settle();
    back_end.assert_whole();
    let count = |reason: &str| ended.iter().filter(|it| it["reason"] == reason).count();
    assert_eq!(count("drain") + count("server_crash"), 9, "{ended:#?}");
    assert!(count("server_crash") > 0, "none was left");
    assert!(ended.iter().all(|it| (it["reason"] == "server_crash") == (it["recovered"] == true)), "{ended:#?}");
    assert_eq!(history(&server).len(), 9);
}

#[test]
fn kills_at_any_moment_of_comings_and_goings_leave_no_start_without_its_stop() {
    let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
    back_end.fail_every(5);
    let mut server = server(&dir, &back_end, "");
    for round in 0..4 {
        let (rtmp, stop) = (server.rtmp, std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let until = std::sync::Arc::clone(&stop);
        let comings = std::thread::spawn(move || {
            let mut number = 0;
            while !until.load(std::sync::atomic::Ordering::Relaxed) {
                number += 1;
                if std::net::TcpStream::connect(rtmp).is_err() {
                    return;
                }
                let mut raw = Raw::publish(rtmp, "live", &format!("comes-{round}-{number}"));
                raw.pump_until(Duration::from_millis(100), |it| it.started);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        // Not on the beat of anything.
        std::thread::sleep(Duration::from_millis(170 + 97 * round));
        server.kill();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = comings.join();
        server.start_again();
    }
    // Whoever came in the last life is gone too; every start that was told has its stop.
    eventually("all is told", || {
        let opened = back_end.told_of("session.opened").len();
        opened > 0 && opened == back_end.told_of("session.closed").len() && opened == history(&server).len()
    });
    back_end.assert_whole();
    assert!(history(&server).values().all(|it| it["state"] == "closed"));
    assert_whole_files(&dir);
}

#[test]
fn sums_outlive_the_process() {
    let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
    let mut server = server(&dir, &back_end, "");
    let mut show = Show::start(&server, 2);
    show.go_on(Duration::from_millis(100));
    drop(show);
    server.wait_for_sessions("", 0);
    back_end.wait_for_ends(3);
    // One that never becomes a session.
    let mut stranger = std::net::TcpStream::connect(server.rtmp).unwrap();
    std::io::Write::write_all(&mut stranger, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let summary = |server: &Server| server.get("/v1/summary").1["collectors"]["rtmp"].clone();
    eventually("the stranger is counted", || !summary(&server)["attempts"].as_array().unwrap().is_empty());
    let sums = |server: &Server| server.get("/v1/history/summary").1["total"]["sums"].clone();
    let finished = |server: &Server| server.get("/v1/summary").1["collectors"]["rtmp"]["finished"].clone();
    let before = (sums(&server), finished(&server));
    assert_eq!((&before.0["sessions"], &before.1["sessions"]), (&3.into(), &3.into()), "{before:#?}");
    assert!(before.1["bytes"]["tx"].as_u64().unwrap() > 0, "{before:#?}");
    let all = summary(&server);
    assert_eq!(all["opened"], 3, "{all:#}");
    // What is told is committed: behind it is the attempt.
    drop(Raw::publish(server.rtmp, "live", "last").start());
    back_end.wait_for_ends(4);
    let all = summary(&server);
    let before = (sums(&server), finished(&server), all);
    assert_eq!((&before.2["opened"], before.2["reasons"].as_array().unwrap().is_empty()), (&4.into(), false));
    server.kill();
    server.start_again();
    assert_eq!((sums(&server), finished(&server), summary(&server)), before);
    // The same after a stop in good order.
    server.signal(libc::SIGTERM);
    server.wait(std::time::Duration::from_secs(30));
    server.start_again();
    assert_eq!((sums(&server), finished(&server), summary(&server)), before);
}

#[test]
fn kills_in_the_middle_of_the_recovery_tell_nothing_twice_and_forget_nothing() {
    let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
    let mut server = server(&dir, &back_end, "");
    let mut show = Show::start(&server, 20);
    show.go_on(Duration::from_millis(200));
    server.kill();
    // From before the files are open until after receivers are told.
    for after in [5, 15, 25, 40, 60, 90] {
        server.start_and_kill(Duration::from_millis(after));
    }
    server.start_again();
    back_end.wait_for_ends(21);
    server.settle();
    let told = back_end.assert_whole();
    assert_eq!(told.len(), 21);
    for events in told.values() {
        let closed = events.last().unwrap();
        assert_eq!((&closed["reason"], &closed["recovered"]), (&"server_crash".into(), &true.into()), "{closed:#}");
    }
    assert!(history(&server).values().all(|it| it["reason"] == "server_crash"));
    assert_whole_files(&dir);
    assert_eq!(server.get("/v1/history/summary").1["total"]["sums"]["sessions"], 21);
}

#[test]
fn who_waited_for_an_answer_when_the_process_was_killed_is_closed_and_told() {
    let (back_end, dir) =
        (BackEnd::answering(|_| Say::yes(json!({})).after(Duration::from_secs(30))), tempfile::tempdir().unwrap());
    let mut server = server(&dir, &back_end, &format!("[admission]\nanswer_timeout = \"1m\"\n{}", back_end.ask("")));
    let mut waiting = Raw::publish(server.rtmp, "live", "asked");
    waiting.pump_until(Duration::from_secs(5), |_| !back_end.told_of("session.opened").is_empty());
    assert_eq!(server.sessions("state=establishing").len(), 1);
    server.kill();
    server.start_again();
    let closed = back_end.wait_for_ends(1);
    assert_eq!((&closed[0]["reason"], &closed[0]["recovered"]), (&"server_crash".into(), &true.into()), "{closed:#?}");
    let told = back_end.assert_whole();
    assert!(told.values().flatten().all(|event| event["type"] != "session.started"), "{told:#?}");
    assert_eq!(history(&server).values().next().unwrap()["started_at"], Value::Null);
}

/// What a crash leaves of a life in which so many played: made by a ledger, without the server around it.
fn crash_with(directory: &std::path::Path, players: u64) {
    use sluicegate::event::Event;
    use sluicegate::ledger::{Entry, Settings};
    use sluicegate::names::{Kind, Name, SessionId, StreamKey};
    use sluicegate::session::{Change, Counters, What};
    let elsewhere = tempfile::tempdir().unwrap();
    let settings = Settings { directory: elsewhere.path().to_str().unwrap().into(), ..Settings::default() };
    let (wall, start) = (sluicegate::stdx::clock::WallAnchor::now(), std::time::Instant::now());
    let opened_unix_ms = wall.unix_ms(start);
    let ledger = sluicegate::ledger::open(&settings, wall, start).unwrap().start().unwrap();
    let name = |text| Name::stream(text).unwrap();
    let mut ids = Vec::new();
    for n in 0..players {
        let mut tail = [0; 10];
        tail[2..].copy_from_slice(&n.to_be_bytes());
        let (id, key) =
            (SessionId::new(opened_unix_ms, tail), StreamKey::new(&name("default"), &name("live"), &name("crowd")));
        let facts = std::sync::Arc::new(crate::facts::facts(n, id, Kind::Play, key, start, opened_unix_ms));
        ids.push((facts.id, Counters { tx_bytes: 1_000, ..Counters::default() }));
        for (seq, what) in [(1, What::Opened), (2, What::Started)] {
            let change = Change { facts: facts.clone(), seq, at: start, what };
            let number = 2 * n + u64::from(seq);
            ledger.record(Entry { number, event: std::sync::Arc::new(Event::Session(change)), tells: Vec::new() });
        }
        while ledger.status().queue_bytes > 24 << 20 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let committed = ledger.committed();
    eventually("all are on record", || *committed.borrow() == 2 * players);
    let records = ledger.status().records;
    ledger.checkpoint(start, ids);
    eventually("their bytes are, too", || ledger.status().records >= records + players);
    std::fs::create_dir(directory).unwrap();
    for entry in std::fs::read_dir(elsewhere.path()).unwrap().flatten() {
        std::fs::copy(entry.path(), directory.join(entry.file_name())).unwrap();
    }
    assert!(ledger.stop(Duration::from_secs(30)));
}

#[test]
fn fa_15_a_crowd_that_a_crash_left_is_closed_and_counted_while_others_come() {
    const CROWD: u64 = 30_000;
    let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
    crash_with(&dir.path().join("ledger"), CROWD);
    let mut server = server(&dir, &back_end, "");
    // Whoever comes is served, on record and told of.
    let mut show = Show::start(&server, 1);
    show.go_on(Duration::from_millis(100));
    drop(show);
    let sums = |server: &Server| {
        let finished = server.get("/v1/summary").1["collectors"]["rtmp"]["finished"].clone();
        (finished["sessions"].as_u64().unwrap(), finished["bytes"]["tx"].as_u64().unwrap())
    };
    eventually("all are counted", || sums(&server).0 == CROWD + 2);
    assert!(sums(&server).1 >= CROWD * 1_000, "{:?}", sums(&server));
    eventually("and on record", || {
        server.get("/v1/history/summary").1["total"]["sums"]["sessions"].as_u64() == Some(CROWD + 2)
    });
    server.kill();
    server.start_again();
    eventually("the sums are the same afterwards", || sums(&server).0 == CROWD + 2);
    assert_whole_files(&dir);
}
