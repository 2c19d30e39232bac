//! Handshakes that are odd, cut, or in one piece with what follows.

use std::time::Duration;

use sluicegate::proto::rtmp::amf0::Value;

use crate::support::calm::Calm;
use crate::support::hand::{Hand, PACKET, command_body, connect_object, hello, picture, text};
use crate::support::{Server, eventually};

/// Everything that a publisher says, up to its first picture, without having heard a word.
fn monologue(stream: &str) -> Vec<u8> {
    let speaker = |out: &mut Vec<u8>, type_id: u8, stream_id: u32, body: &[u8]| {
        let chunk_stream = if type_id == 20 { 3 } else { 6 };
        sluicegate::proto::rtmp::chunk::write_message(out, 128, chunk_stream, type_id, stream_id, 0, body);
    };
    let mut bytes = hello();
    bytes.extend_from_slice(&[0x5a; PACKET]);
    speaker(&mut bytes, 20, 0, &command_body("connect", 1.0, &[connect_object("live")]));
    speaker(&mut bytes, 20, 0, &command_body("createStream", 2.0, &[Value::Null]));
    speaker(&mut bytes, 20, 1, &command_body("publish", 3.0, &[Value::Null, text(stream), text("live")]));
    speaker(&mut bytes, 9, 1, &picture(true, 0, 300));
    bytes
}

#[test]
fn rt_07_rt_08_odd_handshakes_in_one_segment_or_in_bytes_come_to_the_same() {
    let server = Server::start("[shard]\nreport_every = \"50ms\"");
    let mut calm = Calm::start(&server, "calm");
    let mut heard = Vec::new();
    for (stream, step) in [("one", usize::MAX), ("two", 1), ("six", 1_537)] {
        let mut hand = Hand::open(server.rtmp);
        for piece in monologue(stream).chunks(step.min(1 << 20)) {
            hand.write(piece);
        }
        hand.expect_code("NetStream.Publish.Start");
        let session = hand.session(&server);
        assert_eq!((&session["kind"], &session["stream"]), (&"publish".into(), &stream.into()), "{session:#}");
        let path = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
        // Every byte that was sent is the session's, from the first of the handshake on.
        eventually("all bytes are booked", || {
            let session = server.get(&path).1;
            session["state"] == "running" && session["bytes"]["rx"] == hand.sent && session["frames"]["rx"] == 1
        });
        eventually("all answers are booked", || {
            hand.read_until(Duration::from_millis(10), |_| false);
            server.get(&path).1["bytes"]["tx"] == hand.received
        });
        calm.beat();
        heard.push((hand.replies.clone(), hand.messages.clone(), hand.sent, hand.received));
    }
    assert_eq!(heard[0], heard[1]);
    assert_eq!(heard[0], heard[2]);
    calm.assert_undisturbed(&server);
}

#[test]
fn rt_09_a_handshake_that_is_cut_short_is_one_attempt_and_no_session() {
    let server = Server::start("[shard]\nreport_every = \"50ms\"");
    let whole = [hello(), vec![0; PACKET]].concat();
    for length in [0, 1, 2, 1_000, 1_537, 1_538, 1_537 + PACKET - 1] {
        // In good order, and by a reset.
        for (linger, reason) in [(None, "client_done"), (Some(Duration::ZERO), "client_reset")] {
            let read_before = server.metrics().sum("sluicegate_read_bytes_total", "");
            let mut hand = Hand::open(server.rtmp);
            hand.write(&whole[..length]);
            // A connection that is reset before it was accepted was never there.
            eventually("the server has read that", || {
                server.shards("connections") == 1
                    && server.metrics().sum("sluicegate_read_bytes_total", "") == read_before + length as u64
            });
            if length >= 1_537 {
                hand.expect("S0, S1 and S2", |it| it.received == 3_073);
            }
            let local = hand.local();
            hand.set_linger(linger);
            drop(hand);
            assert_eq!(server.wait_for_attempt(local), (reason.into(), String::new()), "cut at {length}");
            eventually("nothing is left of it", || server.shards("connections") == 0);
        }
    }
    assert_eq!(server.events("session"), []);
    assert_eq!(server.metrics().sum("sluicegate_attempts_total", ""), 14);
    Calm::start(&server, "after").assert_undisturbed(&server);
}
