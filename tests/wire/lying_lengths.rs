//! Peers that claim more than they send, and begin more than they end.

use sluicegate::proto::rtmp::amf0::Value;
use sluicegate::proto::rtmp::chunk::write_message;

use crate::support::calm::Calm;
use crate::support::hand::Hand;
use crate::support::{PATIENCE, Server};

/// A type 0 header on chunk stream `id`, which is one of those with a header of one byte.
fn header(id: u8, length: u32, type_id: u8) -> Vec<u8> {
    let mut bytes = vec![id, 0, 0, 0];
    bytes.extend_from_slice(&length.to_be_bytes()[1..]);
    bytes.extend_from_slice(&[type_id, 1, 0, 0, 0]);
    bytes
}

/// A message of hardly any sound on chunk stream `id`.
fn crumb(id: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_message(&mut bytes, 128, id, 8, 1, 0, &[0xaf, 1, 0]);
    bytes
}

/// True once the server has obeyed everything that was sent.
fn is_heard(hand: &mut Hand, transaction: f64) {
    hand.command(0, "getStreamLength", transaction, &[Value::Null]);
    hand.expect("an answer", |it| it.answer("_result", transaction).is_some());
}

#[test]
fn rt_16_the_65th_chunk_stream_closes_and_64_do_not() {
    let server = Server::start("");
    let mut calm = Calm::start(&server, "calm");
    let mut hand = Hand::publishing(server.rtmp, "live", "many");
    let session = hand.session(&server);
    // Commands have one of the 64. Ids with headers of two and three bytes are among the others.
    for id in (10..41).chain(300..332) {
        hand.write(&crumb(id));
    }
    is_heard(&mut hand, 7.0);
    calm.beat();
    hand.write(&crumb(65_599));
    let ended = hand.wait_for_end(&server, &session);
    assert_eq!((&ended["reason"], &ended["detail"]), (&"limit_exceeded".into(), &"chunk_streams".into()), "{ended:#}");
    assert_eq!(ended["frames"]["rx"], 63);
    hand.drain();
    assert_eq!(server.metrics().sum("sluicegate_limit_hits_total", "limit=\"chunk_streams\""), 1);
    calm.assert_undisturbed(&server);
}

#[test]
fn rt_17_what_is_beyond_a_types_limit_is_refused_at_its_header() {
    let server = Server::start("");
    let mut calm = Calm::start(&server, "calm");
    for type_id in [8, 9, 18, 20, 22] {
        let mut hand = Hand::publishing(server.rtmp, "live", &format!("type-{type_id}"));
        let session = hand.session(&server);
        hand.write(&header(7, 16_777_215, type_id));
        let ended = hand.wait_for_end(&server, &session);
        assert_eq!(
            (&ended["reason"], &ended["detail"]),
            (&"limit_exceeded".into(), &"message_size".into()),
            "{type_id}"
        );
        hand.drain();
        calm.beat();
    }
    // A stranger may claim no more.
    let mut hand = Hand::handshaken(server.rtmp);
    hand.write(&header(3, 16_777_215, 20));
    assert_eq!(server.wait_for_attempt(hand.local()), ("limit_exceeded".into(), "message_size".into()));
    calm.assert_undisturbed(&server);
}

#[test]
fn rt_17_claims_hold_no_memory_and_end_with_their_message_time() {
    const PEERS: u64 = 64;
    const SENT: usize = 10 << 10;
    let server = Server::start("[rtmp]\nmessage_timeout = \"3s\"");
    let mut calm = Calm::start(&server, "calm");
    let mut hands: Vec<Hand> = (0..PEERS)
        .map(|number| {
            let mut hand = Hand::publishing(server.rtmp, "live", &format!("liar-{number}"));
            hand.set_chunk_size(1 << 20);
            is_heard(&mut hand, 7.0);
            hand
        })
        .collect();
    let sessions: Vec<_> = hands.iter().map(|hand| hand.session(&server)).collect();
    let before = server.resident_bytes();
    let read_before = server.metrics().sum("sluicegate_read_bytes_total", "");
    for hand in &mut hands {
        // 8 MiB each, 512 MiB together.
        hand.write(&header(6, 8 << 20, 9));
        hand.write(&[0x27; SENT]);
    }
    crate::support::eventually("the bytes are read", || {
        server.metrics().sum("sluicegate_read_bytes_total", "") >= read_before + PEERS * SENT as u64
    });
    let held = server.resident_bytes().saturating_sub(before);
    // The rule allows 64 × (2 × 10 KiB + 8 KiB), which is under 2 MiB; the rest is what an allocator does.
    assert!(held < 16 << 20, "{held} bytes for {} claimed", PEERS * (8 << 20));
    calm.beat();
    for (hand, session) in hands.iter_mut().zip(&sessions) {
        let ended = hand.wait_for_end(&server, session);
        assert_eq!((&ended["reason"], &ended["detail"]), (&"slow_sender".into(), &"message".into()), "{ended:#}");
        hand.drain();
    }
    calm.assert_undisturbed(&server);
}

#[test]
fn rt_18_unfinished_messages_are_limited_together() {
    let server = Server::start("[rtmp]\npartial_bytes = \"256KiB\"");
    let mut calm = Calm::start(&server, "calm");
    // One chunk of two on each of many ids: 8 KiB of 16.
    let begin = |id: u8| [header(id, 16 << 10, 8), vec![0xaf; 8 << 10]].concat();
    let end = |id: u8| [vec![0xc0 | id], vec![0xaf; 8 << 10]].concat();

    let mut stranger = Hand::connected(server.rtmp, "live");
    stranger.set_chunk_size(8 << 10);
    for id in 4..64 {
        stranger.write(&begin(id));
    }
    assert_eq!(server.wait_for_attempt(stranger.local()), ("limit_exceeded".into(), "partial_bytes".into()));
    calm.beat();

    // A publisher may have more under way, and it arrives.
    let mut hand = Hand::publishing(server.rtmp, "live", "parts");
    let session = hand.session(&server);
    hand.set_chunk_size(8 << 10);
    for id in 4..14 {
        hand.write(&begin(id));
    }
    for id in 4..14 {
        hand.write(&end(id));
    }
    let path = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
    crate::support::eventually("ten messages came", || server.get(&path).1["frames"]["rx"] == 10);

    for id in 4..64 {
        hand.write(&begin(id));
    }
    let ended = hand.wait_for_end(&server, &session);
    assert_eq!((&ended["reason"], &ended["detail"]), (&"limit_exceeded".into(), &"partial_bytes".into()), "{ended:#}");
    assert!(hand.read_until(PATIENCE, |it| it.closed));
    calm.assert_undisturbed(&server);
}
