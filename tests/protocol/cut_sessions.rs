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
    let now = Instant::now();
    let mut server = Server::new(&Arc::new(Settings::default()), now);
    let mut events = Vec::new();
    for part in parts {
        server.handle_bytes(now, part).unwrap();
        while let Some(event) = server.poll_event() {
            match &event {
                ServerEvent::Connect(_) => server.accept_connect(),
                ServerEvent::Publish { request, .. } => server.accept_publish(now, *request),
                _ => {}
            }
            events.push(event);
        }
        server.output().clear();
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
