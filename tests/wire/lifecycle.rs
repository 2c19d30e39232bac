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
