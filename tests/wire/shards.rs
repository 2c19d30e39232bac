//! Two shards serve one stream.

use std::collections::BTreeSet;

use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server};

#[test]
fn two_shards_both_serve_players_of_one_stream() {
    let server = Server::start("[shard]\ncount = 2");
    let mut publisher = Raw::publish(server.rtmp, "live", "both").start();
    let mut players = Vec::new();
    // The kernel spreads connections by a hash of their ports: sixteen on one shard is one chance in 32,768.
    for _ in 0..16 {
        players.push(Raw::play(server.rtmp, "live", "both").start());
    }
    let sessions = server.wait_for_sessions("kind=play", 16);
    let shards: BTreeSet<u64> = sessions.iter().map(|it| it["shard"].as_u64().unwrap()).collect();
    assert_eq!(shards.len(), 2, "{shards:?}");
    for number in 0..50 {
        publisher.send_picture(number);
    }
    for player in &mut players {
        assert!(
            player.pump_until(PATIENCE, |it| it.messages.iter().filter(|m| m.type_id == 8).count() >= 40),
            "{} messages",
            player.messages.len()
        );
    }
    crate::support::eventually("sixteen viewers are counted", || {
        server.get("/v1/streams").1["streams"][0]["viewers"] == 16
    });
}

#[test]
fn who_joins_in_the_resume_window_sees_the_stream_end_on_every_shard() {
    let server = Server::start("[shard]\ncount = 2\n[stream]\nresume_window = \"1s\"");
    let mut publisher = Raw::publish(server.rtmp, "live", "late").start();
    for number in 0..30 {
        publisher.send_picture(number);
    }
    server.wait_for_sessions("kind=publish&state=running", 1);
    drop(publisher);
    server.wait_for_sessions("kind=publish", 0);
    let mut players: Vec<Raw> = (0..8).map(|_| Raw::play(server.rtmp, "live", "late").start()).collect();
    for player in &mut players {
        assert!(player.pump_until(PATIENCE, |it| it.ended), "the stream does not end for {}", player.local());
        assert!(player.messages.iter().any(|message| message.type_id == 9), "it got nothing of what is kept");
    }
}

#[test]
fn viewers_follow_a_publisher_that_comes_back_on_another_shard() {
    let server = Server::start("[shard]\ncount = 2\n[stream]\nresume_window = \"10s\"");
    let mut players: Vec<Raw> = (0..8).map(|_| Raw::play(server.rtmp, "live", "moves").start()).collect();
    let mut homes = BTreeSet::new();
    let mut number = 0;
    // Until the publisher has been on both shards.
    for _ in 0..40 {
        let mut publisher = Raw::publish(server.rtmp, "live", "moves").start();
        let session = server.wait_for_sessions("kind=publish", 1)[0].clone();
        homes.insert(session["shard"].as_u64().unwrap());
        let before: Vec<usize> = players.iter().map(|player| player.messages.len()).collect();
        for _ in 0..3 {
            publisher.send_picture(number * 25);
            number += 1;
        }
        for (player, before) in players.iter_mut().zip(before) {
            assert!(player.pump_until(PATIENCE, |it| it.messages.len() > before + 3), "a viewer was lost");
            assert!(!player.ended);
        }
        drop(publisher);
        server.wait_for_sessions("kind=publish", 0);
        if homes.len() == 2 {
            return;
        }
    }
    panic!("forty publishers on one shard");
}
