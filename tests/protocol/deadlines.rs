//! Every wait has an absolute deadline.

use std::sync::Arc;
use std::time::Duration;

use sluicegate::proto::rtmp::message::type_id;
use sluicegate::proto::rtmp::server::{Refusal, RequestId, ServerEvent};
use sluicegate::proto::rtmp::{ProtocolError, Settings};

use crate::support::{AAC_FRAME, AVC_KEYFRAME, Peer, hello};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn rt_05_a_slow_handshake_ends_at_its_deadline_however_many_bytes_come() {
    let mut peer = Peer::new(Settings::default());
    let start = peer.now;
    let deadline = peer.server.next_deadline().unwrap();
    assert_eq!(deadline - start, 5 * SECOND);
    for byte in hello().iter().take(4) {
        peer.now += SECOND;
        peer.send(std::slice::from_ref(byte)).unwrap();
        assert_eq!(peer.server.next_deadline(), Some(deadline), "a byte does not move it");
    }
    assert_eq!(peer.advance(SECOND), Err(ProtocolError::Deadline("handshake")));
    assert_eq!(peer.send(&[0]), Err(ProtocolError::Deadline("handshake")));
}

#[test]
fn a_deadline_is_kept_even_when_bytes_come_first() {
    let mut peer = Peer::new(Settings::default());
    peer.now += 5 * SECOND;
    assert_eq!(peer.send(&hello()), Err(ProtocolError::Deadline("handshake")));
}

#[test]
fn the_command_deadline_runs_from_the_handshake_to_an_accepted_request() {
    let mut peer = Peer::handshaken();
    let deadline = peer.server.next_deadline().unwrap();
    assert_eq!(deadline - peer.now, 10 * SECOND);
    peer.now += 4 * SECOND;
    peer.connect(crate::support::connect_object("live")).unwrap();
    peer.server.accept_connect();
    peer.command(0, "createStream", 2.0, &[]).unwrap();
    peer.events();
    let request = peer.ask_publish("cam");
    assert_eq!(peer.server.next_deadline(), None, "whoever waits for an answer is not late");
    peer.server.reject(request, Refusal { code: "NetStream.Publish.Denied", description: "No." });
    assert_eq!(peer.server.next_deadline(), Some(deadline), "a refusal does not buy time");
    assert_eq!(peer.advance(6 * SECOND), Err(ProtocolError::Deadline("command")));
}

/// A peer whose publish is without an answer for longer than it may take to ask for one.
fn asked_a_minute_ago() -> (Peer, RequestId) {
    let mut peer = Peer::handshaken();
    peer.connect(crate::support::connect_object("live")).unwrap();
    peer.server.accept_connect();
    peer.command(0, "createStream", 2.0, &[]).unwrap();
    peer.events();
    let request = peer.ask_publish("cam");
    peer.advance(60 * SECOND).unwrap();
    (peer, request)
}

#[test]
fn an_answer_that_comes_after_the_command_deadline_is_still_an_answer() {
    let (mut peer, request) = asked_a_minute_ago();
    peer.server.accept_publish(peer.now, request);
    peer.advance(SECOND).unwrap();

    // A no leaves it no time for another try.
    let (mut peer, request) = asked_a_minute_ago();
    peer.server.reject(request, Refusal { code: "NetStream.Publish.Denied", description: "No." });
    assert_eq!(peer.advance(Duration::ZERO), Err(ProtocolError::Deadline("command")));
}

#[test]
fn a_player_has_no_deadline_and_an_ended_one_has_the_command_deadline_again() {
    let (mut peer, request) = Peer::playing();
    assert_eq!(peer.server.next_deadline(), None);
    peer.advance(3600 * SECOND).unwrap();
    peer.command(1, "closeStream", 0.0, &[]).unwrap();
    assert_eq!(peer.events(), [ServerEvent::Ended(request)]);
    assert_eq!(peer.server.next_deadline(), Some(peer.now + 10 * SECOND));
    assert_eq!(peer.advance(10 * SECOND), Err(ProtocolError::Deadline("command")));
}

#[test]
fn a_player_ended_by_us_after_an_hour_may_begin_another_play() {
    let (mut peer, request) = Peer::playing();
    peer.now += 3600 * SECOND;
    peer.server.end_play(request);
    // The engine was not told the time meanwhile: it asks for it.
    assert!(peer.server.next_deadline().unwrap() <= peer.now);
    peer.advance(Duration::ZERO).unwrap();
    assert_eq!(peer.server.next_deadline(), Some(peer.now + 10 * SECOND));
    let again = peer.ask_play("other");
    peer.server.accept_play(peer.now, again);
    assert_eq!(peer.server.next_deadline(), None);
}

#[test]
fn a_publish_without_media_ends_at_the_first_media_deadline() {
    let (mut peer, _) = Peer::publishing();
    assert_eq!(peer.server.next_deadline(), Some(peer.now + 20 * SECOND));
    peer.now += 15 * SECOND;
    peer.message(type_id::DATA_AMF0, 1, 0, &crate::support::set_data_frame(1.0)).unwrap();
    peer.message(type_id::AUDIO, 1, 0, &[]).unwrap();
    assert_eq!(peer.advance(5 * SECOND), Err(ProtocolError::Deadline("first_media")));
}

#[test]
fn a_silent_publisher_ends_at_the_media_deadline() {
    let (mut peer, _) = Peer::publishing();
    peer.message(type_id::VIDEO, 1, 0, AVC_KEYFRAME).unwrap();
    peer.advance(9 * SECOND).unwrap();
    peer.message(type_id::AUDIO, 1, 0, AAC_FRAME).unwrap();
    peer.advance(9 * SECOND).unwrap();
    assert_eq!(peer.server.next_deadline(), Some(peer.now + SECOND));
    // Metadata and pings are no media.
    peer.message(type_id::DATA_AMF0, 1, 0, &crate::support::set_data_frame(1.0)).unwrap();
    peer.message(type_id::USER_CONTROL, 0, 0, &[0, 6, 0, 0, 0, 1]).unwrap();
    assert_eq!(peer.advance(SECOND), Err(ProtocolError::Deadline("media")));
}

#[test]
fn a_message_that_never_ends_is_a_slow_sender() {
    let settings = Settings { media_timeout: 3600 * SECOND, ..Settings::default() };
    let (mut peer, _) = Peer::publishing_with(settings);
    peer.message(type_id::VIDEO, 1, 0, AVC_KEYFRAME).unwrap();
    let bytes = peer.encode(type_id::VIDEO, 1, 0, &[0x27; 1000]);
    peer.send(&bytes[..100]).unwrap();
    peer.advance(29 * SECOND).unwrap();
    peer.send(&bytes[100..101]).unwrap();
    assert_eq!(peer.advance(SECOND), Err(ProtocolError::Deadline("message")));
}

#[test]
fn load_yellow_shortens_deadlines_that_run_and_green_gives_the_rest_back() {
    let whole = Settings::default();
    let quarter = Arc::new(whole.pressed(|time| time / 4, 8));
    let calm = Arc::new(whole.clone());

    let mut peer = Peer::new(whole.clone());
    let start = peer.now;
    peer.server.adopt(&quarter);
    assert_eq!(peer.server.next_deadline(), Some(start + 5 * SECOND / 4));
    peer.server.adopt(&calm);
    assert_eq!(peer.server.next_deadline(), Some(start + 5 * SECOND));
    peer.now += 2 * SECOND;
    peer.server.adopt(&quarter);
    assert_eq!(peer.advance(Duration::ZERO), Err(ProtocolError::Deadline("handshake")));

    let mut peer = Peer::handshaken();
    peer.server.adopt(&quarter);
    assert_eq!(peer.server.next_deadline(), Some(peer.now + 10 * SECOND / 4));

    let (mut peer, _) = Peer::publishing();
    peer.server.adopt(&quarter);
    assert_eq!(peer.server.next_deadline(), Some(peer.now + 20 * SECOND / 4));
    peer.message(type_id::VIDEO, 1, 0, AVC_KEYFRAME).unwrap();
    assert_eq!(peer.server.next_deadline(), Some(peer.now + 10 * SECOND / 4));
    peer.server.adopt(&calm);
    assert_eq!(peer.server.next_deadline(), Some(peer.now + 10 * SECOND));
}
