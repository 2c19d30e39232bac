//! Protocol control and user control messages, and the glitch score.

use std::time::Duration;

use sluicegate::proto::rtmp::message::type_id;
use sluicegate::proto::rtmp::{ProtocolError, Settings};

use crate::support::{AVC_INTER, Peer, Reply};

fn acknowledgements(replies: &[Reply]) -> Vec<u32> {
    replies
        .iter()
        .filter_map(|reply| match reply {
            Reply::Control(type_id::ACKNOWLEDGEMENT, body) => Some(u32::from_be_bytes(body[..].try_into().unwrap())),
            _ => None,
        })
        .collect()
}

fn pongs(replies: &[Reply]) -> Vec<Vec<u8>> {
    replies
        .iter()
        .filter_map(|reply| match reply {
            Reply::Control(type_id::USER_CONTROL, body) if body.starts_with(&[0, 7]) => Some(body[2..].to_vec()),
            _ => None,
        })
        .collect()
}

#[test]
fn rt_25_control_messages_of_wrong_length() {
    for kind in [type_id::ACKNOWLEDGEMENT, type_id::WINDOW_ACK_SIZE, type_id::SET_PEER_BANDWIDTH] {
        let mut peer = Peer::connected();
        assert!(matches!(peer.message(kind, 0, 0, &[0, 0, 1]), Err(ProtocolError::Illegal(_))), "{kind} short");
        let mut peer = Peer::connected();
        peer.message(kind, 0, 0, &[0, 1, 0, 0, 2, 0, 0, 0]).unwrap();
        assert_eq!(peer.server.glitches(), 1, "{kind} long");
    }
}

#[test]
fn rt_26_aborts_in_a_flood_end_the_connection() {
    let mut peer = Peer::connected();
    let outcome = (0..200).try_for_each(|_| peer.message(type_id::ABORT, 0, 0, &[0, 0, 0, 9]));
    assert_eq!(outcome, Err(ProtocolError::Illegal("glitches")));
}

#[test]
fn rt_27_acknowledgements_of_any_value_change_nothing() {
    let mut peer = Peer::connected();
    for value in [0, 1, u32::MAX, 5] {
        peer.message(type_id::ACKNOWLEDGEMENT, 0, 0, &u32::to_be_bytes(value)).unwrap();
    }
    assert!(peer.replies().is_empty());
    assert_eq!(peer.server.glitches(), 0);
}

#[test]
fn rt_28_acknowledgements_follow_the_peers_window_with_a_floor_and_one_for_an_input() {
    let (mut peer, _) = Peer::publishing();
    peer.message(type_id::WINDOW_ACK_SIZE, 0, 0, &1u32.to_be_bytes()).unwrap();
    peer.set_chunk_size(65_536);
    let mut body = AVC_INTER.to_vec();
    body.resize(1000, 7);
    let frame = peer.encode(type_id::VIDEO, 1, 0, &body);
    let already = peer.sent.len();
    let mut told = Vec::new();
    while peer.sent.len() < already + 300_000 {
        peer.send(&frame).unwrap();
        let new = acknowledgements(&peer.replies());
        assert!(new.len() <= 1);
        if let [sequence] = new[..] {
            assert_eq!(sequence as usize, peer.sent.len(), "the handshake counts, and so does every byte");
            told.push(sequence);
        }
    }
    // Raised from 1 to the floor of 64 KiB.
    assert!((4..=5).contains(&told.len()), "{told:?}");
    peer.send(&frame.repeat(400)).unwrap();
    assert_eq!(acknowledgements(&peer.replies()).len(), 1);
}

#[test]
fn rt_28_a_window_of_zero_is_our_default_and_the_largest_is_believed() {
    for (window, expected) in [(0u32, 1), (u32::MAX, 0)] {
        let settings = Settings { window_ack_size: 100_000, ..Settings::default() };
        let (mut peer, _) = Peer::publishing_with(settings);
        peer.message(type_id::WINDOW_ACK_SIZE, 0, 0, &window.to_be_bytes()).unwrap();
        peer.set_chunk_size(65_536);
        let mut body = AVC_INTER.to_vec();
        body.resize(150_000, 7);
        peer.message(type_id::VIDEO, 1, 0, &body).unwrap();
        assert_eq!(acknowledgements(&peer.replies()).len(), expected, "window {window}");
    }
}

#[test]
fn rt_29_a_peer_bandwidth_of_any_limit_type_is_ignored() {
    let mut peer = Peer::connected();
    for limit in [0, 1, 2, 3, 255] {
        peer.message(type_id::SET_PEER_BANDWIDTH, 0, 0, &[0, 0, 0, 1, limit]).unwrap();
    }
    assert!(peer.replies().is_empty());
    assert_eq!(peer.server.glitches(), 0);
}

#[test]
fn rt_30_user_control_messages() {
    let mut peer = Peer::connected();
    peer.message(type_id::USER_CONTROL, 0, 0, &[0x12, 0x34, 1, 2, 3]).unwrap();
    assert!(peer.replies().is_empty(), "an unknown event is ignored");
    peer.message(type_id::USER_CONTROL, 0, 0, &[0, 6, 1, 2, 3, 4]).unwrap();
    assert_eq!(pongs(&peer.replies()), [[1, 2, 3, 4]]);
    peer.message(type_id::USER_CONTROL, 0, 0, &[0, 3, 0, 0, 0, 1, 255, 255, 255, 255]).unwrap();
    assert_eq!(peer.server.player_buffer_ms(), 10_000);
    assert!(matches!(peer.message(type_id::USER_CONTROL, 0, 0, &[0]), Err(ProtocolError::Illegal(_))));
}

#[test]
fn rt_30_a_ping_flood_gets_ten_answers_a_second() {
    let mut peer = Peer::connected();
    let ping = peer.encode(type_id::USER_CONTROL, 0, 0, &[0, 6, 0, 0, 0, 1]);
    for _ in 0..3 {
        peer.send(&ping.repeat(1000)).unwrap();
        assert_eq!(pongs(&peer.replies()).len(), 10);
        peer.advance(Duration::from_secs(1)).unwrap();
    }
}

#[test]
fn rt_31_unknown_message_types_are_glitches_that_time_forgives() {
    let (mut peer, _) = Peer::playing();
    for kind in [0, 7, 10, 14, 21, 23, 255] {
        peer.message(kind, 0, 0, b"what").unwrap();
    }
    assert_eq!(peer.server.glitches(), 7);
    // One a second for ten minutes is no flood.
    for _ in 0..600 {
        peer.advance(Duration::from_secs(1)).unwrap();
        peer.message(255, 0, 0, b"what").unwrap();
    }
    let outcome = (0..32).try_for_each(|_| peer.message(255, 0, 0, b"what"));
    assert_eq!(outcome, Err(ProtocolError::Illegal("glitches")));
}

#[test]
fn glitches_are_told_by_their_rule_and_traced() {
    let (mut peer, _) = Peer::publishing();
    peer.message(255, 0, 0, b"what").unwrap();
    peer.message(type_id::ACKNOWLEDGEMENT, 0, 0, &[0, 0, 0, 1, 9]).unwrap();
    peer.message(type_id::VIDEO, 7, 40, &[0x17; 9]).unwrap();
    let glitches: Vec<_> = peer.server.take_glitches().iter().map(|(what, count)| (what.as_str(), count)).collect();
    assert_eq!(glitches, [("longer", 1), ("unknown_type", 1), ("stream", 1)]);
    assert_eq!(peer.server.take_glitches().total(), 0);
    let trace = peer.server.trace().to_string();
    assert!(trace.starts_with("+0ms handshake, +0ms connect, +0ms connect_accepted"), "{trace}");
    let told = "type_255 4B @0, +0ms glitch unknown_type x1, +0ms ack 5B @0, +0ms glitch longer x1, \
                +0ms video 9B @40, +0ms glitch stream x1";
    assert!(trace.ends_with(told), "{trace}");
}

#[test]
fn load_orange_has_patience_for_eight_glitches() {
    let (mut peer, _) = Peer::playing();
    let pressed = Settings::default().pressed(|time| time, 8);
    peer.server.adopt(&std::sync::Arc::new(pressed));
    let passed = (0..32).take_while(|_| peer.message(255, 0, 0, b"what").is_ok()).count();
    assert_eq!(passed, 7);
}

#[test]
fn a_peer_that_reads_no_answers_is_let_go() {
    let settings = Settings { command_rate: 1_000_000, ..Settings::default() };
    let mut peer = Peer::connected_with(settings);
    let outcome = (0..10_000).try_for_each(|n| peer.command(0, "anything", f64::from(n), &[]));
    assert_eq!(outcome, Err(ProtocolError::Limit("output")));
    assert!(peer.take_output().len() < 66 << 10);
}
