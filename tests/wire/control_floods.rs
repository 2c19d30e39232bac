//! Control messages of odd values and in floods.

use std::time::{Duration, Instant};

use sluicegate::proto::rtmp::amf0::Value;
use sluicegate::proto::rtmp::message::type_id::{ACKNOWLEDGEMENT, AUDIO, USER_CONTROL, VIDEO, WINDOW_ACK_SIZE};
use sluicegate::proto::rtmp::message::{UserControl, type_id};

use crate::support::calm::Calm;
use crate::support::hand::{Hand, picture, picture_number};
use crate::support::{PATIENCE, Server, eventually};

/// Waits until everything sent so far was obeyed.
fn round_trip(hand: &mut Hand, transaction: f64) {
    hand.command(0, "getStreamLength", transaction, &[Value::Null]);
    hand.expect("an answer", |it| it.answer("_result", transaction).is_some());
}

#[test]
fn rt_24_strange_chunk_sizes_are_obeyed_and_a_flood_of_them_closes() {
    let server = Server::start("[shard]\nreport_every = \"50ms\"");
    let mut calm = Calm::start(&server, "calm");
    let mut hand = Hand::publishing(server.rtmp, "live", "sizes");
    let session = hand.session(&server);
    let before = server.resident_bytes();
    for (number, size) in [(0, 1), (1, 127), (2, 0x7fff_ffff)] {
        hand.set_chunk_size(size);
        hand.message(VIDEO, 1, number * 40, &picture(true, number, 5_000));
        calm.beat();
    }
    let path = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
    eventually("the pictures came", || server.get(&path).1["frames"]["rx"] == 3);
    assert_eq!(server.get(&path).1["media_bytes"]["rx"], 15_000);
    eventually("two sizes are counted", || server.shards("glitches") == 2);
    let held = server.resident_bytes().saturating_sub(before);
    assert!(held < 16 << 20, "{held} bytes for a chunk size of 2 GiB");

    // Three of the sixteen changes in ten seconds that mean nothing are used up, and 30 points of 32 are free.
    for size in (0..13 + 29).map(|n| 128 + n) {
        hand.set_chunk_size(size);
    }
    round_trip(&mut hand, 7.0);
    eventually("each beyond sixteen is counted", || server.shards("glitches") >= 2 + 29);
    calm.beat();
    for size in 0..58 {
        hand.set_chunk_size(128 + size);
    }
    let ended = hand.wait_for_end(&server, &session);
    assert_eq!((&ended["reason"], &ended["detail"]), (&"protocol_error".into(), &"glitches".into()), "{ended:#}");
    hand.drain();
    calm.assert_undisturbed(&server);
}

#[test]
fn rt_27_sending_never_waits_for_an_acknowledgement_whatever_it_says() {
    const PICTURES: u64 = 40;
    let server = Server::start("[rtmp]\nwindow_ack_size = \"64KiB\"");
    let mut silent = Hand::playing(server.rtmp, "live", "acks");
    let mut liar = Hand::playing(server.rtmp, "live", "acks");
    for value in [0, 1, 0x7fff_ffff, u32::MAX, 12] {
        liar.message(ACKNOWLEDGEMENT, 0, 0, &u32::to_be_bytes(value));
    }
    let mut publisher = Hand::publishing(server.rtmp, "live", "acks");
    for number in 0..PICTURES {
        // 2 MiB together: thirty windows that nobody acknowledges.
        publisher.message(VIDEO, 1, number * 40, &picture(number == 0, number, 52_000));
        liar.message(ACKNOWLEDGEMENT, 0, 0, &u32::to_be_bytes(u32::MAX));
        for player in [&mut silent, &mut liar] {
            player.read_until(Duration::from_millis(1), |_| false);
        }
    }
    for player in [&mut silent, &mut liar] {
        let last = |it: &Hand| it.messages.iter().filter_map(picture_number).next_back();
        player.expect("all pictures", |it| last(it) == Some(PICTURES - 1));
        let numbers: Vec<_> = player.messages.iter().filter_map(picture_number).collect();
        assert_eq!(numbers, (0..PICTURES).collect::<Vec<_>>());
    }
    assert_eq!(server.sessions("kind=play&state=running").len(), 2);
    assert_eq!(server.shards("glitches"), 0);
}

#[test]
fn rt_28_a_peers_window_has_a_floor_and_costs_at_most_one_message_a_window() {
    const FLOOR: u64 = 64 << 10;
    let server = Server::start("");
    let mut calm = Calm::start(&server, "calm");
    let mut hand = Hand::publishing(server.rtmp, "live", "windows");
    let acks = |hand: &Hand| hand.of_type(ACKNOWLEDGEMENT).count() as u64;
    let publish = |hand: &mut Hand, transaction: f64| {
        for number in 0..100 {
            hand.message(VIDEO, 1, number * 40, &picture(true, number, 10_000));
        }
        round_trip(hand, transaction);
    };
    hand.message(WINDOW_ACK_SIZE, 0, 0, &1_u32.to_be_bytes());
    publish(&mut hand, 7.0);
    let told = acks(&hand);
    assert!((1..=hand.sent / FLOOR).contains(&told), "{told} for {} bytes", hand.sent);
    let last = hand.of_type(ACKNOWLEDGEMENT).last().unwrap();
    let named = u64::from(u32::from_be_bytes(last.payload[..].try_into().unwrap()));
    assert!((hand.sent - 2 * FLOOR..=hand.sent).contains(&named), "{named} of {}", hand.sent);
    calm.beat();
    // 0 means our own window of 5 MB, and the largest is believed.
    for (window, transaction) in [(0, 8.0), (u32::MAX, 9.0)] {
        hand.message(WINDOW_ACK_SIZE, 0, 0, &window.to_be_bytes());
        publish(&mut hand, transaction);
        assert_eq!(acks(&hand), told, "after a window of {window}");
    }
    assert_eq!(server.sessions("stream=windows&state=running").len(), 1);
    calm.assert_undisturbed(&server);
}

#[test]
fn rt_30_a_flood_of_pings_gets_ten_answers_a_second_and_odd_events_are_ignored() {
    let server = Server::start("[shard]\nreport_every = \"50ms\"");
    let mut calm = Calm::start(&server, "calm");
    let mut hand = Hand::publishing(server.rtmp, "live", "pings");
    let session = hand.session(&server);
    let began = Instant::now();
    let mut flood = Vec::new();
    for time in 0..500_u32 {
        let mut body = Vec::new();
        body.extend_from_slice(&6_u16.to_be_bytes());
        body.extend_from_slice(&time.to_be_bytes());
        flood.extend(hand.encode(USER_CONTROL, 0, 0, &body));
    }
    hand.write(&flood);
    round_trip(&mut hand, 7.0);
    let answered = hand
        .of_type(USER_CONTROL)
        .filter(|message| matches!(UserControl::parse(&message.payload), Ok(it) if matches!(it.value, UserControl::PingResponse(_))))
        .count() as u64;
    let allowed = 10 + 10 * (began.elapsed().as_secs() + 1);
    assert!((10..=allowed).contains(&answered), "{answered} of 500");
    calm.beat();

    // An unknown event, one that only servers send, and a buffer of 50 days.
    for body in [&[0, 99, 1, 2, 3, 4][..], &[0, 31], &[0, 0, 0, 0, 0, 1], &[0, 3, 0, 0, 0, 1, 255, 255, 255, 255]] {
        hand.message(USER_CONTROL, 0, 0, body);
    }
    hand.message(AUDIO, 1, 0, &[0xaf, 1, 7]);
    let path = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
    eventually("the publisher goes on", || server.get(&path).1["frames"]["rx"] == 1);

    hand.message(type_id::USER_CONTROL, 0, 0, &[6]);
    let ended = hand.wait_for_end(&server, &session);
    assert_eq!((&ended["reason"], &ended["detail"]), (&"protocol_error".into(), &"user_control".into()), "{ended:#}");
    assert!(hand.read_until(PATIENCE, |it| it.closed));
    calm.assert_undisturbed(&server);
}
