//! Publishers that send too much, too fast, too odd, or nothing.

use std::time::{Duration, Instant};

use sluicegate::proto::rtmp::amf0::Value;
use sluicegate::proto::rtmp::message::type_id::{AUDIO, DATA_AMF0, VIDEO};

use crate::support::calm::Calm;
use crate::support::hand::{Hand, command_body, picture, picture_number, text};
use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually};

/// A decoder configuration that differs from others by its number.
fn configuration(number: u32) -> Vec<u8> {
    let mut body = vec![0x17, 0, 0, 0, 0, 1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 8, 0x67, 0x42, 0xc0, 0x1e];
    body.extend_from_slice(&number.to_be_bytes());
    body.extend_from_slice(&[1, 0, 4, 0x68, 0xce, 0x3c, 0x80]);
    body
}

/// `onMetaData` that says its number and is filled up to `size`.
fn metadata(number: u32, size: usize) -> Vec<u8> {
    let filler = "x".repeat(4_000);
    let mut items = vec![(b"number".to_vec(), Value::Number(f64::from(number)))];
    for n in 0..size / 4_020 {
        items.push((format!("f{n}").into_bytes(), text(&filler)));
    }
    // Commands and data begin alike, but data has no transaction.
    let mut body = command_body("onMetaData", 0.0, &[Value::Object(items)]);
    body.drain(13..22);
    body
}

fn number_of(payload: &[u8]) -> Option<u64> {
    let at = payload.windows(9).position(|part| part == b"\x00\x06number\x00")? + 9;
    Some(f64::from_be_bytes(payload.get(at..at + 8)?.try_into().ok()?) as u64)
}

#[test]
fn md_04_configurations_by_the_thousand_are_one_or_the_end() {
    let server = Server::start("");
    let mut calm = Calm::start(&server, "calm");
    let mut player = Raw::play(server.rtmp, "live", "same").start();
    let mut hand = Hand::publishing(server.rtmp, "live", "same");
    for number in 0..1_000_u64 {
        hand.message(VIDEO, 1, number, &configuration(1));
    }
    hand.message(VIDEO, 1, 1_000, &picture(true, 7, 100));
    assert!(player.pump_until(PATIENCE, |it| it.messages.iter().filter_map(picture_number).eq([7])));
    assert_eq!(server.events("session.altered"), []);
    calm.beat();

    let mut hand = Hand::publishing(server.rtmp, "live", "other");
    let session = hand.session(&server);
    for number in 0..1_000 {
        hand.message(VIDEO, 1, u64::from(number), &configuration(number));
    }
    let ended = hand.wait_for_end(&server, &session);
    assert_eq!((&ended["reason"], &ended["detail"]), (&"bad_media".into(), &"sequence_headers".into()), "{ended:#}");
    // The first, and ten changes.
    assert_eq!(ended["frames"]["rx"], 11);
    hand.drain();
    calm.assert_undisturbed(&server);
}

#[test]
fn md_05_floods_of_metadata_are_thinned_and_the_last_word_arrives() {
    const MESSAGES: u32 = 100;
    let server = Server::start("");
    let mut calm = Calm::start(&server, "calm");
    let mut hand = Hand::publishing(server.rtmp, "live", "meta");
    hand.set_chunk_size(65_536);
    hand.message(VIDEO, 1, 0, &picture(true, 0, 100));
    let mut player = Raw::play(server.rtmp, "live", "meta").start();
    assert!(player.pump_until(PATIENCE, |it| it.messages.iter().any(|m| m.type_id == VIDEO)));
    let began = Instant::now();
    for number in 0..MESSAGES {
        hand.message(DATA_AMF0, 1, u64::from(number), &metadata(number, 200 << 10));
    }
    for number in MESSAGES..2 * MESSAGES {
        hand.message(DATA_AMF0, 1, u64::from(number), &metadata(number, 2_000));
    }
    hand.message(VIDEO, 1, 200, &picture(false, 1, 100));
    let said =
        |it: &Raw| -> Vec<u64> { it.messages.iter().filter_map(|message| number_of(&message.payload)).collect() };
    assert!(player.pump_until(PATIENCE, |it| it.messages.iter().filter_map(picture_number).last() == Some(1)));
    let allowed = 10 + 10 * (began.elapsed().as_secs() as usize + 1);
    assert!((1..=allowed).contains(&said(&player).len()), "{:?}", said(&player));
    // What was said last comes with a later frame, as soon as the rate allows.
    let last = u64::from(2 * MESSAGES - 1);
    let mut time = 240;
    while said(&player).last() != Some(&last) {
        assert!(began.elapsed() < PATIENCE, "{:?}", said(&player));
        hand.message(AUDIO, 1, time, &[0xaf, 1, 0]);
        time += 40;
        player.pump_until(Duration::from_millis(40), |_| false);
    }
    assert!(said(&player).windows(2).all(|pair| pair[0] < pair[1]), "{:?}", said(&player));
    // A newcomer gets that and nothing older or larger.
    let mut newcomer = Raw::play(server.rtmp, "live", "meta").start();
    assert!(newcomer.pump_until(PATIENCE, |it| it.messages.iter().any(|m| m.type_id == VIDEO)));
    assert_eq!(said(&newcomer)[0], last);
    calm.beat();

    // One of 200 KiB is relayed to those who watch, and not kept for those who come.
    std::thread::sleep(Duration::from_millis(200));
    hand.message(DATA_AMF0, 1, time, &metadata(1_000, 200 << 10));
    hand.message(VIDEO, 1, time, &picture(true, 2, 100));
    assert!(player.pump_until(PATIENCE, |it| said(it).last() == Some(&1_000)));
    let mut newcomer = Raw::play(server.rtmp, "live", "meta").start();
    assert!(newcomer.pump_until(PATIENCE, |it| it.messages.iter().any(|m| m.type_id == VIDEO)));
    assert!(!said(&newcomer).contains(&1_000), "{:?}", said(&newcomer));
    calm.assert_undisturbed(&server);
}

#[test]
fn md_06_endless_groups_and_huge_keyframes_hold_what_the_limits_allow() {
    const MIB: u64 = 1 << 20;
    let server = Server::start(
        "[shard]\ncount = 1\nreport_every = \"50ms\"\n[stream]\ngop_bytes = \"1MiB\"\nqueue_bytes = \"1MiB\"\n[sessions]\nfirst_keyframe = \"60s\"\npublish_lead_max = \"0s\"",
    );
    let mut calm = Calm::start(&server, "calm");
    let bound = 2 * MIB + (64 << 10);
    let held = || server.shards("log_bytes");
    let of_calm = held();
    let mut hand = Hand::publishing(server.rtmp, "live", "endless");
    hand.set_chunk_size(1 << 20);
    let session = hand.session(&server);
    let path = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
    // Ten minutes of it, 20 MiB, in one group.
    hand.message(VIDEO, 1, 0, &picture(true, 0, 20_000));
    let mut peak = 0;
    for number in 1..1_000 {
        hand.message(VIDEO, 1, number * 600, &picture(false, number, 20_000));
        if number % 100 == 0 {
            eventually("it is read", || server.get(&path).1["frames"]["rx"].as_u64() > Some(number));
            peak = peak.max(held());
            calm.beat();
        }
    }
    assert!(peak <= of_calm + bound, "{peak} bytes held, {bound} allowed");
    // Its viewers wait for a keyframe that there is none of, and begin with the next.
    let mut viewer = Raw::play(server.rtmp, "live", "endless").start();
    hand.message(VIDEO, 1, 600_000, &picture(false, 1_000, 20_000));
    viewer.pump_until(Duration::from_millis(300), |_| false);
    assert_eq!(viewer.messages.iter().filter_map(picture_number).count(), 0);
    hand.message(VIDEO, 1, 600_600, &picture(true, 1_001, 20_000));
    assert!(viewer.pump_until(PATIENCE, |it| it.messages.iter().filter_map(picture_number).next() == Some(1_001)));
    drop(viewer);

    // Nothing but keyframes, each half as large as all that may be held.
    let mut hand = Hand::publishing(server.rtmp, "live", "keyframes");
    hand.set_chunk_size(1 << 20);
    let mut viewer = Raw::play(server.rtmp, "live", "keyframes").start();
    let before = held();
    for number in 0..12 {
        hand.message(VIDEO, 1, number * 40, &picture(true, number, 1_000_000));
        assert!(viewer.pump_until(PATIENCE, |it| it.messages.iter().filter_map(picture_number).last() == Some(number)));
        calm.beat();
        peak = held();
        assert!(peak <= before + bound, "{peak} bytes held, {before} of them before");
    }
    assert_eq!(viewer.messages.iter().filter_map(picture_number).count(), 12);
    calm.assert_undisturbed(&server);
}

#[test]
fn md_09_a_hundred_bad_frames_in_a_row_end_the_publish_and_no_fewer() {
    let server = Server::start("");
    let mut calm = Calm::start(&server, "calm");
    let mut hand = Hand::publishing(server.rtmp, "live", "bad");
    let session = hand.session(&server);
    for _ in 0..2 {
        for number in 0..99_usize {
            // One to four bytes are no picture.
            hand.message(VIDEO, 1, 0, &[0x27; 4][..1 + number % 4]);
        }
        hand.message(VIDEO, 1, 0, &picture(true, 0, 100));
    }
    let path = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
    eventually("the good ones came", || server.get(&path).1["frames"]["rx"] == 2);
    calm.beat();
    for _ in 0..100 {
        hand.message(VIDEO, 1, 0, &[0x27]);
    }
    let ended = hand.wait_for_end(&server, &session);
    assert_eq!((&ended["reason"], &ended["detail"]), (&"bad_media".into(), &"frames".into()), "{ended:#}");
    assert_eq!(ended["frames"]["rx"], 2);
    hand.drain();
    calm.assert_undisturbed(&server);
}

#[test]
fn fa_05_a_flooding_publisher_is_read_at_the_pace_of_its_timestamps() {
    const LEAD_MS: u64 = 1_000;
    let server = Server::start(
        "[shard]\ncount = 1\nreport_every = \"50ms\"\n[sessions]\npublish_lead_max = \"1s\"\n[stream]\nqueue_bytes = \"1MiB\"\ngop_bytes = \"1MiB\"",
    );
    let mut calm = Calm::start(&server, "calm");
    let mut player = Raw::play(server.rtmp, "live", "flood").start();
    let mut hand = Hand::publishing(server.rtmp, "live", "flood");
    hand.set_chunk_size(1 << 20);
    let session = player_session(&server, &player);
    let of_calm = server.shards("log_bytes");
    let memory_before = server.resident_bytes();
    let began = Instant::now();
    // Two hours of 4 Mbit/s, as fast as they are taken.
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let flood = std::thread::spawn(move || {
        for number in 0..2 * 60 * 60 * 25_u64 {
            hand.message(VIDEO, 1, number * 40, &picture(number % 25 == 0, number, 20_000));
            if hand.closed || stopped.try_recv().is_ok() {
                break;
            }
        }
        hand
    });
    let mut ahead_ms = 0;
    while began.elapsed() < Duration::from_secs(3) {
        player.pump_until(Duration::from_millis(20), |_| false);
        calm.beat();
        let newest = player.messages.last().map_or(0, |message| message.timestamp_ms);
        ahead_ms = ahead_ms.max(newest.saturating_sub(began.elapsed().as_millis() as u64));
        let held = server.shards("log_bytes") - of_calm;
        assert!(held <= (2 << 20) + (64 << 10), "{held} bytes held");
    }
    let newest = player.messages.last().unwrap().timestamp_ms;
    // It plays in real time: neither ahead of what may be, nor held back beyond it.
    assert!(ahead_ms <= LEAD_MS + 500, "{ahead_ms} ms ahead of the clock");
    assert!(newest >= 1_000, "only {newest} ms in three seconds");
    let grown = server.resident_bytes().saturating_sub(memory_before);
    assert!(grown < 24 << 20, "{grown} bytes more");
    let row = server.get(&format!("/v1/sessions/{session}")).1;
    assert_eq!((&row["dropped_frames"], &row["overflows"]), (&0.into(), &0.into()), "{row:#}");
    let numbers: Vec<_> = player.messages.iter().filter_map(picture_number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "pictures are missing");
    calm.assert_undisturbed(&server);

    // Nobody watches any more: then nobody is pushed out of anything, and it is read as fast as it comes.
    drop(player);
    let path = "/v1/sessions?kind=publish&stream=flood";
    let taken = || server.get(path).1["sessions"][0]["frames"]["rx"].as_u64().unwrap_or(0);
    let before = taken();
    eventually("a minute of it is taken at once", || taken() > before + 60 * 25);
    let _ = stop.send(());
    drop(flood.join().unwrap());
}

fn player_session(server: &Server, player: &Raw) -> String {
    let sessions = server.wait_for_sessions(&format!("kind=play&remote={}", player.local()), 1);
    sessions[0]["id"].as_str().unwrap().to_owned()
}
