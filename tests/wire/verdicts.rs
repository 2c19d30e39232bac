//! What happens while it is open who may publish.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluicegate::proto::rtmp::message::type_id::VIDEO;

#[cfg(feature = "faults")]
use crate::support::eventually;
use crate::support::hand::{Hand, picture, picture_number};
use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server};

#[test]
fn rt_36_media_without_a_publish_closes_and_is_counted() {
    let server = Server::start("");
    let mut calm = crate::support::calm::Calm::start(&server, "calm");
    // From somebody who has asked for nothing, and from somebody who plays.
    let mut nobody = Hand::connected(server.rtmp, "live");
    nobody.message(VIDEO, 1, 0, &picture(true, 0, 100));
    assert_eq!(server.wait_for_attempt(nobody.local()), ("protocol_error".into(), "media_before_publish".into()));
    let mut player = Hand::playing(server.rtmp, "live", "calm");
    let session = player.session(&server);
    player.message(VIDEO, 1, 0, &picture(true, 0, 100));
    let ended = player.wait_for_end(&server, &session);
    assert_eq!(
        (&ended["reason"], &ended["detail"]),
        (&"protocol_error".into(), &"media_before_publish".into()),
        "{ended:#}"
    );
    nobody.drain();
    player.drain();
    calm.assert_undisturbed(&server);
}

/// Control stands still for a second over this name.
#[cfg(feature = "faults")]
const SLOW: &str = "fault-slow-control";

/// What the process holds, told by the kernel: control, which would tell it too, stands still.
#[cfg(feature = "faults")]
fn resident_bytes(server: &Server) -> u64 {
    let table = std::fs::read_to_string(format!("/proc/{}/statm", server.pid())).unwrap();
    table.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

#[cfg(feature = "faults")]
#[test]
fn rt_36_fa_31_media_before_the_verdict_waits_in_the_socket_and_then_comes_in_order() {
    const PICTURES: u64 = 1_200;
    // A window that holds the flood: a player that this machine lets wait for its turn is not what is asked about.
    let server = Server::start(
        "[shard]\ncount = 1\n[rtmp]\nverdict_buffer = \"64KiB\"\n[sessions]\nstall_after = \"30s\"\n\
         [stream]\nqueue_bytes = \"32MiB\"",
    );
    let mut calm = crate::support::calm::Calm::start(&server, "calm");
    let mut player = Raw::play(server.rtmp, "live", SLOW).start();
    let mut hand = Hand::connected(server.rtmp, "live");
    hand.set_chunk_size(65_536);
    let before = resident_bytes(&server);
    hand.publish(SLOW);
    let flood = std::thread::spawn(move || {
        // 24 MiB, none of which waits for the answer.
        for number in 0..PICTURES {
            hand.message(VIDEO, 1, number, &picture(number % 25 == 0, number, 20_000));
        }
        hand
    });
    let began = Instant::now();
    let mut peak = 0;
    let mut beats = 0;
    // Most of the second for which control stands still; if it should have gone on already, a picture tells.
    let is_open = |player: &Raw| !player.messages.iter().any(|message| picture_number(message).is_some());
    while began.elapsed() < Duration::from_millis(700) && is_open(&player) {
        peak = peak.max(resident_bytes(&server));
        calm.beat();
        beats += 1;
        player.pump_until(Duration::from_millis(1), |_| false);
    }
    // Shards do not wait for whoever is to answer.
    assert!(beats > 5 && calm.pictures().len() * 2 > beats, "{} of {beats} pictures", calm.pictures().len());
    let held = peak.saturating_sub(before);
    assert!(held < 4 << 20, "{held} bytes held for one verdict");

    let last = |it: &Raw| it.messages.iter().filter_map(picture_number).next_back();
    assert!(player.pump_until(PATIENCE, |it| last(it) == Some(PICTURES - 1)), "{:?}", last(&player));
    let numbers: Vec<_> = player.messages.iter().filter_map(picture_number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "pictures are missing or out of order");
    let mut hand = flood.join().unwrap();
    hand.expect_code("NetStream.Publish.Start");
    let path = format!("/v1/sessions?kind=publish&stream={SLOW}");
    eventually("every frame is booked", || server.get(&path).1["sessions"][0]["frames"]["rx"] == PICTURES);
    calm.assert_undisturbed(&server);
}

#[cfg(feature = "faults")]
#[test]
fn rt_59_who_leaves_before_the_verdict_never_began() {
    let server = Server::start("");
    let mut calm = crate::support::calm::Calm::start(&server, "calm");
    let mut hand = Hand::connected(server.rtmp, "live");
    hand.publish(SLOW);
    let local = hand.local().to_string();
    calm.beat();
    drop(hand);
    let of_peer = || -> Vec<(String, serde_json::Value)> {
        let events = server.events("session").into_iter();
        events.filter(|(_, data)| data["remote"] == local).collect()
    };
    eventually("its end is recorded", || of_peer().iter().any(|(name, _)| name == "session.closed"));
    server.settle();
    let events = of_peer();
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["session.opened", "session.closed"], "{events:#?}");
    assert_eq!(events[1].1["reason"], "client_done");
    assert_eq!(server.sessions("kind=publish").len(), 1, "only the calm one");
    // The stream is free for the next who asks.
    let mut next = Raw::publish(server.rtmp, "live", SLOW).start();
    next.send_picture(0);
    server.wait_for_sessions(&format!("stream={SLOW}&kind=publish&state=running"), 1);
    calm.assert_undisturbed(&server);
}

/// So many publishers that come for one stream at the same moment.
fn rush(server: &Server, count: usize) -> Vec<Raw> {
    let mut all: Vec<Raw> =
        (0..count).map(|number| Raw::publish(server.rtmp, "live", &format!("rush?key={number}"))).collect();
    for one in &mut all {
        assert!(one.pump_until(PATIENCE, |it| it.started || it.refused.is_some() || it.closed), "no verdict");
    }
    all
}

#[test]
fn rt_60_of_many_publishers_at_once_one_is_taken() {
    let server = Server::start("[shard]\ncount = 2\n[admission]\nduplicate_publish = \"reject\"");
    let mut all = rush(&server, 16);
    let taken: Vec<usize> = (0..all.len()).filter(|index| all[*index].started).collect();
    assert_eq!(taken.len(), 1, "{taken:?}");
    for one in all.iter().filter(|it| !it.started) {
        assert_eq!(one.refused.as_ref().map(|refused| refused.0.as_str()), Some("NetStream.Publish.BadName"));
    }
    all[taken[0]].send_picture(0);
    let running = server.wait_for_sessions("kind=publish&state=running", 1);
    assert!(running[0]["remote"] == all[taken[0]].local().to_string());
    drop(all);
    server.wait_for_sessions("", 0);
    let closed = server.events("session.closed");
    let refused = closed.iter().filter(|(_, it)| it["reason"] == "duplicate_publish").count();
    assert_eq!((closed.len(), refused), (16, 15), "{closed:#?}");
}

#[test]
fn rt_60_a_stream_never_has_two_writers_however_often_it_is_taken_over() {
    const PAIRS: u64 = 6;
    let server = Server::start("[shard]\ncount = 2\n[admission]\nduplicate_publish = \"takeover\"");
    let mut viewers: Vec<Raw> = (0..6).map(|_| Raw::play(server.rtmp, "live", "rush").start()).collect();
    let shards: BTreeSet<u64> =
        server.wait_for_sessions("kind=play", 6).iter().map(|it| it["shard"].as_u64().unwrap()).collect();
    // They come in pairs, each pair as soon as something of the one before was seen, and write for as long as they may.
    let pairs_seen = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..2 * PAIRS)
        .map(|writer| {
            let (addr, pairs_seen) = (server.rtmp, Arc::clone(&pairs_seen));
            std::thread::spawn(move || {
                // A pair that was replaced before it could write a picture keeps nobody waiting for ever.
                let patience = Instant::now() + Duration::from_secs(2);
                while pairs_seen.load(Ordering::Relaxed) < writer / 2 && Instant::now() < patience {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let mut raw = Raw::publish(addr, "live", &format!("rush?key={writer}"));
                raw.pump_until(PATIENCE, |it| it.started || it.refused.is_some() || it.closed);
                for n in 0..2_000 {
                    raw.send(9, n * 10, &picture(true, (writer << 32) | n, 400));
                    raw.pump_until(Duration::from_millis(2), |_| false);
                    if raw.closed || raw.refused.is_some() || pairs_seen.load(Ordering::Relaxed) == PAIRS {
                        break;
                    }
                }
            })
        })
        .collect();
    while !writers.iter().all(std::thread::JoinHandle::is_finished) {
        for viewer in &mut viewers {
            viewer.pump_until(Duration::from_millis(2), |_| false);
        }
        let newest = viewers[0].messages.iter().rev().find_map(picture_number);
        pairs_seen.fetch_max(newest.map_or(0, |number| (number >> 32) / 2 + 1), Ordering::Relaxed);
    }
    server.wait_for_sessions("kind=publish", 0);
    let mut changes = 0;
    for viewer in &mut viewers {
        viewer.pump_until(Duration::from_millis(100), |_| false);
        let mut seen = Vec::new();
        for number in viewer.messages.iter().filter_map(picture_number) {
            let writer = number >> 32;
            if seen.last() != Some(&writer) {
                assert!(!seen.contains(&writer), "writer {writer} came back after {seen:?}");
                seen.push(writer);
            }
        }
        changes = changes.max(seen.len());
        assert!(!viewer.ended && !viewer.closed);
    }
    assert!(changes as u64 >= PAIRS / 2, "{changes} writers of {PAIRS} pairs were seen, on shards {shards:?}");
    assert_eq!(server.metrics().sum("sluicegate_internal_errors_total", ""), 0);
}
