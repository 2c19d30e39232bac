//! Start, drain, stop.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server};

#[test]
fn sigterm_says_goodbye_and_ends_within_the_deadline() {
    let mut server = Server::start("[shard]\ncount = 2\ndrain_timeout = \"2s\"");
    let mut publisher = Raw::publish(server.rtmp, "live", "drain").start();
    publisher.send_picture(0);
    let mut players: Vec<Raw> = (0..10).map(|_| Raw::play(server.rtmp, "live", "drain").start()).collect();
    server.wait_for_sessions("kind=play", 10);
    let began = Instant::now();
    server.signal(libc::SIGTERM);
    for player in &mut players {
        player.drain();
        assert!(player.statuses.iter().any(|code| code == "NetConnection.Connect.Closed"), "{:?}", player.statuses);
    }
    publisher.drain();
    assert_eq!(server.wait(PATIENCE).code(), Some(0), "{}", server.log());
    // Not a speed test: a server that ignores its deadline would take the default of 30 s.
    assert!(began.elapsed() < Duration::from_secs(15));
    assert!(TcpStream::connect(server.rtmp).is_err(), "the port is still open");
    let log = server.log();
    let closed: Vec<&str> = log.lines().filter(|line| line.contains("session_closed")).collect();
    assert_eq!(closed.len(), 11, "{log}");
    assert!(closed.iter().all(|line| line.contains("reason=drain")), "{log}");
    assert!(log.contains("ev=stopping how=drain "), "{log}");
}

#[test]
fn viewers_leave_one_by_one_over_the_whole_of_a_drain() {
    let mut server = Server::start("[shard]\ncount = 1\ndrain_timeout = \"5s\"");
    let mut publisher = Raw::publish(server.rtmp, "live", "drain").start();
    publisher.send_picture(0);
    let mut players: Vec<Raw> = (0..12).map(|_| Raw::play(server.rtmp, "live", "drain").start()).collect();
    server.wait_for_sessions("kind=play", 12);
    server.signal(libc::SIGTERM);
    let began = Instant::now();
    let mut left_at = vec![None; players.len()];
    while left_at.contains(&None) {
        assert!(began.elapsed() < PATIENCE, "{left_at:?}");
        for (player, left_at) in players.iter_mut().zip(&mut left_at) {
            player.pump_until(Duration::from_millis(1), |it| it.closed);
            if player.closed && left_at.is_none() {
                *left_at = Some(began.elapsed());
            }
        }
    }
    // Of the 4.5 s that are theirs, the first leaves at the beginning and the last in the last twelfth. A machine that
    // stands still now and then makes them leave later, and together only if it stands still for seconds.
    let (first, last) = (left_at.iter().flatten().min().unwrap(), left_at.iter().flatten().max().unwrap());
    assert!(*last - *first > Duration::from_secs(2), "{left_at:?}");
    publisher.drain();
    assert_eq!(server.wait(PATIENCE).code(), Some(0), "{}", server.log());
}

#[test]
fn a_drain_without_a_time_takes_what_is_configured_now() {
    let server = Server::start("[shard]\ndrain_timeout = \"60s\"");
    let text = std::fs::read_to_string(server.config_path()).unwrap();
    server.replace_config(&text.replace("\"60s\"", "\"7s\""));
    assert_eq!(server.call("POST", "/v1/reload", None).0, 200);
    let (status, answer) = server.call("POST", "/v1/drain", Some(&serde_json::json!({})));
    assert_eq!((status, &answer["over_ms"]), (202, &7_000.into()), "{answer}");
}

#[test]
fn nobody_is_admitted_while_draining() {
    let server = Server::start("[shard]\ndrain_timeout = \"20s\"");
    let mut publisher = Raw::publish(server.rtmp, "live", "stays").start();
    publisher.send_picture(0);
    assert_eq!(server.get("/readyz").0, 200);
    server.signal(libc::SIGTERM);
    crate::support::eventually("not ready", || server.get("/readyz").0 == 503);
    assert_eq!(server.get("/healthz").0, 200);
    crate::support::eventually("the port is closed", || match TcpStream::connect(server.rtmp) {
        Err(_) => true,
        Ok(mut socket) => {
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            matches!(socket.read(&mut [0; 1]), Ok(0))
        }
    });
}

#[test]
fn sigint_ends_at_once() {
    let mut server = Server::start("[shard]\ndrain_timeout = \"60s\"");
    let mut publisher = Raw::publish(server.rtmp, "live", "int").start();
    publisher.send_picture(0);
    server.signal(libc::SIGINT);
    server.wait(Duration::from_secs(15));
    publisher.drain();
}

/// A server whose receiver takes connections and never answers, with a publisher that it is to hear of.
fn with_a_dead_receiver() -> (Server, Raw, std::net::TcpListener, tempfile::TempDir) {
    let receiver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&format!(
        "[shard]\ndrain_timeout = \"60s\"\n[ledger]\ndirectory = \"{}\"\n[[hook.tell]]\nname = \"dead\"\n\
         url = \"http://{}/\"\nsecrets = [\"b3BlbiBzZXNhbWUgcGxlYXNl\"]\nallow_private = true\n",
        folder.path().join("ledger").display(),
        receiver.local_addr().unwrap(),
    ));
    let mut publisher = Raw::publish(server.rtmp, "live", "dead").start();
    publisher.send_picture(0);
    server.wait_for_sessions("kind=publish&state=running", 1);
    (server, publisher, receiver, folder)
}

/// The log of the ledger's only day is empty or gone: the file was closed in good order.
fn is_closed(folder: &std::path::Path) -> bool {
    let files = std::fs::read_dir(folder.join("ledger")).unwrap().flatten();
    let mut logs = files.filter(|file| file.file_name().to_string_lossy().ends_with(".db-wal"));
    logs.all(|log| log.metadata().unwrap().len() == 0)
}

#[test]
fn a_receiver_that_is_dead_does_not_keep_an_end_at_once_from_being_in_good_order() {
    let (mut server, _publisher, _receiver, folder) = with_a_dead_receiver();
    server.signal(libc::SIGINT);
    assert_eq!(server.wait(PATIENCE).code(), Some(0), "{}", server.log());
    assert!(is_closed(folder.path()), "{}", server.log());
}

#[test]
fn a_second_signal_ends_in_good_order_though_a_receiver_is_dead() {
    let (mut server, _publisher, _receiver, folder) = with_a_dead_receiver();
    for signal in [libc::SIGTERM, libc::SIGINT] {
        server.signal(signal);
        crate::support::eventually("it is stopping", || server.log().contains("the server is stopping"));
    }
    assert_eq!(server.wait(PATIENCE).code(), Some(0), "{}", server.log());
    assert!(is_closed(folder.path()), "{}", server.log());
}

#[test]
fn signals_that_this_server_does_not_obey_are_told_and_harmless() {
    let server = Server::start("");
    let mut publisher = Raw::publish(server.rtmp, "live", "usr").start();
    publisher.send_picture(0);
    let before = server.wait_for_sessions("kind=publish&state=running", 1);
    server.signal(libc::SIGUSR1);
    server.signal(libc::SIGUSR2);
    crate::support::eventually("both are answered in the log", || {
        let log = server.log();
        let told = |what: &[&str]| log.lines().any(|line| what.iter().all(|part| line.contains(part)));
        told(&["signal=SIGUSR1", "standard error"]) && told(&["signal=SIGUSR2", "by a restart"])
    });
    publisher.send_picture(1);
    let after = server.wait_for_sessions("kind=publish&state=running", 1);
    assert_eq!(after[0]["id"], before[0]["id"]);
    assert_eq!(server.get("/readyz").0, 200);
}
