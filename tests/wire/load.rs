//! A server under pressure: what it refuses, what it goes on with, and how it comes back. Descriptors are what a test can
//! take away from a server at will.

use std::time::Duration;

use serde_json::Value;

use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually};

/// A server with a publisher and enough players for one descriptor to be less than a hundredth of all.
fn busy_server() -> (Server, Raw, Vec<Raw>) {
    let server = Server::start("[shard]\ncount = 1\n[rtmp]\nmedia_timeout = \"1h\"");
    let mut publisher = Raw::publish(server.rtmp, "live", "load").start();
    publisher.send_picture(0);
    let players = (0..200).map(|_| Raw::play(server.rtmp, "live", "load").start()).collect();
    server.wait_for_sessions("kind=play", 200);
    (server, publisher, players)
}

fn state(server: &Server) -> Value {
    server.get("/v1/node").1["load_state"].clone()
}

#[test]
fn load_orange_refuses_viewers_and_makes_no_lists_and_green_comes_back() {
    let (server, mut publisher, mut players) = busy_server();
    let id = server.sessions("kind=publish")[0]["id"].as_str().unwrap().to_owned();
    server.limit_descriptors(server.descriptors() * 100 / 90);
    eventually("it is orange", || state(&server) == "orange");

    let mut viewer = Raw::play(server.rtmp, "live", "load");
    assert!(viewer.pump_until(PATIENCE, |it| it.started || it.refused.is_some()));
    let refusal = viewer.refused.clone().expect("a viewer was let in");
    assert!(refusal.1.contains("overloaded"), "{refusal:?}");
    drop(viewer);
    let other = Raw::publish(server.rtmp, "live", "other").start();

    for list in ["/v1/sessions", "/v1/streams", "/api/v3/session/active"] {
        assert_eq!(server.get(list).0, 503, "{list}");
    }
    assert_eq!(server.get("/v1/sessions").1["type"], "urn:sluicegate:problem:overloaded");
    assert_eq!(server.get(&format!("/v1/sessions/{id}")).0, 200);
    assert_eq!(server.get("/readyz").0, 200);
    assert_eq!(server.metric("sluicegate_load_state", "") as u64, 2);
    // Who is here stays.
    publisher.send_picture(1);
    let before = players[0].messages.len();
    assert!(players[0].pump_until(PATIENCE, |it| it.messages.len() > before + 1));
    drop(other);

    server.limit_descriptors(10_000);
    eventually("it is green", || state(&server) == "green");
    assert_eq!(server.sessions("kind=play").len(), 200);
    Raw::play(server.rtmp, "live", "load").start();
    let log = server.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("load_state")).collect();
    assert!(told.iter().any(|line| line.contains("state=orange")), "{told:?}");
    assert!(told.last().unwrap().contains("state=green"), "{told:?}");
}

#[test]
fn load_red_takes_nobody_and_says_that_it_is_not_ready() {
    let (server, _publisher, players) = busy_server();
    server.limit_descriptors(server.descriptors() * 1_000 / 972);
    eventually("it is red", || state(&server) == "red");
    let (status, body) = server.get("/readyz");
    assert_eq!((status, &body["status"]), (503, &"overloaded".into()));
    assert_eq!(server.get("/healthz").0, 200);

    // The listener was waiting for somebody when it was told: that one comes in, and is refused whatever it wants.
    let mut first = Raw::publish(server.rtmp, "live", "late");
    assert!(first.pump_until(PATIENCE, |it| it.started || it.refused.is_some()));
    assert!(first.refused.expect("a publisher was let in").1.contains("overloaded"));
    let mut waits = Raw::publish(server.rtmp, "live", "late");
    waits.pump_until(Duration::from_secs(1), |it| it.received > 0);
    assert_eq!((waits.received, waits.closed), (0, false), "the peer was not left in the backlog");
    assert!(server.metric("sluicegate_accept_paused_seconds_total", "") > 0.0);

    // Once there is room again it is let in.
    server.limit_descriptors(10_000);
    assert!(waits.pump_until(PATIENCE, |it| it.started || it.closed) && waits.started);
    assert_eq!(server.get("/readyz").0, 200);
    assert_eq!(players.len(), 200);
}

#[test]
fn fa_19_peers_wait_in_the_backlog_while_there_are_no_descriptors() {
    let server = Server::start("[shard]\ncount = 1");
    let before = server.descriptors();
    server.limit_descriptors(server.lowest_free_descriptor());
    // The kernel holds an armed accept to the limit of the moment it was armed in: that one still comes in.
    let last = Raw::publish(server.rtmp, "live", "last").start();
    let mut peers: Vec<Raw> = (0..5).map(|_| Raw::publish(server.rtmp, "live", "a")).collect();
    eventually("accepting pauses", || server.log().contains("accepting pauses"));
    for peer in &mut peers {
        peer.pump_until(Duration::from_millis(200), |it| it.received > 0);
        assert_eq!((peer.received, peer.closed), (0, false), "a peer was served or closed without a descriptor");
    }
    assert!(server.descriptors() <= before + 1);
    server.limit_descriptors(10_000);
    for (number, peer) in peers.iter_mut().enumerate() {
        assert!(peer.pump_until(PATIENCE, |it| it.received > 0), "peer {number} was forgotten");
    }
    drop(last);
    eventually("all were accepted", || server.metric("sluicegate_accepted_total", "") as u64 == 6);
    assert_eq!(server.metric("sluicegate_refused_total", "") as u64, 0);
    assert!(server.metric("sluicegate_accept_paused_seconds_total", "") > 0.0);
    // A listener that spins would have tried thousands of times and written as many lines.
    let pauses = server.metric("sluicegate_accept_pauses_total", "") as u64;
    assert!((1..100).contains(&pauses), "{pauses}");
    eventually("its end is told", || server.log().contains("accepting goes on"));
    assert_eq!(server.log().matches("accepting pauses").count(), 1, "{}", server.log());
}

#[test]
fn fanout_and_first_media_are_measured() {
    let server = Server::start("");
    let mut publisher = Raw::publish(server.rtmp, "live", "times").start();
    publisher.send_picture(0);
    let mut player = Raw::play(server.rtmp, "live", "times").start();
    for number in 1..20 {
        publisher.send_picture(number);
    }
    assert!(player.pump_until(PATIENCE, |it| it.messages.len() >= 30));
    eventually("the fan-out is measured", || server.metric("sluicegate_fanout_seconds_count", "") > 0.0);
    eventually("and the player's wait", || {
        server.metric("sluicegate_time_to_first_media_seconds_count", "") as u64 == 1
    });
    let id = server.sessions("kind=play")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.call("DELETE", &format!("/v1/sessions/{id}"), None).0, 200);
    eventually("and the kick", || server.metric("sluicegate_kick_seconds_count", "") as u64 == 1);
}
