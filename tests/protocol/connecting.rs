//! What `connect` says, and how it is answered.

use sluicegate::names::Kind;
use sluicegate::proto::rtmp::ProtocolError;
use sluicegate::proto::rtmp::amf0::Value;
use sluicegate::proto::rtmp::message::type_id;
use sluicegate::proto::rtmp::server::{Refusal, ServerEvent, query_value};

use crate::support::{Peer, Reply, codes, command_body, connect_object, object, only, text};

/// Connects with `connect` object and expects a refusal with that code.
fn refused(object: Value, code: &str) {
    let mut peer = Peer::handshaken();
    peer.connect(object).unwrap();
    assert!(peer.events().is_empty(), "the server is not asked");
    let replies = peer.replies();
    let error = only(&replies, "_error");
    assert_eq!((error.code().as_deref(), error.level().as_deref()), (Some(code), Some("error")));
    assert!(peer.server.is_closing());
    // What comes after is ignored.
    peer.command(0, "createStream", 2.0, &[]).unwrap();
    assert!(peer.replies().is_empty());
}

#[test]
fn everything_that_connect_says_is_kept() {
    let mut peer = Peer::handshaken();
    peer.connect(object([
        ("app", text("live/room?token=a&vhost=tenant.example")),
        ("flashVer", text("FMLE/3.0")),
        ("swfUrl", text("http://x/p.swf")),
        ("tcUrl", text("rtmp://edge.example:1935/live/room?token=b")),
        ("pageUrl", text("http://x/")),
        ("objectEncoding", Value::Number(3.0)),
        ("fourCcList", Value::StrictArray(vec![text("hvc1"), text("av01"), Value::Null, text("too long")])),
        ("capsEx", Value::Number(7.0)),
    ]))
    .unwrap();
    let info = peer.connect_info();
    assert_eq!(info.app, "live/room");
    assert_eq!(info.query.as_deref(), Some("token=a&vhost=tenant.example"));
    assert_eq!(info.vhost.as_deref(), Some("tenant.example"), "the query wins over tcUrl");
    assert_eq!(info.tc_url.as_deref(), Some("rtmp://edge.example:1935/live/room?token=b"));
    assert_eq!(info.page_url.as_deref(), Some("http://x/"));
    assert_eq!(info.swf_url.as_deref(), Some("http://x/p.swf"));
    assert_eq!(info.flash_ver.as_deref(), Some("FMLE/3.0"));
    assert_eq!(info.four_cc_list, ["hvc1", "av01"]);
    assert_eq!(info.caps_ex, Some(7.0));
    assert_eq!(info.object_encoding, Some(3.0));
}

#[test]
fn the_answer_announces_windows_and_chunk_size_before_the_result() {
    let mut peer = Peer::handshaken();
    peer.connect(connect_object("live")).unwrap();
    peer.events();
    peer.server.accept_connect();
    let replies = peer.replies();
    let window = 5_000_000u32.to_be_bytes();
    assert_eq!(replies[0], Reply::Control(type_id::WINDOW_ACK_SIZE, window.to_vec()));
    assert_eq!(replies[1], Reply::Control(type_id::SET_PEER_BANDWIDTH, [&window[..], &[2]].concat()));
    // Set Chunk Size acts in the reader: without it the long result below could not have been read.
    let Reply::Command { name, transaction, args, stream_id } = &replies[2] else { panic!("{replies:?}") };
    assert_eq!((name.as_str(), *transaction, *stream_id), ("_result", 1.0, 0));
    assert_eq!(args[0].get("fmsVer").and_then(Value::as_str), Some("FMS/3,5,7,7009"));
    assert_eq!(args[0].get("capabilities").and_then(Value::as_number), Some(31.0));
    assert_eq!(args[1].get("code").and_then(Value::as_str), Some("NetConnection.Connect.Success"));
    assert_eq!(args[1].get("objectEncoding").and_then(Value::as_number), Some(0.0));
    assert_eq!(args[1].get("capsEx"), None, "who did not ask is not told");
}

#[test]
fn an_enhanced_peer_is_told_what_we_forward() {
    for key in ["fourCcList", "capsEx", "videoFourCcInfoMap", "audioFourCcInfoMap"] {
        let mut peer = Peer::handshaken();
        peer.connect(object([("app", text("live")), (key, Value::Null)])).unwrap();
        peer.events();
        peer.server.accept_connect();
        let replies = peer.replies();
        let Reply::Command { args, .. } = only(&replies, "_result") else { panic!() };
        for place in args {
            assert_eq!(place.get("fourCcList"), Some(&Value::StrictArray(vec![text("*")])), "{key}");
            let caps = place.get("capsEx").and_then(Value::as_number).unwrap();
            assert_eq!(caps, 6.0, "multitrack and ModEx, no reconnect");
            let forwards = place.get("videoFourCcInfoMap").and_then(|map| map.get("*"));
            assert_eq!(forwards.and_then(Value::as_number), Some(4.0));
        }
    }
}

#[test]
fn rt_45_connect_of_wrong_types_is_refused() {
    refused(object([("app", Value::Number(1.0))]), "NetConnection.Connect.InvalidApp");
    refused(object([("app", Value::Boolean(false))]), "NetConnection.Connect.InvalidApp");
    refused(object([("app", Value::String(vec![0xff, 0xfe]))]), "NetConnection.Connect.InvalidApp");
    refused(object([("app", text("a\0b"))]), "NetConnection.Connect.InvalidApp");
    refused(Value::Null, "NetConnection.Connect.InvalidApp");
    refused(Value::Number(3.0), "NetConnection.Connect.InvalidApp");
    refused(object([("app", text(&"a".repeat(257)))]), "NetConnection.Connect.InvalidApp");
    refused(object([("app", text("a")), ("tcUrl", text(&"a".repeat(2049)))]), "NetConnection.Connect.Rejected");
}

#[test]
fn rt_45_the_transaction_is_echoed_bit_for_bit() {
    let numbers = [f64::from_bits(0x7ff8_0000_dead_beef), f64::INFINITY, -1.0, 1e308, 0.5];
    for number in numbers {
        let mut peer = Peer::connected();
        for name in ["createStream", "getStreamLength", "whatever"] {
            peer.command(0, name, number, &[]).unwrap();
            let replies = peer.replies();
            let Reply::Command { transaction, .. } = only(&replies, "_result") else { panic!() };
            assert_eq!(transaction.to_bits(), number.to_bits(), "{name}");
        }
        peer.command(1, "publish", number, &[Value::Null, Value::Boolean(false)]).unwrap();
        let replies = peer.replies();
        let Reply::Command { transaction, .. } = only(&replies, "_error") else { panic!() };
        assert_eq!(transaction.to_bits(), number.to_bits());
    }
}

#[test]
fn rt_45_commands_without_arguments_are_refused_or_ignored() {
    let mut peer = Peer::connected();
    for name in ["publish", "play"] {
        peer.command(1, name, 4.0, &[]).unwrap();
        let replies = peer.replies();
        assert_eq!(only(&replies, "onStatus").level().as_deref(), Some("error"), "{name}");
        assert_eq!(only(&replies, "_error").level().as_deref(), Some("error"), "{name}");
    }
    for name in ["deleteStream", "pause", "seek", "receiveAudio", "closeStream", "play2"] {
        peer.command(1, name, 0.0, &[]).unwrap();
        assert!(peer.replies().is_empty(), "{name}");
    }
    // No transaction, no name.
    peer.message(type_id::COMMAND_AMF0, 0, 0, &command_body("createStream", 1.0, &[])[..15]).unwrap();
    peer.message(type_id::COMMAND_AMF0, 0, 0, &[5]).unwrap();
    peer.message(type_id::COMMAND_AMF0, 0, 0, &[]).unwrap();
    let refused = |kind| ServerEvent::Refused(kind, "stream_name");
    assert_eq!(peer.events(), [refused(Kind::Publish), refused(Kind::Play)]);
}

#[test]
fn rt_46_app_comes_from_tc_url_where_it_is_missing() {
    let mut peer = Peer::handshaken();
    let strict = Value::StrictArray(vec![Value::Number(1.0), Value::Null]);
    peer.connect(object([("tcUrl", text("rtmp://[2001:db8::1]:1935/a/b/?k=v")), ("unheard-of", strict)])).unwrap();
    let info = peer.connect_info();
    assert_eq!((info.app.as_str(), info.query.as_deref()), ("a/b", Some("k=v")));
    assert_eq!(info.vhost.as_deref(), Some("2001:db8::1"));
    refused(object([("tcUrl", text("rtmp://host"))]), "NetConnection.Connect.InvalidApp");
    refused(object([("flashVer", text("x"))]), "NetConnection.Connect.InvalidApp");
    refused(object([("app", text("/"))]), "NetConnection.Connect.InvalidApp");
}

#[test]
fn rt_50_an_app_at_its_limit_is_passed_on() {
    let mut peer = Peer::handshaken();
    peer.connect(object([("app", text(&"a".repeat(256)))])).unwrap();
    assert_eq!(peer.connect_info().app.len(), 256);
}

#[test]
fn rt_51_queries_with_two_readings_or_too_long_are_refused() {
    let parameters = |count: usize| vec!["a=b"; count].join("&");
    for query in ["token=1&token=2", "expires=1&expires=1", "sign=a&x=1&sign=b", &parameters(33), &"q".repeat(2049)] {
        refused(object([("app", text(&format!("live?{query}")))]), "NetConnection.Connect.Rejected");
        for (kind, code) in
            [(Kind::Publish, "NetStream.Publish.BadName"), (Kind::Play, "NetStream.Play.StreamNotFound")]
        {
            let mut peer = Peer::connected();
            peer.command(1, kind.as_str(), 0.0, &[Value::Null, text(&format!("cam?{query}"))]).unwrap();
            assert_eq!(codes(&peer.replies()), [code]);
            assert_eq!(peer.events(), [ServerEvent::Refused(kind, "stream_query")]);
        }
    }
    let mut peer = Peer::connected();
    let query = parameters(32);
    peer.command(1, "publish", 0.0, &[Value::Null, text(&format!("cam?vhost=v.example&{}", &query[4..]))]).unwrap();
    let [ServerEvent::Publish { stream, query: Some(query), .. }] = &peer.events()[..] else { panic!() };
    assert_eq!((stream.as_str(), query_value(query, "vhost")), ("cam", Some("v.example")));
}

#[test]
fn rt_52_commands_before_connect_close() {
    for name in ["publish", "createStream", "play", "releaseStream", "@nonsense"] {
        let mut peer = Peer::handshaken();
        assert_eq!(peer.command(0, name, 1.0, &[]), Err(ProtocolError::Illegal("connect_first")), "{name}");
    }
}

#[test]
fn rt_52_a_second_connect_is_an_error_and_closes() {
    let mut peer = Peer::connected();
    peer.command(0, "connect", 9.0, &[connect_object("live")]).unwrap();
    assert_eq!(codes(&peer.replies()), ["NetConnection.Connect.Rejected"]);
    assert!(peer.events().is_empty() && peer.server.is_closing());
}

#[test]
fn rt_34_a_command_in_amf3_is_read_behind_its_zero() {
    let mut peer = Peer::handshaken();
    let mut body = vec![0];
    body.extend(command_body("connect", 1.0, &[connect_object("live")]));
    peer.message(type_id::COMMAND_AMF3, 0, 0, &body).unwrap();
    assert_eq!(peer.connect_info().app, "live");
    peer.server.accept_connect();
    peer.replies();
    body.truncate(0);
    body.push(0);
    body.extend(command_body("createStream", 2.0, &[Value::Null]));
    peer.message(type_id::COMMAND_AMF3, 0, 0, &body).unwrap();
    assert_eq!(peer.replies().len(), 1);
    body[0] = 0x11;
    peer.message(type_id::COMMAND_AMF3, 0, 0, &body).unwrap();
    assert!(peer.replies().is_empty());
    assert_eq!(peer.server.glitches(), 1);
}

#[test]
fn rt_34_a_connect_in_true_amf3_is_refused() {
    let mut peer = Peer::handshaken();
    peer.message(type_id::COMMAND_AMF3, 0, 0, &[0x11, 2, 3]).unwrap();
    assert_eq!(codes(&peer.replies()), ["NetConnection.Connect.Rejected"]);
    assert!(peer.server.is_closing());
}

#[test]
fn rt_41_a_deep_connect_is_refused_and_a_deep_call_is_an_error() {
    let mut deep = Vec::new();
    for _ in 0..10_000 {
        deep.extend_from_slice(&[0x0a, 0, 0, 0, 1]);
    }
    let mut peer = Peer::handshaken();
    let mut body = command_body("connect", 1.0, &[]);
    body.extend_from_slice(&deep);
    peer.message(type_id::COMMAND_AMF0, 0, 0, &body).unwrap();
    assert_eq!(codes(&peer.replies()), ["NetConnection.Connect.Rejected"]);

    let mut peer = Peer::connected();
    let mut body = command_body("createStream", 7.0, &[]);
    body.extend_from_slice(&deep);
    peer.message(type_id::COMMAND_AMF0, 0, 0, &body).unwrap();
    assert_eq!(codes(&peer.replies()), ["NetConnection.Call.Failed"]);
}

#[test]
fn a_refused_connect_says_why_and_closes() {
    let mut peer = Peer::handshaken();
    peer.connect(connect_object("nope")).unwrap();
    peer.events();
    let refusal = Refusal { code: "NetConnection.Connect.InvalidApp", description: "There is no such application." };
    peer.server.reject_connect(refusal);
    let replies = peer.replies();
    let Reply::Command { transaction, args, .. } = only(&replies, "_error") else { panic!() };
    assert_eq!(*transaction, 1.0);
    assert_eq!(args[1].get("description").and_then(Value::as_str), Some(refusal.description));
    assert!(peer.server.is_closing());
}
