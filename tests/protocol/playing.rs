//! From `play` to its end.

use sluicegate::proto::rtmp::ProtocolError;
use sluicegate::proto::rtmp::amf0::Value;
use sluicegate::proto::rtmp::message::type_id;
use sluicegate::proto::rtmp::server::{PLAY_STREAM_ID, Refusal, ServerEvent};

use crate::support::{Peer, Reply, codes, only, text};

#[test]
fn an_accepted_play_is_announced_in_full() {
    let mut peer = Peer::connected();
    peer.command(0, "createStream", 2.0, &[Value::Null]).unwrap();
    peer.replies();
    let request = peer.ask_play("cam?token=x");
    assert_eq!(request.stream_id, PLAY_STREAM_ID);
    peer.server.accept_play(peer.now, request);
    let replies = peer.replies();
    assert_eq!(replies[0], Reply::Control(type_id::USER_CONTROL, vec![0, 0, 0, 0, 0, 1]));
    assert_eq!(codes(&replies), ["NetStream.Play.Reset", "NetStream.Play.Start"]);
    let access = vec![text("|RtmpSampleAccess"), Value::Boolean(true), Value::Boolean(true)];
    assert_eq!(replies[3], Reply::Data(1, access));
    assert_eq!(replies.len(), 4);
}

#[test]
fn the_end_of_a_stream_is_told_in_every_way_players_know() {
    let (mut peer, request) = Peer::playing();
    peer.server.notify_unpublished(request, true);
    peer.server.notify_unpublished(request, false);
    peer.server.end_play(request);
    let replies = peer.replies();
    assert_eq!(
        codes(&replies),
        [
            "NetStream.Play.UnpublishNotify",
            "NetStream.Play.PublishNotify",
            "NetStream.Play.UnpublishNotify",
            "NetStream.Play.Stop",
        ]
    );
    assert!(replies.contains(&Reply::Control(type_id::USER_CONTROL, vec![0, 1, 0, 0, 0, 1])));
    assert!(replies.iter().any(|reply| matches!(reply, Reply::Data(1, values) if values[0] == text("onPlayStatus"))));
    assert!(peer.events().is_empty(), "who ended it need not be told");
    peer.server.end_play(request);
    assert!(peer.replies().is_empty(), "once");
}

#[test]
fn a_play_on_another_message_stream_is_refused_with_a_way_out() {
    let mut peer = Peer::connected();
    peer.command(0, "createStream", 2.0, &[]).unwrap();
    peer.command(0, "createStream", 3.0, &[]).unwrap();
    peer.replies();
    peer.command(2, "play", 0.0, &[Value::Null, text("cam")]).unwrap();
    let replies = peer.replies();
    assert_eq!(only(&replies, "onStatus").code().as_deref(), Some("NetStream.Play.Failed"));
    assert!(peer.events().is_empty());
    peer.ask_play("cam");
}

#[test]
fn rt_55_play_close_play_gives_two_complete_pairs() {
    let (mut peer, first) = Peer::playing();
    peer.command(1, "closeStream", 0.0, &[Value::Null]).unwrap();
    assert_eq!(peer.events(), [ServerEvent::Ended(first)]);
    assert_eq!(codes(&peer.replies()), ["NetStream.Play.Stop"]);
    let second = peer.ask_play("other");
    peer.server.accept_play(peer.now, second);
    peer.command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(1.0)]).unwrap();
    assert_eq!(peer.events(), [ServerEvent::Ended(second)]);
    peer.replies();
    // After deleteStream the id is free, so that the next play is on it as well.
    peer.command(0, "createStream", 9.0, &[]).unwrap();
    let replies = peer.replies();
    let Reply::Command { args, .. } = only(&replies, "_result") else { panic!() };
    assert_eq!(args[1].as_number(), Some(1.0));
}

#[test]
fn rt_57_start_and_duration_of_any_value_mean_live() {
    for number in [f64::NAN, -2000.0, -1.0, 0.0, 1e308, f64::NEG_INFINITY] {
        let mut peer = Peer::connected();
        let args = [Value::Null, text("cam"), Value::Number(number), Value::Number(number), Value::Boolean(true)];
        peer.command(1, "play", 0.0, &args).unwrap();
        assert!(matches!(peer.events()[..], [ServerEvent::Play { .. }]), "{number}");
    }
    let mut peer = Peer::connected();
    peer.command(1, "play", 0.0, &[Value::Null, text("cam"), text("now"), Value::Object(vec![])]).unwrap();
    assert!(matches!(peer.events()[..], [ServerEvent::Play { .. }]));
}

#[test]
fn rt_57_pause_seek_and_receive_flags_reach_the_owner() {
    let (mut peer, request) = Peer::playing();
    peer.command(1, "pause", 0.0, &[Value::Null, Value::Boolean(true), Value::Number(5.0)]).unwrap();
    peer.command(1, "pause", 0.0, &[Value::Null, Value::Boolean(false), Value::Number(5.0)]).unwrap();
    peer.command(1, "seek", 0.0, &[Value::Null, Value::Number(f64::NAN)]).unwrap();
    peer.command(1, "receiveAudio", 0.0, &[Value::Null, Value::Boolean(false)]).unwrap();
    peer.command(1, "receiveVideo", 0.0, &[Value::Null, Value::Boolean(true)]).unwrap();
    peer.command(1, "play2", 0.0, &[Value::Null, Value::Object(vec![])]).unwrap();
    // None of these mean anything to who does not play there.
    peer.command(4, "pause", 0.0, &[Value::Null, Value::Boolean(true)]).unwrap();
    assert_eq!(
        peer.events(),
        [
            ServerEvent::Pause(request, true),
            ServerEvent::Pause(request, false),
            ServerEvent::ReceiveAudio(request, false),
            ServerEvent::ReceiveVideo(request, true),
        ]
    );
    assert_eq!(codes(&peer.replies()), ["NetStream.Pause.Notify", "NetStream.Unpause.Notify", "NetStream.Seek.Notify"]);
    let outcome = (0..1000).try_for_each(|n| {
        peer.take_output();
        peer.command(1, "pause", 0.0, &[Value::Null, Value::Boolean(n % 2 == 0)])
    });
    assert_eq!(outcome, Err(ProtocolError::Limit("command_rate")));
}

#[test]
fn rt_58_unknown_commands_get_an_empty_result_if_they_want_one() {
    let mut peer = Peer::connected();
    for name in ["_checkbw", "getUserData", "FCSomething"] {
        peer.command(0, name, 0.0, &[Value::Null]).unwrap();
        assert!(peer.replies().is_empty(), "{name}");
        peer.command(0, name, 12.0, &[Value::Null]).unwrap();
        let expected = Reply::Command {
            stream_id: 0,
            name: "_result".to_owned(),
            transaction: 12.0,
            args: vec![Value::Null, Value::Null],
        };
        assert_eq!(peer.replies(), [expected], "{name}");
    }
    peer.command(0, "getStreamLength", 3.0, &[Value::Null, text("cam")]).unwrap();
    let replies = peer.replies();
    let Reply::Command { args, .. } = only(&replies, "_result") else { panic!() };
    assert_eq!(args[1].as_number(), Some(0.0));
    peer.command(0, "FCSubscribe", 0.0, &[Value::Null, text("cam")]).unwrap();
    assert_eq!(peer.replies()[0].name(), "onFCSubscribe");
}

#[test]
fn rt_59_a_player_that_leaves_before_the_verdict_is_not_started() {
    let mut peer = Peer::connected();
    let request = peer.ask_play("cam");
    peer.command(1, "closeStream", 0.0, &[]).unwrap();
    assert_eq!(peer.events(), [ServerEvent::Ended(request)]);
    peer.server.accept_play(peer.now, request);
    peer.server.end_play(request);
    assert!(peer.replies().is_empty());
}

#[test]
fn a_refused_play_says_why() {
    let mut peer = Peer::connected();
    let request = peer.ask_play("cam");
    peer.server.reject(request, Refusal { code: "NetStream.Play.StreamNotFound", description: "No such stream." });
    let replies = peer.replies();
    assert_eq!(only(&replies, "onStatus").code().as_deref(), Some("NetStream.Play.StreamNotFound"));
    assert_eq!(only(&replies, "onStatus").level().as_deref(), Some("error"));
}
