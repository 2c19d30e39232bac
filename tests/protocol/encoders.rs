//! The commands of programs in use, in the order and with the arguments in which they send them.

use sluicegate::media::Track;
use sluicegate::proto::rtmp::amf0::Value;
use sluicegate::proto::rtmp::message::type_id;
use sluicegate::proto::rtmp::server::{RequestId, ServerEvent};

use crate::support::{AAC_CONFIG, AVC_CONFIG, AVC_KEYFRAME, Peer, Reply, codes, object, only, set_data_frame, text};

const NULL: Value = Value::Null;

/// The stream id that `createStream` gives, as a peer reads it.
fn created(peer: &mut Peer, transaction: f64) -> u32 {
    let replies = peer.replies();
    let result = replies.iter().find_map(|reply| match reply {
        Reply::Command { name, transaction: echoed, args, .. } if name == "_result" && *echoed == transaction => {
            args.get(1)?.as_number()
        }
        _ => None,
    });
    result.unwrap_or_else(|| panic!("no result of createStream in {replies:?}")) as u32
}

fn accept_connect(peer: &mut Peer) {
    assert!(matches!(peer.events()[..], [ServerEvent::Connect(_)]));
    peer.server.accept_connect();
    assert_eq!(codes(&peer.replies()), ["NetConnection.Connect.Success"]);
}

fn accept_publish(peer: &mut Peer, expected: &str, expected_query: Option<&str>) -> RequestId {
    let events = peer.events();
    let [ServerEvent::Publish { request, stream, query }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((stream.as_str(), query.as_deref()), (expected, expected_query));
    peer.server.accept_publish(peer.now, *request);
    assert_eq!(codes(&peer.replies()), ["NetStream.Publish.Start"]);
    *request
}

fn send_media(peer: &mut Peer, stream_id: u32) {
    peer.message(type_id::DATA_AMF0, stream_id, 0, &set_data_frame(1920.0)).unwrap();
    peer.message(type_id::VIDEO, stream_id, 0, AVC_CONFIG).unwrap();
    peer.message(type_id::AUDIO, stream_id, 0, AAC_CONFIG).unwrap();
    peer.message(type_id::VIDEO, stream_id, 0, AVC_KEYFRAME).unwrap();
    let tracks: Vec<_> = peer.frames().iter().map(|frame| frame.track).collect();
    assert_eq!(tracks, [Track::Data, Track::Video, Track::Audio, Track::Video]);
}

#[test]
fn obs_publishes() {
    let mut peer = Peer::handshaken();
    // Its librtmp announces the chunk size before connect.
    peer.set_chunk_size(4096);
    peer.connect(object([
        ("app", text("live")),
        ("type", text("nonprivate")),
        ("flashVer", text("FMLE/3.0 (compatible; FMSc/1.0)")),
        ("swfUrl", text("rtmp://edge.example/live")),
        ("tcUrl", text("rtmp://edge.example/live")),
        ("fourCcList", Value::StrictArray(vec![text("av01"), text("hvc1")])),
    ]))
    .unwrap();
    accept_connect(&mut peer);
    peer.command(0, "releaseStream", 2.0, &[NULL, text("key?token=x")]).unwrap();
    peer.command(0, "FCPublish", 3.0, &[NULL, text("key?token=x")]).unwrap();
    peer.command(0, "createStream", 4.0, &[NULL]).unwrap();
    let id = created(&mut peer, 4.0);
    peer.command(id, "publish", 5.0, &[NULL, text("key?token=x"), text("live")]).unwrap();
    let request = accept_publish(&mut peer, "key", Some("token=x"));
    send_media(&mut peer, id);
    peer.command(0, "FCUnpublish", 6.0, &[NULL, text("key?token=x")]).unwrap();
    peer.command(0, "deleteStream", 7.0, &[NULL, Value::Number(f64::from(id))]).unwrap();
    assert_eq!(peer.events(), [ServerEvent::Ended(request)]);
}

#[test]
fn ffmpeg_publishes() {
    let mut peer = Peer::handshaken();
    peer.connect(object([
        ("app", text("live")),
        ("type", text("nonprivate")),
        ("flashVer", text("FMLE/3.0 (compatible; Lavf61.7.100)")),
        ("tcUrl", text("rtmp://127.0.0.1:1935/live")),
        ("fourCcList", Value::StrictArray(vec![text("av01"), text("hvc1"), text("vp09"), text("ac-3"), text("Opus")])),
    ]))
    .unwrap();
    accept_connect(&mut peer);
    peer.set_chunk_size(60_000);
    peer.command(0, "releaseStream", 2.0, &[NULL, text("cam")]).unwrap();
    peer.command(0, "FCPublish", 3.0, &[NULL, text("cam")]).unwrap();
    peer.command(0, "createStream", 4.0, &[NULL]).unwrap();
    let replies = peer.replies();
    assert_eq!(only(&replies, "onFCPublish").level().as_deref(), Some("status"));
    let results: Vec<_> = replies
        .iter()
        .filter_map(|reply| match reply {
            Reply::Command { name, transaction, .. } if name == "_result" => Some(*transaction),
            _ => None,
        })
        .collect();
    assert_eq!(results, [2.0, 3.0, 4.0]);
    peer.command(1, "publish", 5.0, &[NULL, text("cam"), text("live")]).unwrap();
    let request = accept_publish(&mut peer, "cam", None);
    send_media(&mut peer, 1);
    peer.command(0, "FCUnpublish", 6.0, &[NULL, text("cam")]).unwrap();
    peer.command(0, "deleteStream", 7.0, &[NULL, Value::Number(1.0)]).unwrap();
    assert_eq!(peer.events(), [ServerEvent::Ended(request)]);
}

#[test]
fn ffmpeg_plays() {
    let mut peer = Peer::handshaken();
    peer.connect(object([
        ("app", text("live")),
        ("flashVer", text("LNX 9,0,124,2")),
        ("tcUrl", text("rtmp://127.0.0.1:1935/live")),
        ("fpad", Value::Boolean(false)),
        ("capabilities", Value::Number(15.0)),
        ("audioCodecs", Value::Number(4071.0)),
        ("videoCodecs", Value::Number(252.0)),
        ("videoFunction", Value::Number(1.0)),
    ]))
    .unwrap();
    accept_connect(&mut peer);
    peer.message(type_id::WINDOW_ACK_SIZE, 0, 0, &2_500_000u32.to_be_bytes()).unwrap();
    peer.command(0, "createStream", 2.0, &[NULL]).unwrap();
    peer.command(0, "_checkbw", 3.0, &[NULL]).unwrap();
    assert_eq!(created(&mut peer, 2.0), 1);
    peer.command(0, "getStreamLength", 4.0, &[NULL, text("cam")]).unwrap();
    peer.command(1, "play", 5.0, &[NULL, text("cam"), Value::Number(-2000.0)]).unwrap();
    peer.message(type_id::USER_CONTROL, 0, 1, &[0, 3, 0, 0, 0, 1, 0, 0, 0x0b, 0xb8]).unwrap();
    let events = peer.events();
    let [ServerEvent::Play { request, .. }] = events[..] else { panic!("{events:?}") };
    peer.server.accept_play(peer.now, request);
    assert!(codes(&peer.replies()).contains(&"NetStream.Play.Start".to_owned()));
    peer.command(0, "deleteStream", 6.0, &[NULL, Value::Number(1.0)]).unwrap();
    assert_eq!(peer.events(), [ServerEvent::Ended(request)]);
}

#[test]
fn rtmpdump_plays() {
    let mut peer = Peer::handshaken();
    peer.connect(object([
        ("app", text("live")),
        ("flashVer", text("LNX 10,0,32,18")),
        ("tcUrl", text("rtmp://edge.example:1935/live")),
        ("fpad", Value::Boolean(false)),
        ("capabilities", Value::Number(15.0)),
        ("audioCodecs", Value::Number(3191.0)),
        ("videoCodecs", Value::Number(252.0)),
        ("videoFunction", Value::Number(1.0)),
    ]))
    .unwrap();
    accept_connect(&mut peer);
    peer.message(type_id::WINDOW_ACK_SIZE, 0, 0, &5_000_000u32.to_be_bytes()).unwrap();
    peer.message(type_id::USER_CONTROL, 0, 0, &[0, 3, 0, 0, 0, 0, 0, 0, 1, 0x2c]).unwrap();
    peer.command(0, "createStream", 2.0, &[NULL]).unwrap();
    // With `--live` it subscribes first; both come before the play.
    peer.command(0, "FCSubscribe", 3.0, &[NULL, text("cam")]).unwrap();
    assert_eq!(created(&mut peer, 2.0), 1);
    peer.command(1, "play", 4.0, &[NULL, text("cam"), Value::Number(-1000.0)]).unwrap();
    // A buffer of ten hours, so that a server sends as fast as it can.
    peer.message(type_id::USER_CONTROL, 0, 0, &[0, 3, 0, 0, 0, 1, 2, 0x25, 0x51, 0]).unwrap();
    let events = peer.events();
    let [ServerEvent::Play { request, .. }] = events[..] else { panic!("{events:?}") };
    peer.server.accept_play(peer.now, request);
    let replies = peer.replies();
    assert!(matches!(&replies[0], Reply::Control(type_id::USER_CONTROL, _)));
    assert_eq!(peer.server.player_buffer_ms(), 10_000);
    assert_eq!(peer.server.glitches(), 0);
}

#[test]
fn gstreamer_publishes() {
    // rtmp2sink: window and chunk size in one write with connect, transactions counted from 1, stream 0 for all
    // but publish, and no releaseStream answers awaited.
    let mut peer = Peer::handshaken();
    peer.connect(object([
        ("app", text("live")),
        ("type", text("nonprivate")),
        ("flashVer", text("FMLE/3.0 (compatible; FMSc/1.0)")),
        ("tcUrl", text("rtmp://edge.example:1935/live")),
    ]))
    .unwrap();
    accept_connect(&mut peer);
    peer.message(type_id::WINDOW_ACK_SIZE, 0, 0, &2_500_000u32.to_be_bytes()).unwrap();
    peer.set_chunk_size(1 << 24);
    peer.command(0, "releaseStream", 0.0, &[NULL, text("cam")]).unwrap();
    peer.command(0, "FCPublish", 0.0, &[NULL, text("cam")]).unwrap();
    peer.command(0, "createStream", 2.0, &[NULL]).unwrap();
    let id = created(&mut peer, 2.0);
    peer.command(id, "publish", 0.0, &[NULL, text("cam"), text("live")]).unwrap();
    let request = accept_publish(&mut peer, "cam", None);
    send_media(&mut peer, id);
    // On EOS it unpublishes by closing and deleting its stream.
    peer.command(id, "closeStream", 0.0, &[NULL]).unwrap();
    peer.command(0, "deleteStream", 0.0, &[NULL, Value::Number(f64::from(id))]).unwrap();
    assert_eq!(peer.events(), [ServerEvent::Ended(request)]);
}

#[test]
fn a_hardware_encoder_publishes_without_waiting_for_anything() {
    // Everything from createStream to the first keyframe in one go, metadata on stream 0 and no @setDataFrame.
    let mut peer = Peer::connected();
    let mut bytes = Vec::new();
    let mut add = |kind, id, body: &[u8]| bytes.extend(peer.encode(kind, id, 0, body));
    add(type_id::COMMAND_AMF0, 0, &crate::support::command_body("createStream", 2.0, &[NULL]));
    add(type_id::COMMAND_AMF0, 1, &crate::support::command_body("publish", 3.0, &[NULL, text("cam"), text("live")]));
    add(type_id::DATA_AMF0, 0, &crate::support::metadata(1.0));
    add(type_id::VIDEO, 1, AVC_CONFIG);
    add(type_id::VIDEO, 1, AVC_KEYFRAME);
    peer.send(&bytes).unwrap();
    let events = peer.events();
    let [ServerEvent::Publish { request, .. }] = events[..] else { panic!("{events:?}") };
    peer.server.accept_publish(peer.now, request);
    let frames = peer.frames();
    assert_eq!(frames.len(), 3);
    assert!(frames[0].flags.metadata && frames[2].flags.keyframe);
}
