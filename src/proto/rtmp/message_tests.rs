use std::time::Instant;

use bytes::Bytes;
use rml_rtmp::chunk_io::ChunkDeserializer;
use rml_rtmp::messages::RtmpMessage;

use super::*;
use crate::proto::rtmp::chunk::Reader;

/// What an independent peer reads.
fn as_a_peer_reads(bytes: &[u8]) -> RtmpMessage {
    let payload = ChunkDeserializer::new().get_next_message(bytes).unwrap().unwrap();
    assert_eq!(payload.message_stream_id, 0);
    payload.to_rtmp_message().unwrap()
}

fn built(write: impl FnOnce(&mut Vec<u8>)) -> RtmpMessage {
    let mut out = Vec::new();
    write(&mut out);
    as_a_peer_reads(&out)
}

#[test]
fn a_peer_understands_our_control_messages() {
    assert_eq!(built(|out| write_set_chunk_size(out, 65_536)), RtmpMessage::SetChunkSize { size: 65_536 });
    assert_eq!(built(|out| write_abort(out, 7)), RtmpMessage::Abort { stream_id: 7 });
    assert_eq!(
        built(|out| write_acknowledgement(out, (1 << 32) + 5)),
        RtmpMessage::Acknowledgement { sequence_number: 5 }
    );
    assert_eq!(built(|out| write_window_ack_size(out, 9)), RtmpMessage::WindowAcknowledgement { size: 9 });
    let RtmpMessage::SetPeerBandwidth { size, limit_type } =
        built(|out| write_peer_bandwidth(out, 5_000_000, LimitType::Dynamic))
    else {
        panic!("another message")
    };
    assert_eq!((size, format!("{limit_type:?}")), (5_000_000, "Dynamic".into()));
    let event = |event: UserControl| match built(|out| event.write(out)) {
        RtmpMessage::UserControl { event_type, stream_id, buffer_length, timestamp } => {
            (format!("{event_type:?}"), stream_id, buffer_length, timestamp.map(|t| t.value))
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(event(UserControl::StreamBegin(1)), ("StreamBegin".into(), Some(1), None, None));
    assert_eq!(event(UserControl::StreamEof(1)), ("StreamEof".into(), Some(1), None, None));
    assert_eq!(event(UserControl::StreamDry(1)), ("StreamDry".into(), Some(1), None, None));
    assert_eq!(event(UserControl::StreamIsRecorded(1)), ("StreamIsRecorded".into(), Some(1), None, None));
    assert_eq!(event(UserControl::PingRequest(77)), ("PingRequest".into(), None, None, Some(77)));
    assert_eq!(event(UserControl::PingResponse(77)), ("PingResponse".into(), None, None, Some(77)));
    let buffer = UserControl::SetBufferLength { stream_id: 1, buffer_ms: 3000 };
    assert_eq!(event(buffer), ("SetBufferLength".into(), Some(1), Some(3000), None));
}

#[test]
fn user_control_reads_what_it_wrote() {
    for event in [
        UserControl::StreamBegin(1),
        UserControl::StreamEof(2),
        UserControl::StreamDry(3),
        UserControl::SetBufferLength { stream_id: 4, buffer_ms: 100 },
        UserControl::StreamIsRecorded(5),
        UserControl::PingRequest(6),
        UserControl::PingResponse(u32::MAX),
        UserControl::Unknown(31),
    ] {
        let (mut bytes, mut messages) = (Vec::new(), Vec::new());
        event.write(&mut bytes);
        Reader::new(&Settings::default()).handle(Instant::now(), &bytes, &mut messages).unwrap();
        let [message] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!((message.type_id, message.chunk_stream, message.stream_id), (type_id::USER_CONTROL, 2, 0));
        assert_eq!(UserControl::parse(&message.payload), Ok(Parsed { value: event, longer: false }));
    }
}

#[test]
fn rt_25_short_control_messages_close_and_long_ones_are_cut() {
    let short = ProtocolError::Illegal("control_length");
    for length in 0..4 {
        assert_eq!(parse_u32(&[0; 4][..length]), Err(short));
        assert_eq!(parse_window_ack_size(&[0; 4][..length], &Settings::default()), Err(short));
    }
    assert_eq!(parse_peer_bandwidth(&[0; 4]), Err(short));
    assert_eq!(parse_u32(&[0, 0, 0, 7]), Ok(Parsed { value: 7, longer: false }));
    assert_eq!(parse_u32(&[0, 0, 0, 7, 9]), Ok(Parsed { value: 7, longer: true }));
    let ping = UserControl::parse(&[0, 6, 0, 0, 0, 7, 9]);
    assert_eq!(ping, Ok(Parsed { value: UserControl::PingRequest(7), longer: true }));
    assert_eq!(UserControl::parse(&[0, 6, 0, 0, 0]), Err(ProtocolError::Illegal("user_control")));
    assert_eq!(UserControl::parse(&[0, 3, 0, 0, 0, 1, 0, 0, 0]), Err(ProtocolError::Illegal("user_control")));
}

#[test]
fn rt_28_a_window_is_at_least_the_floor() {
    let settings = Settings::default();
    let window = |value: u32| parse_window_ack_size(&value.to_be_bytes(), &settings).unwrap().value;
    assert_eq!(window(0), 5_000_000);
    assert_eq!(window(1), 64 << 10);
    assert_eq!(window(2_500_000), 2_500_000);
    assert_eq!(window(u32::MAX), u32::MAX);
}

#[test]
fn rt_29_an_unknown_limit_type_is_none() {
    let read = |limit: u8| parse_peer_bandwidth(&[0, 0, 0, 9, limit]).unwrap().value;
    assert_eq!(read(0), Some((9, LimitType::Hard)));
    assert_eq!(read(1), Some((9, LimitType::Soft)));
    assert_eq!(read(2), Some((9, LimitType::Dynamic)));
    assert_eq!(read(3), None);
    assert_eq!(read(255), None);
}

#[test]
fn rt_30_user_control_ignores_the_unknown_and_clamps_the_buffer() {
    for body in [&[][..], &[0]] {
        assert_eq!(UserControl::parse(body), Err(ProtocolError::Illegal("user_control")));
    }
    for event in [5, 8, 31, 32, u16::MAX] {
        let parsed = UserControl::parse(&event.to_be_bytes()).unwrap();
        assert_eq!(parsed, Parsed { value: UserControl::Unknown(event), longer: false });
    }
    let parsed = UserControl::parse(&[0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]).unwrap();
    assert_eq!(parsed.value, UserControl::SetBufferLength { stream_id: 1, buffer_ms: 10_000 });
}

fn item(kind: u8, time: u32, body: &[u8]) -> Vec<u8> {
    let [t0, t1, t2, t3] = time.to_be_bytes();
    let length = u8::try_from(body.len()).unwrap();
    [&[kind, 0, 0, length, t1, t2, t3, t0, 0, 0, 0], body, &[0xde, 0xad, 0xbe, 0xef]].concat()
}

fn split(payload: Vec<u8>, budget: u32) -> (Split, Vec<RawMessage>) {
    let aggregate = RawMessage {
        type_id: type_id::AGGREGATE,
        stream_id: 1,
        timestamp_ms: 10_000,
        chunk_stream: 6,
        payload: Bytes::from(payload),
    };
    let mut out = Vec::new();
    let split = split_aggregate(&aggregate, budget, |message| out.push(message));
    assert_eq!(split.delivered as usize, out.len());
    (split, out)
}

#[test]
fn rt_32_an_aggregate_becomes_its_messages() {
    // Back pointers are wrong in all of them.
    let payload = [item(8, 0x0100_0005, b"a"), item(9, 0x0100_0010, b"vv"), item(18, 0x0100_0004, b"d")].concat();
    let (outcome, messages) = split(payload, 100);
    assert_eq!(outcome, Split { delivered: 3, glitch: false });
    let seen: Vec<_> = messages.iter().map(|m| (m.type_id, m.timestamp_ms, &m.payload[..])).collect();
    assert_eq!(seen, [(8, 10_000, &b"a"[..]), (9, 10_011, b"vv"), (18, 9_999, b"d")]);
    assert!(messages.iter().all(|m| m.stream_id == 1 && m.chunk_stream == 6));
}

#[test]
fn rt_32_a_length_past_the_end_drops_the_rest() {
    let mut bad = item(9, 1, b"vv");
    bad[3] = 200;
    let (outcome, messages) = split([item(8, 0, b"a"), bad, item(8, 2, b"b")].concat(), 100);
    assert_eq!(outcome, Split { delivered: 1, glitch: true });
    assert_eq!(&messages[0].payload[..], b"a");
    assert_eq!(split(vec![8, 0, 0], 100).0, Split { delivered: 0, glitch: true });
}

#[test]
fn rt_32_a_missing_last_back_pointer_is_no_loss() {
    let mut payload = item(8, 0, b"a");
    payload.truncate(payload.len() - 4);
    assert_eq!(split(payload, 100).0, Split { delivered: 1, glitch: false });
}

#[test]
fn rt_32_nested_aggregates_and_control_are_left_out() {
    let inner = item(8, 0, b"a");
    let (outcome, messages) = split([item(22, 0, &inner), item(1, 0, &[0, 0, 0, 1]), item(8, 0, b"b")].concat(), 100);
    assert_eq!(outcome, Split { delivered: 1, glitch: true });
    assert_eq!(&messages[0].payload[..], b"b");
}

#[test]
fn rt_32_empty_items_are_ignored_within_a_budget() {
    let (outcome, messages) = split([item(9, 0, b"").repeat(3), item(8, 0, b"a")].concat(), 4);
    assert_eq!(outcome, Split { delivered: 1, glitch: false });
    assert_eq!(&messages[0].payload[..], b"a");
    assert_eq!(split(item(9, 0, b"").repeat(100_000), 512).0, Split { delivered: 0, glitch: true });
}
