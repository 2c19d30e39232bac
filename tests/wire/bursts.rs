//! Many messages in one piece.

use std::time::Duration;

use sluicegate::proto::rtmp::message::type_id::{AUDIO, VIDEO};

use crate::support::calm::Calm;
use crate::support::hand::{Hand, picture, picture_number};
use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually};

#[test]
fn rt_39_five_thousand_messages_in_one_mebibyte_come_whole_and_keep_nobody_waiting() {
    const PICTURES: u64 = 5_000;
    let server = Server::start("[shard]\ncount = 1\n[stream]\nqueue_bytes = \"16MiB\"");
    let mut calm = Calm::start(&server, "calm");
    let mut player = Raw::play(server.rtmp, "live", "burst").start();
    let mut hand = Hand::publishing(server.rtmp, "live", "burst");
    hand.set_chunk_size(65_536);
    let burst: Vec<u8> = (0..PICTURES).flat_map(|n| hand.encode(VIDEO, 1, n / 10, &picture(n == 0, n, 200))).collect();
    assert!(burst.len() > 1 << 20);
    hand.write(&burst);
    calm.beat();
    let last = |it: &Raw| it.messages.iter().filter_map(picture_number).next_back();
    assert!(player.pump_until(PATIENCE, |it| last(it) == Some(PICTURES - 1)), "{:?}", last(&player));
    assert!(player.messages.iter().filter_map(picture_number).eq(0..PICTURES), "not the same pictures");

    // Crumbs as fast as one peer can send them, each of which costs more than its bytes.
    let crumbs = hand.encode(AUDIO, 1, 500, &[0xaf, 1, 0]).repeat(5_000);
    let sent = std::thread::spawn(move || {
        for _ in 0..40 {
            hand.write(&crumbs);
        }
        hand
    });
    let mut beats = 0;
    while !sent.is_finished() || beats < 50 {
        calm.beat();
        beats += 1;
        player.pump_until(Duration::from_millis(1), |_| false);
    }
    let _hand = sent.join().unwrap();
    let published = || server.sessions("kind=publish&stream=burst")[0]["frames"]["rx"].as_u64();
    eventually("every crumb is booked", || published() == Some(PICTURES + 40 * 5_000));
    // 200 messages are a turn, and a read of 64 KiB has 4,300 crumbs.
    let of_crumbs = server.metrics().sum("sluicegate_turns_cut_total", "");
    assert!(of_crumbs >= 40 * 5_000 / 200 / 2, "{of_crumbs} turns were cut");
    calm.assert_undisturbed(&server);
}

#[test]
fn a_server_that_holds_nothing_for_a_verdict_still_takes_everything_after_it() {
    let server = Server::start("[rtmp]\nverdict_buffer = \"0B\"");
    let mut calm = Calm::start(&server, "calm");
    let mut hand = Hand::connected(server.rtmp, "live");
    hand.publish("eager");
    for number in 0..20 {
        hand.message(VIDEO, 1, number * 40, &picture(number == 0, number, 2_000));
    }
    hand.expect_code("NetStream.Publish.Start");
    eventually("all is taken", || server.sessions("kind=publish&stream=eager")[0]["frames"]["rx"] == 20);
    calm.assert_undisturbed(&server);
}
