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
