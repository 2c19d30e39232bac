//! From `publish` to its end.

use bytes::Bytes;
use sluicegate::media::Track;
use sluicegate::names::Kind;
use sluicegate::proto::rtmp::amf0::Value;
use sluicegate::proto::rtmp::message::type_id;
use sluicegate::proto::rtmp::server::{Refusal, ServerEvent};
use sluicegate::proto::rtmp::{ProtocolError, Settings};

use crate::support::{
    AAC_CONFIG, AAC_FRAME, AVC_CONFIG, AVC_INTER, AVC_KEYFRAME, Peer, Reply, codes, metadata, only, set_data_frame,
    text,
};

const DENIED: Refusal = Refusal { code: "NetStream.Publish.Denied", description: "You may not publish here." };

#[test]
fn frames_come_out_untouched_with_their_flags() {
    let (mut peer, _) = Peer::publishing();
    peer.message(type_id::DATA_AMF0, 1, 0, &set_data_frame(640.0)).unwrap();
    peer.message(type_id::VIDEO, 1, 0, AVC_CONFIG).unwrap();
    peer.message(type_id::AUDIO, 1, 0, AAC_CONFIG).unwrap();
    peer.message(type_id::VIDEO, 1, 40, AVC_KEYFRAME).unwrap();
    peer.message(type_id::AUDIO, 1, 43, AAC_FRAME).unwrap();
    peer.message(type_id::VIDEO, 1, 80, AVC_INTER).unwrap();
    let frames = peer.frames();
    let seen: Vec<_> = frames
        .iter()
        .map(|frame| {
            let flags = frame.flags;
            (frame.track, frame.timestamp_ms, flags.keyframe, flags.sequence_header, flags.metadata)
        })
        .collect();
    assert_eq!(
        seen,
        [
            (Track::Data, 0, false, false, true),
            (Track::Video, 0, frames[1].flags.keyframe, true, false),
            (Track::Audio, 0, false, true, false),
            (Track::Video, 40, true, false, false),
            (Track::Audio, 43, false, false, false),
            (Track::Video, 80, false, false, false),
        ]
    );
    assert_eq!(frames[0].payload, metadata(640.0), "without the instruction, and otherwise byte for byte");
    assert_eq!(frames[3].payload, AVC_KEYFRAME);
}

#[test]
fn data_messages_are_relayed_as_they_are_and_instructions_are_not() {
    let (mut peer, _) = Peer::publishing();
    let cue = [&[2, 0, 10][..], b"onCuePoint", &[5]].concat();
    for stream_id in [1, 0] {
        peer.message(type_id::DATA_AMF0, stream_id, 5, &cue).unwrap();
    }
    peer.message(type_id::DATA_AMF0, 1, 5, &metadata(1.0)).unwrap();
    // A bare @setDataFrame, and @clearDataFrame.
    peer.message(type_id::DATA_AMF0, 1, 5, &set_data_frame(1.0)[..16]).unwrap();
    peer.message(type_id::DATA_AMF0, 1, 5, &[&[2, 0, 15][..], b"@clearDataFrame", &cue].concat()).unwrap();
    peer.message(type_id::DATA_AMF0, 1, 5, &[]).unwrap();
    let payloads: Vec<_> = peer.frames().into_iter().map(|frame| (frame.flags.metadata, frame.payload)).collect();
    let cue = Bytes::from(cue);
    assert_eq!(payloads, [(false, cue.clone()), (false, cue), (true, metadata(1.0).into())]);
}

#[test]
fn the_orderly_end_is_told_once() {
    let (mut peer, request) = Peer::publishing();
    peer.command(0, "FCUnpublish", 6.0, &[Value::Null, text("cam")]).unwrap();
    assert_eq!(peer.events(), [ServerEvent::Ended(request)]);
    let replies = peer.replies();
    assert_eq!(only(&replies, "onFCUnpublish").code().as_deref(), Some("NetStream.Unpublish.Success"));
    assert_eq!(only(&replies, "onStatus").code().as_deref(), Some("NetStream.Unpublish.Success"));
    peer.command(1, "closeStream", 0.0, &[Value::Null]).unwrap();
    peer.command(0, "deleteStream", 7.0, &[Value::Null, Value::Number(1.0)]).unwrap();
    assert!(peer.events().is_empty());
}

#[test]
fn rt_22_empty_media_is_ignored() {
    let (mut peer, _) = Peer::publishing();
    for kind in [type_id::AUDIO, type_id::VIDEO] {
        peer.message(kind, 1, 0, &[]).unwrap();
    }
    assert!(peer.events().is_empty());
    assert_eq!(peer.server.glitches(), 0);
}

fn aggregate_item(kind: u8, time: u32, body: &[u8], back_pointer: u32) -> Vec<u8> {
    let [_, s2, s1, s0] = (body.len() as u32).to_be_bytes();
    let [t3, t2, t1, t0] = time.to_be_bytes();
    let mut bytes = vec![kind, s2, s1, s0, t2, t1, t0, t3, 0, 0, 0];
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(&back_pointer.to_be_bytes());
    bytes
}

#[test]
fn rt_32_aggregates_are_split_and_their_oddities_dropped() {
    let (mut peer, _) = Peer::publishing();
    let mut body = aggregate_item(type_id::VIDEO, 5000, AVC_KEYFRAME, 21);
    body.extend(aggregate_item(type_id::AUDIO, 5023, AAC_FRAME, 0xdead_beef));
    body.extend(aggregate_item(type_id::AGGREGATE, 5030, &body.clone(), 0));
    body.extend(aggregate_item(type_id::VIDEO, 5040, AVC_INTER, 21));
    body.extend_from_slice(&[type_id::VIDEO, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
    peer.message(type_id::AGGREGATE, 1, 1000, &body).unwrap();
    let frames: Vec<_> = peer.frames().into_iter().map(|frame| (frame.timestamp_ms, frame.payload)).collect();
    assert_eq!(
        frames,
        [
            (1000, Bytes::from_static(AVC_KEYFRAME)),
            (1023, Bytes::from_static(AAC_FRAME)),
            (1040, Bytes::from_static(AVC_INTER)),
        ]
    );
    assert!(peer.server.glitches() >= 1);
    peer.set_chunk_size(65_536);
    peer.message(type_id::AGGREGATE, 1, 2000, &aggregate_item(type_id::VIDEO, 0, &[], 0).repeat(100_000)).unwrap();
    assert!(peer.events().is_empty());
}

#[test]
fn rt_33_shared_objects_and_amf3_data_are_ignored() {
    let (mut peer, _) = Peer::publishing();
    for kind in [type_id::SHARED_OBJECT_AMF0, type_id::SHARED_OBJECT_AMF3, type_id::DATA_AMF3] {
        peer.message(kind, 1, 0, &set_data_frame(1.0)).unwrap();
    }
    assert!(peer.events().is_empty());
    assert_eq!(peer.server.glitches(), 0);
}

#[test]
fn rt_35_media_on_another_message_stream_is_a_glitch() {
    let (mut peer, request) = Peer::publishing();
    peer.message(type_id::VIDEO, 7, 0, AVC_KEYFRAME).unwrap();
    assert!(peer.events().is_empty());
    assert_eq!(peer.server.glitches(), 1);
    // Commands there do no harm, and none to the publish.
    for name in ["closeStream", "pause", "seek"] {
        peer.command(7, name, 0.0, &[Value::Null]).unwrap();
    }
    assert!(peer.events().is_empty());
    // A publish on a stream that nobody created is harmless as well.
    peer.command(0, "FCUnpublish", 0.0, &[]).unwrap();
    assert_eq!(peer.events(), [ServerEvent::Ended(request)]);
    peer.command(5, "publish", 0.0, &[Value::Null, text("cam")]).unwrap();
    assert!(matches!(&peer.events()[..], [ServerEvent::Publish { request, .. }] if request.stream_id == 5));
}

#[test]
fn rt_36_media_before_a_publish_closes() {
    for kind in [type_id::AUDIO, type_id::VIDEO, type_id::AGGREGATE] {
        let mut peer = Peer::connected();
        assert_eq!(
            peer.message(kind, 1, 0, AVC_KEYFRAME),
            Err(ProtocolError::Illegal("media_before_publish")),
            "{kind}"
        );
        let mut peer = Peer::handshaken();
        assert!(peer.message(kind, 1, 0, AVC_KEYFRAME).is_err());
        let (mut peer, _) = Peer::playing();
        assert!(peer.message(kind, 1, 0, AVC_KEYFRAME).is_err(), "players send no media");
    }
}

#[test]
fn rt_36_media_waits_for_the_verdict_and_then_comes_in_order() {
    let mut peer = Peer::connected();
    let request = peer.ask_publish("cam");
    peer.message(type_id::VIDEO, 1, 0, AVC_CONFIG).unwrap();
    peer.message(type_id::VIDEO, 1, 40, AVC_KEYFRAME).unwrap();
    assert!(peer.events().is_empty() && peer.server.wants_read());
    peer.server.accept_publish(peer.now, request);
    peer.message(type_id::VIDEO, 1, 80, AVC_INTER).unwrap();
    let times: Vec<_> = peer.frames().iter().map(|frame| frame.timestamp_ms).collect();
    assert_eq!(times, [0, 40, 80]);
}

#[test]
fn rt_36_beyond_the_verdict_buffer_reading_stops_and_nothing_is_lost() {
    let mut peer = Peer::connected();
    peer.set_chunk_size(4096);
    let request = peer.ask_publish("cam");
    let mut keyframe = AVC_KEYFRAME.to_vec();
    // Larger than what an unauthorized peer may hold unfinished: the verdict is what is missing, not a right.
    keyframe.resize(300_000, 9);
    let mut sent = 0;
    while peer.server.wants_read() {
        let bytes = peer.encode(type_id::VIDEO, 1, sent, &keyframe);
        for part in bytes.chunks(20_000) {
            peer.send(part).unwrap();
        }
        sent += 1;
        assert!(sent < 100, "reading never stopped");
    }
    assert!(peer.server.held_bytes() <= (1 << 20) + 400_000);
    assert!(peer.events().is_empty());
    peer.server.accept_publish(peer.now, request);
    assert!(peer.server.wants_read());
    let frames = peer.frames();
    assert_eq!(frames.iter().map(|frame| frame.timestamp_ms).collect::<Vec<_>>(), (0..sent).collect::<Vec<_>>());
    assert!(frames.iter().all(|frame| frame.payload == keyframe));
}

#[test]
fn rt_36_an_owner_that_reads_on_regardless_is_stopped() {
    let mut peer = Peer::connected();
    peer.set_chunk_size(4096);
    peer.ask_publish("cam");
    let bytes = peer.encode(type_id::VIDEO, 1, 0, &[0x17; 60_000]);
    let outcome = (0..100).try_for_each(|_| peer.send(&bytes));
    assert_eq!(outcome, Err(ProtocolError::Limit("verdict_buffer")));
    assert!(peer.server.held_bytes() < 1 << 17, "nothing is kept for a connection that failed");
}

#[test]
fn a_refused_publish_says_why_and_its_media_is_dropped() {
    let mut peer = Peer::connected();
    let request = peer.ask_publish("cam");
    for _ in 0..100 {
        peer.message(type_id::VIDEO, 1, 0, AVC_KEYFRAME).unwrap();
    }
    peer.server.reject(request, DENIED);
    let replies = peer.replies();
    let Reply::Command { stream_id, transaction, args, .. } = only(&replies, "onStatus") else { panic!() };
    assert_eq!((*stream_id, *transaction), (1, 0.0));
    assert_eq!(args[1].get("level").and_then(Value::as_str), Some("error"));
    assert_eq!(args[1].get("code").and_then(Value::as_str), Some(DENIED.code));
    assert_eq!(args[1].get("description").and_then(Value::as_str), Some(DENIED.description));
    assert!(peer.events().is_empty());
    assert_eq!(peer.advance(std::time::Duration::from_secs(1)), Ok(()), "it did not know");
    assert!(!peer.server.is_closing());
    // Another name may be tried on the same connection.
    let again = peer.ask_publish("other");
    assert_ne!(again, request);
    peer.server.accept_publish(peer.now, again);
    assert_eq!(codes(&peer.replies()), ["NetStream.Publish.Start"]);
    assert!(peer.events().is_empty(), "media of the refused publish is not the new one's");
}

#[test]
fn rt_53_the_ninth_stream_is_an_error_and_unknown_ids_are_ignored() {
    let mut peer = Peer::connected();
    for n in 1..=8 {
        peer.command(0, "createStream", 2.0, &[Value::Null]).unwrap();
        let replies = peer.replies();
        let Reply::Command { args, .. } = only(&replies, "_result") else { panic!() };
        assert_eq!(args[1].as_number(), Some(f64::from(n)));
    }
    peer.command(0, "createStream", 2.0, &[Value::Null]).unwrap();
    assert_eq!(codes(&peer.replies()), ["NetConnection.Call.Failed"]);
    for id in [0.0, -1.0, 9.0, 1e9, 1.5, f64::NAN, f64::INFINITY] {
        peer.command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(id)]).unwrap();
    }
    peer.command(77, "closeStream", 0.0, &[Value::Null]).unwrap();
    // A deleted id is handed out again.
    peer.command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(3.0)]).unwrap();
    peer.command(0, "createStream", 2.0, &[Value::Null]).unwrap();
    let replies = peer.replies();
    let Reply::Command { args, .. } = only(&replies, "_result") else { panic!() };
    assert_eq!(args[1].as_number(), Some(3.0));
    let outcome = (0..1000).try_for_each(|_| {
        peer.take_output();
        peer.command(0, "createStream", 2.0, &[Value::Null])
    });
    assert_eq!(outcome, Err(ProtocolError::Limit("command_rate")));
}

#[test]
fn rt_54_one_role_at_a_time() {
    let (mut peer, request) = Peer::publishing();
    peer.command(1, "publish", 5.0, &[Value::Null, text("again")]).unwrap();
    let replies = peer.replies();
    assert_eq!(only(&replies, "_error").code().as_deref(), Some("NetStream.Publish.BadConnection"));
    peer.command(1, "play", 6.0, &[Value::Null, text("cam")]).unwrap();
    let replies = peer.replies();
    assert_eq!(only(&replies, "_error").code().as_deref(), Some("NetStream.Play.Failed"));
    assert!(peer.events().is_empty());
    // The publish is unharmed.
    peer.message(type_id::VIDEO, 1, 0, AVC_KEYFRAME).unwrap();
    assert_eq!(peer.frames().len(), 1);
    peer.command(1, "closeStream", 0.0, &[]).unwrap();
    assert_eq!(peer.events(), [ServerEvent::Ended(request)]);

    let (mut peer, _) = Peer::playing();
    peer.command(1, "publish", 5.0, &[Value::Null, text("cam")]).unwrap();
    let replies = peer.replies();
    assert_eq!(only(&replies, "_error").level().as_deref(), Some("error"));
    assert!(peer.events().is_empty());
}

#[test]
fn rt_55_publish_unpublish_publish_gives_two_complete_pairs() {
    let (mut peer, first) = Peer::publishing();
    peer.message(type_id::VIDEO, 1, 0, AVC_KEYFRAME).unwrap();
    assert_eq!(peer.frames().len(), 1);
    peer.command(0, "FCUnpublish", 0.0, &[Value::Null, text("cam")]).unwrap();
    assert_eq!(peer.events(), [ServerEvent::Ended(first)]);
    peer.replies();
    let second = peer.ask_publish("cam");
    assert_ne!(first, second);
    peer.server.accept_publish(peer.now, first);
    assert!(peer.replies().is_empty(), "a verdict on the first is void");
    peer.server.accept_publish(peer.now, second);
    peer.message(type_id::VIDEO, 1, 5, AVC_KEYFRAME).unwrap();
    assert_eq!(peer.frames().len(), 1);
    peer.command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(1.0)]).unwrap();
    assert_eq!(peer.events(), [ServerEvent::Ended(second)]);
}

#[test]
fn rt_56_record_and_append_are_live_and_unknown_types_are_refused() {
    let ask = |kind: Option<Value>| {
        let mut peer = Peer::connected();
        let args: Vec<_> = [Value::Null, text("cam")].into_iter().chain(kind).collect();
        peer.command(1, "publish", 0.0, &args).unwrap();
        let is_asked = match &peer.events()[..] {
            [ServerEvent::Publish { .. }] => true,
            [ServerEvent::Refused(Kind::Publish, "publish_type")] => false,
            other => panic!("{other:?}"),
        };
        (is_asked, codes(&peer.replies()))
    };
    for kind in [None, Some(Value::Null), Some(text("live")), Some(text("record")), Some(text("append"))] {
        assert_eq!(ask(kind.clone()), (true, vec![]), "{kind:?}");
    }
    for kind in [text("vod"), Value::Number(1.0), Value::Boolean(true)] {
        assert_eq!(ask(Some(kind.clone())), (false, vec!["NetStream.Publish.Failed".to_owned()]), "{kind:?}");
    }
}

#[test]
fn rt_59_a_peer_that_takes_its_publish_back_gives_a_complete_pair_whenever_the_verdict_comes() {
    let mut peer = Peer::connected();
    let request = peer.ask_publish("cam");
    peer.message(type_id::VIDEO, 1, 0, AVC_KEYFRAME).unwrap();
    peer.command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(1.0)]).unwrap();
    assert!(peer.events().is_empty() && peer.replies().is_empty());
    peer.server.accept_publish(peer.now, request);
    let events = peer.events();
    assert!(matches!(events[..], [ServerEvent::Frame(_), ServerEvent::Ended(ended)] if ended == request), "{events:?}");
    peer.server.accept_publish(peer.now, request);
    peer.server.reject(request, DENIED);
    assert_eq!(codes(&peer.replies()), ["NetStream.Publish.Start", "NetStream.Unpublish.Success"]);

    let mut peer = Peer::connected();
    let request = peer.ask_publish("cam");
    peer.command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(1.0)]).unwrap();
    peer.server.reject(request, DENIED);
    assert!(peer.events().is_empty(), "what never began does not end");
}

#[test]
fn goodbye_is_said_on_the_stream_and_closes() {
    let (mut peer, _) = Peer::publishing();
    peer.server.goodbye(Refusal { code: "NetStream.Publish.Denied", description: "Ended by the operator." });
    let replies = peer.replies();
    let Reply::Command { stream_id, .. } = only(&replies, "onStatus") else { panic!() };
    assert_eq!(*stream_id, 1);
    assert!(peer.server.is_closing());
    peer.message(type_id::VIDEO, 1, 0, AVC_KEYFRAME).unwrap();
    assert!(peer.events().is_empty() && peer.server.next_deadline().is_none());
}

#[test]
fn names_that_are_no_text_are_refused() {
    for name in [
        Value::Null,
        Value::Boolean(false),
        Value::Object(vec![]),
        Value::Number(1.0),
        text(""),
        text("?a=b"),
        text("a\0b"),
        Value::String(vec![0xc3, 0x28]),
        text(&"s".repeat(513)),
    ] {
        let mut peer = Peer::connected();
        peer.command(1, "publish", 3.0, &[Value::Null, name.clone()]).unwrap();
        assert_eq!(codes(&peer.replies()), vec!["NetStream.Publish.BadName"; 2], "{name:?}");
        peer.command(1, "play", 0.0, &[Value::Null, name.clone()]).unwrap();
        peer.command(0, "createStream", 2.0, &[]).unwrap();
        assert_eq!(codes(&peer.replies()), ["NetStream.Play.StreamNotFound"], "{name:?}");
        let refused = |kind| ServerEvent::Refused(kind, "stream_name");
        assert_eq!(peer.events(), [refused(Kind::Publish), refused(Kind::Play)]);
    }
    let mut peer = Peer::connected_with(Settings::default());
    peer.ask_publish(&"s".repeat(512));
}
