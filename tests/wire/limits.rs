//! What one source, one shard and strangers altogether may do.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually};

/// Connects and says nothing.
fn strangers(server: &Server, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(server.rtmp).expect("the server listens")).collect()
}

/// How many of them the server has closed.
fn closed(sockets: &mut [TcpStream]) -> usize {
    let is_closed = |socket: &mut TcpStream| {
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        match socket.read(&mut [0; 1]) {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    };
    sockets.iter_mut().map(is_closed).filter(|closed| *closed).count()
}

fn hits(server: &Server, limit: &str) -> usize {
    server.metric("sluicegate_limit_hits_total", &format!("limit=\"{limit}\"")) as usize
}

#[test]
fn limits_unauthenticated_per_ip_hold_for_all_shards_together() {
    let server = Server::start("[shard]\ncount = 2\nunauthenticated_per_ip = 4\n[rtmp]\nhandshake_timeout = \"60s\"");
    let mut sockets = strangers(&server, 24);
    eventually("twenty are closed", || closed(&mut sockets) >= 20);
    assert_eq!(closed(&mut sockets), 20);
    eventually("and counted", || hits(&server, "ip") == 20);
    eventually("four are reported", || server.metric("sluicegate_connections", "") as usize == 4);
    // Each that leaves makes room for one, whichever shard it was on.
    drop(sockets);
    eventually("their places are free", || server.metric("sluicegate_connections", "") as usize == 0);
    let mut sockets = strangers(&server, 4);
    eventually("four are in", || server.metric("sluicegate_connections", "") as usize == 4);
    assert_eq!(closed(&mut sockets), 0);
}

#[test]
fn limits_connections_per_ip_hold_for_all_shards_together_and_count_who_was_admitted() {
    let server = Server::start("[shard]\ncount = 2\nconnections_per_ip = 6");
    let mut publisher = Raw::publish(server.rtmp, "live", "few").start();
    publisher.send_picture(0);
    let mut players: Vec<Raw> = (0..5).map(|_| Raw::play(server.rtmp, "live", "few").start()).collect();
    let mut beyond = strangers(&server, 7);
    eventually("all seven are closed", || closed(&mut beyond) == 7);
    eventually("and counted", || hits(&server, "ip") == 7);
    drop(players.pop());
    server.wait_for_sessions("kind=play", 4);
    eventually("a place is free", || {
        let mut player = Raw::play(server.rtmp, "live", "few");
        player.pump_until(PATIENCE, |it| it.started || it.closed);
        player.started
    });
}

#[test]
fn limits_accept_rate_per_ip_closes_and_counts() {
    let server = Server::start("[shard]\ncount = 2\naccept_rate_per_ip = 1");
    let mut sockets = strangers(&server, 100);
    let beyond = || server.metric("sluicegate_refused_total", "") as usize;
    eventually("all were seen", || server.metric("sluicegate_accepted_total", "") as usize == 100);
    assert!(beyond() > 0, "a hundred came at once and all were let in");
    assert_eq!(hits(&server, "accept_rate_per_ip"), beyond());
    eventually("who was refused was closed", || closed(&mut sockets) == beyond());
}

#[test]
fn limits_accept_rate_leaves_peers_in_the_backlog_until_it_is_their_turn() {
    // One at a time, ten a second.
    let server = Server::start("[shard]\ncount = 1\naccept_rate = 10");
    let mut players: Vec<Raw> = (0..8).map(|_| Raw::play(server.rtmp, "live", "slow")).collect();
    for player in &mut players {
        assert!(player.pump_until(PATIENCE, |it| it.started || it.closed) && player.started, "a peer was turned away");
    }
    assert!(hits(&server, "accept_rate") > 0);
    assert_eq!(server.metric("sluicegate_refused_total", "") as usize, 0);
    assert!(server.metric("sluicegate_accept_paused_seconds_total", "") > 0.0);
}

#[test]
fn limits_unauthenticated_close_whoever_has_been_a_stranger_for_longest() {
    let config =
        "[shard]\ncount = 1\nconnections_max = 20\nunauthenticated_percent = 20\n[rtmp]\nhandshake_timeout = \"60s\"";
    let server = Server::start(config);
    let mut player = Raw::play(server.rtmp, "live", "calm").start();
    let mut sockets = Vec::new();
    for count in 1..=4 {
        sockets.extend(strangers(&server, 1));
        eventually("it is in", || server.metric("sluicegate_connections_unauthenticated", "") as usize == count);
    }
    assert_eq!(closed(&mut sockets), 0);
    let mut newcomers = strangers(&server, 3);
    eventually("the oldest made room", || closed(&mut sockets[..3]) == 3);
    assert_eq!((closed(&mut sockets[3..]), closed(&mut newcomers)), (0, 0));
    eventually("it is counted", || hits(&server, "unauthenticated") == 3);
    // Whoever is admitted is not meant.
    player.pump_until(Duration::from_millis(100), |_| false);
    assert!(!player.closed);
}

#[test]
fn limits_auth_failures_per_ip_end_the_asking() {
    let server = Server::start("[shard]\ncount = 2\nauth_failures_per_ip = 2\n[admission]\npublish = \"deny\"");
    let refusal = |raw: Raw| {
        let mut raw = raw;
        assert!(raw.pump_until(PATIENCE, |it| it.started || it.refused.is_some()));
        raw.refused.expect("nobody may publish").1
    };
    let mut told = Vec::new();
    for _ in 0..7 {
        told.push(refusal(Raw::publish(server.rtmp, "live", "guess")));
    }
    // Four at once and one that was too much; an attempt in a minute or two is not on this test's time.
    assert!(told[..5].iter().all(|text| text.contains("not allowed")), "{told:?}");
    assert!(told[5..].iter().all(|text| text.contains("limit")), "{told:?}");
    // The source is refused, whatever it asks for.
    assert!(refusal(Raw::play(server.rtmp, "live", "guess")).contains("limit"));
    eventually("it is counted", || hits(&server, "auth_failures_per_ip") == 3);
}
