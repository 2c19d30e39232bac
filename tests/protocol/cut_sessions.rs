//! A recorded session, cut and split everywhere.

use std::sync::Arc;
use std::time::Instant;

use sluicegate::proto::rtmp::Settings;
use sluicegate::proto::rtmp::amf0::Value;
use sluicegate::proto::rtmp::message::type_id;
use sluicegate::proto::rtmp::server::{Server, ServerEvent};

use crate::support::{AAC_CONFIG, AVC_CONFIG, AVC_KEYFRAME, Peer, text};

/// A session that publishes twice, as the bytes the peer sent.
fn recording() -> Vec<u8> {
    let (mut peer, _) = Peer::publishing();
    for _ in 0..2 {
        peer.message(type_id::VIDEO, 1, 0, AVC_CONFIG).unwrap();
        peer.message(type_id::AUDIO, 1, 0, AAC_CONFIG).unwrap();
        peer.message(type_id::VIDEO, 1, 40, &[AVC_KEYFRAME, &[1; 300]].concat()).unwrap();
        peer.command(0, "FCUnpublish", 6.0, &[Value::Null, text("cam")]).unwrap();
        peer.command(0, "deleteStream", 7.0, &[Value::Null, Value::Number(1.0)]).unwrap();
        peer.command(0, "createStream", 8.0, &[Value::Null]).unwrap();
        peer.command(1, "publish", 9.0, &[Value::Null, text("cam")]).unwrap();
        for event in peer.events() {
            if let ServerEvent::Publish { request, .. } = event {
                peer.server.accept_publish(peer.now, request);
            }
        }
    }
    peer.sent
}

/// Plays `parts` to a server that says yes to everything, and gives the events in order.
fn replay<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<ServerEvent> {
    replay_in_turns(parts, None)
}

/// The same with turns of so many messages.
fn replay_in_turns<'a>(parts: impl Iterator<Item = &'a [u8]>, turn: Option<u32>) -> Vec<ServerEvent> {
    let now = Instant::now();
    let mut server = Server::new(&Arc::new(Settings::default()), now);
    let mut events = Vec::new();
    for part in parts {
        turn.inspect(|messages| server.begin_turn(*messages));
        server.handle_bytes(now, part).unwrap();
        loop {
            let before = events.len();
            while let Some(event) = server.poll_event() {
                match &event {
                    ServerEvent::Connect(_) => server.accept_connect(),
                    ServerEvent::Publish { request, .. } => server.accept_publish(now, *request),
                    _ => {}
                }
                events.push(event);
            }
            server.output().clear();
            assert!(turn.is_none_or(|messages| events.len() - before <= messages as usize));
            if !server.has_more() {
                break;
            }
            assert!(!server.wants_read(), "what waits for a turn comes before what is read");
            turn.inspect(|messages| server.begin_turn(*messages));
            server.handle_more(now).unwrap();
        }
    }
    events
}

#[test]
fn rt_40_a_session_cut_at_any_byte_has_each_end_at_most_once_and_after_its_beginning() {
    let recording = recording();
    for end in 0..=recording.len() {
        let events = replay(std::iter::once(&recording[..end]));
        let mut open = None;
        for event in events {
            match event {
                ServerEvent::Publish { request, .. } => assert_eq!(open.replace(request), None),
                ServerEvent::Ended(request) => assert_eq!(open.take(), Some(request)),
                ServerEvent::Frame(_) => assert!(open.is_some()),
                _ => {}
            }
        }
    }
}

#[test]
fn rt_39_any_segmentation_gives_the_same_events() {
    let recording = recording();
    let expected = replay(std::iter::once(&recording[..]));
    assert_eq!(expected.iter().filter(|event| matches!(event, ServerEvent::Ended(_))).count(), 2);
    for size in [1, 2, 3, 13, 128, 1000] {
        assert_eq!(replay(recording.chunks(size)), expected, "segments of {size}");
    }
}

#[test]
fn rt_39_turns_of_any_length_give_the_same_events() {
    let recording = recording();
    let expected = replay(std::iter::once(&recording[..]));
    for turn in [1, 2, 3, 7] {
        for size in [5, 1_000, recording.len()] {
            assert_eq!(
                replay_in_turns(recording.chunks(size), Some(turn)),
                expected,
                "turns of {turn}, segments of {size}"
            );
        }
    }
}

#[test]
fn rt_39_a_turn_obeys_so_many_messages_whatever_one_read_holds() {
    let (mut peer, _) = Peer::publishing();
    let frame = peer.encode(type_id::AUDIO, 1, 0, &[0xaf, 1, 7]);
    peer.server.begin_turn(200);
    peer.send(&frame.repeat(5_000)).unwrap();
    let mut turns = vec![peer.events().len()];
    while peer.server.has_more() {
        peer.server.begin_turn(200);
        peer.server.handle_more(peer.now).unwrap();
        turns.push(peer.events().len());
    }
    assert_eq!(turns, [200; 25]);
    assert_eq!(peer.server.held_bytes(), peer.server.output().len(), "nothing is kept of it");

    // Each frame of an aggregate counts.
    let item = [&[type_id::AUDIO, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0][..], &[0xaf, 1, 7], &[0, 0, 0, 14]].concat();
    let aggregate = peer.encode(type_id::AGGREGATE, 1, 0, &item.repeat(150));
    peer.server.begin_turn(200);
    peer.send(&aggregate.repeat(4)).unwrap();
    assert_eq!(peer.events().len(), 300, "the one that is begun is whole");
    assert!(peer.server.has_more());
}
