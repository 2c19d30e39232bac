//! What receivers hear: every session from its start to its end, in order, once, with the right sums.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::back_end::{BackEnd, SECRET};
use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually, free_port};

fn with_ledger(dir: &tempfile::TempDir, rest: &str) -> Server {
    Server::start(&format!("[stream]\nresume_window = \"200ms\"\n{}{rest}", Server::ledger_of(dir)))
}

/// One publisher and some players who take all of it and leave. Returns what each player counted, by its address.
fn a_show(server: &Server, stream: &str, players: usize) -> Vec<(String, u64, u64)> {
    let mut publisher = Raw::publish(server.rtmp, "live", stream).start();
    let mut players: Vec<Raw> = (0..players).map(|_| Raw::play(server.rtmp, "live", stream).start()).collect();
    for number in 0..30 {
        publisher.send_picture(number);
    }
    publisher.finish();
    publisher.pump_until(Duration::from_millis(50), |_| false);
    drop(publisher);
    for player in &mut players {
        assert!(player.pump_until(PATIENCE, |it| it.ended), "the stream does not end");
    }
    players.iter().map(|it| (it.local().to_string(), it.received, it.sent)).collect()
}

#[test]
fn every_session_is_told_from_start_to_end_with_the_bytes_that_the_player_counted() {
    let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
    let server = with_ledger(&dir, &back_end.tell(""));
    let counted = a_show(&server, "told", 5);
    back_end.wait_for_ends(6);
    let sessions = back_end.assert_whole();
    assert_eq!((sessions.len(), back_end.repeats()), (6, 0));
    for (id, events) in &sessions {
        let names: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        let at = |name: &str| names.iter().position(|it| *it == name);
        assert!(at("session.authorized") < at("session.started") && at("session.started").is_some(), "{names:?}");
        let closed = &events[events.len() - 1];
        let shown = server.get(&format!("/v1/sessions/{id}")).1;
        for (ours, theirs) in [("rx", "rx_bytes"), ("tx", "tx_bytes")] {
            assert_eq!(shown["bytes"][ours], closed["counters"][theirs], "{shown:#} {closed:#}");
        }
        assert_eq!(shown["reason"], closed["reason"], "{closed:#}");
        assert_ne!(closed["recovered"], true, "{closed:#}");
    }
    let closed = back_end.told_of("session.closed");
    for (remote, received, sent) in counted {
        let of_player = closed.iter().find(|event| event["session"]["remote"] == remote).unwrap();
        assert_eq!(of_player["counters"]["tx_bytes"], received, "{of_player:#}");
        assert_eq!(of_player["counters"]["rx_bytes"], sent, "{of_player:#}");
    }
    // Events of a stream come in no particular order.
    for name in ["stream.online", "stream.idle", "stream.offline"] {
        assert_eq!(back_end.told_of(name).len(), 1, "{name}");
    }
}

#[test]
fn a_receiver_that_was_away_hears_everything_in_order_and_once() {
    let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
    let updates = "[sessions]\nupdate_every = \"1s\"\n";
    let server = with_ledger(&dir, &format!("{updates}{}", back_end.tell("events = [\"session.*\"]")));
    a_show(&server, "before", 2);
    back_end.wait_for_ends(3);
    back_end.go_down();
    let mut calm = crate::support::calm::Calm::start(&server, "meanwhile");
    for round in 0..5 {
        a_show(&server, &format!("away-{round}"), 3);
        calm.beat();
    }
    assert_eq!(back_end.told_of("session.closed").len(), 3, "it hears though it is away");
    eventually("the state is told", || server.metric("sluicegate_hook_breaker", "call=\"tell\"") > 0.0);
    let (_, ready) = server.get("/readyz?verbose=true");
    let checks = ready["checks"].as_array().unwrap().clone();
    assert!(checks.iter().any(|it| it["name"] == "hook.tell" && it["ok"] == false), "{ready:#}");
    back_end.go_up();
    back_end.wait_for_ends(23);
    calm.assert_undisturbed(&server);
    drop(calm);
    back_end.wait_for_ends(25);
    assert_eq!(back_end.assert_whole().len(), 25);
}

#[test]
fn a_receiver_that_fails_now_and_then_hears_everything_in_order_and_once() {
    for batch_max in [1, 20] {
        let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
        back_end.fail_every(4);
        let server = with_ledger(&dir, &back_end.tell(&format!("batch_max = {batch_max}")));
        a_show(&server, "fails", 10);
        back_end.wait_for_ends(11);
        assert_eq!(back_end.assert_whole().len(), 11);
        let (requests, failed) = back_end.requests();
        assert!(failed > 0, "of {requests} requests none failed");
        // All is heard, so nothing is left over for the next life of the server.
        eventually("nothing waits", || server.metric("sluicegate_hook_queue", "call=\"tell\"") == 0.0);
    }
}

#[test]
fn the_receiver_of_the_guide_takes_what_the_server_tells() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/receiver.py");
    let at = free_port();
    let mut receiver = Command::new("python3")
        .arg(script)
        .arg(at.port().to_string())
        .env("SLUICEGATE_SECRETS", SECRET)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the peer python3 is needed");
    let output = BufReader::new(receiver.stdout.take().unwrap());
    let (heard, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| heard.send(line).is_ok()));
    eventually("it listens", || std::net::TcpStream::connect(at).is_ok());

    let dir = tempfile::tempdir().unwrap();
    let tell = format!(
        "[[hook.tell]]\nname = \"guide\"\nurl = \"http://{at}/\"\nsecrets = [\"{SECRET}\"]\nevents = [\"session.closed\"]\n"
    );
    let server = with_ledger(&dir, &tell);
    let counted = a_show(&server, "guide", 3);
    let mut closed: Vec<Value> = Vec::new();
    while closed.len() < 4 {
        let line = lines.recv_timeout(PATIENCE).expect("it is told of every end");
        closed.push(serde_json::from_str(&line).unwrap());
    }
    assert!(lines.recv_timeout(Duration::from_millis(100)).is_err(), "something is told twice");
    for (remote, received, _) in counted {
        assert!(
            closed.iter().any(|it| it["session"]["remote"] == remote && it["counters"]["tx_bytes"] == received),
            "{closed:#?}"
        );
    }
    receiver.kill().unwrap();
    receiver.wait().unwrap();
}

#[test]
fn a_server_that_ends_in_good_order_leaves_nothing_to_recover() {
    let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
    let mut server =
        Server::start(&format!("{}[shard]\ndrain_timeout = \"1s\"\n{}", Server::ledger_of(&dir), back_end.tell("")));
    let mut publisher = Raw::publish(server.rtmp, "live", "orderly").start();
    publisher.send_picture(0);
    let _players: Vec<Raw> = (0..4).map(|_| Raw::play(server.rtmp, "live", "orderly").start()).collect();
    server.wait_for_sessions("kind=play", 4);
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
    let closed = back_end.told_of("session.closed");
    assert_eq!(closed.len(), 5, "the ends are told before the server ends");
    assert!(closed.iter().all(|it| it["reason"] == "drain" && it["recovered"] != true), "{closed:#?}");
    // Nobody comes back within the resume window of a server that is gone.
    let offline = back_end.told_of("stream.offline");
    assert_eq!(offline.len(), 1, "{offline:#?}");
    assert!(offline[0]["reason"] == "drain" && offline[0]["recovered"] != true, "{offline:#?}");

    server.start_again();
    assert!(!server.log().contains("server_crash"));
    server.settle();
    assert_eq!(back_end.assert_whole().len(), 5);
    let history = server.get("/v1/history/sessions?limit=100").1;
    assert_eq!(history["sessions"].as_array().unwrap().len(), 5, "{history:#}");
    assert_eq!(back_end.told_of("stream.offline").len(), 1, "once");
    let names: Vec<_> = back_end.told().iter().map(|it| it["type"].clone()).collect();
    let count = |name: &str| names.iter().filter(|it| **it == name).count();
    assert_eq!((count("server.ready"), count("server.draining")), (2, 1), "{names:?}");
}

#[test]
fn a_dead_receiver_does_not_keep_the_server_from_ending_well() {
    // By one signal, and by a second one that wants it at once.
    for signals in [1, 2] {
        let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
        let mut server = with_ledger(&dir, &back_end.tell(""));
        back_end.go_down();
        let mut publisher = Raw::publish(server.rtmp, "live", "untold").start();
        publisher.send_picture(0);
        server.wait_for_sessions("state=running", 1);
        server.signal(libc::SIGINT);
        publisher.drain();
        drop(publisher);
        if signals > 1 {
            eventually("the last session is over", || server.log().contains("session_closed"));
            server.signal(libc::SIGINT);
        }
        assert_eq!(server.wait(PATIENCE).code(), Some(0), "{signals} signals");
        // The next life tells it.
        back_end.go_up();
        server.start_again();
        let closed = back_end.wait_for_ends(1);
        assert_ne!(closed[0]["recovered"], true, "{closed:#?}");
        back_end.assert_whole();
    }
}

#[test]
fn a_receiver_that_is_away_holds_up_no_other() {
    let (here, away, dir) = (BackEnd::start(), BackEnd::start(), tempfile::tempdir().unwrap());
    away.go_down();
    let to_away = away.tell("events = [\"session.*\"]").replace("\"log\"", "\"away\"");
    let server = with_ledger(&dir, &format!("{}{to_away}", here.tell("events = [\"session.*\"]")));
    a_show(&server, "one", 3);
    here.wait_for_ends(4);
    assert_eq!(here.assert_whole().len(), 4);
    away.go_up();
    away.wait_for_ends(4);
    assert_eq!(away.assert_whole().len(), 4);
    assert_eq!((here.told_of("session.closed").len(), here.repeats()), (4, 0));
}

#[test]
fn a_token_reaches_the_back_end_that_is_asked_and_nobody_else() {
    let (back_end, dir) = (BackEnd::start(), tempfile::tempdir().unwrap());
    let server = with_ledger(&dir, &format!("{}{}", back_end.ask(""), back_end.tell("events = [\"*\"]")));
    let mut publisher = Raw::publish(server.rtmp, "live?token=hunter2", "cam?key=hunter2").start();
    publisher.send_picture(0);
    let mut player = Raw::play(server.rtmp, "live", "cam?sign=hunter2&token=hunter2").start();
    assert!(player.pump_until(PATIENCE, |it| !it.messages.is_empty()));
    let lists = ["/v1/sessions", "/v1/streams", "/v1/node", "/v1/summary", "/metrics", "/v1/history/sessions"];
    let says_nothing = |server: &Server| {
        for path in lists.into_iter().chain(["/v1/history/export?format=csv", "/v1/events?after=0-0&for=100ms"]) {
            let (status, text) = server.call_text("GET", path, None);
            assert_eq!(status, 200, "{path}");
            assert!(!text.contains("hunter2"), "{path}: {text}");
        }
    };
    says_nothing(&server);
    drop((publisher, player));
    back_end.wait_for_ends(2);
    says_nothing(&server);
    assert!(!server.log().contains("hunter2"), "the log has it");
    for event in back_end.told() {
        assert!(!event.to_string().contains("hunter2"), "{event:#}");
    }
    let asked = back_end.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|question| question["session"]["query"].as_str().unwrap().contains("hunter2")));
}
