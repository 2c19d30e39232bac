//! Rules that media must keep before it reaches a stream.

use std::time::Duration;

use sluicegate::proto::rtmp::ProtocolError;
use sluicegate::proto::rtmp::message::type_id;

use crate::support::{AVC_CONFIG, AVC_KEYFRAME, Peer, metadata, set_data_frame};

fn config(n: u32) -> Vec<u8> {
    [AVC_CONFIG, &n.to_be_bytes()].concat()
}

#[test]
fn md_01_tags_too_short_are_dropped_and_unknown_codecs_relayed() {
    let (mut peer, _) = Peer::publishing();
    for length in 1..5 {
        peer.message(type_id::VIDEO, 1, 0, &AVC_KEYFRAME[..length]).unwrap();
    }
    peer.message(type_id::AUDIO, 1, 0, &[0xaf]).unwrap();
    peer.message(type_id::AUDIO, 1, 0, &[0xaf, 1]).unwrap();
    assert!(peer.events().is_empty());
    // Codec id 15, and a FourCC nobody knows.
    let unknown: [&[u8]; 2] = [&[0x1f, 1, 0, 0, 0, 1], &[0x91, b'z', b'z', b'9', b'9', 1, 2, 3, 4]];
    for body in unknown {
        peer.message(type_id::VIDEO, 1, 0, body).unwrap();
    }
    peer.message(type_id::AUDIO, 1, 0, &[0x80, 1, 2]).unwrap();
    assert_eq!(peer.frames().len(), 3);
}

#[test]
fn md_04_ten_changes_of_configuration_in_ten_seconds_and_no_more() {
    let (mut peer, _) = Peer::publishing();
    for _ in 0..1000 {
        peer.message(type_id::VIDEO, 1, 0, &config(0)).unwrap();
    }
    for n in 1..=10 {
        peer.message(type_id::VIDEO, 1, 0, &config(n)).unwrap();
    }
    assert_eq!(peer.message(type_id::VIDEO, 1, 0, &config(11)), Err(ProtocolError::BadMedia("sequence_headers")));

    let (mut peer, _) = Peer::publishing();
    for n in 0..100 {
        peer.message(type_id::VIDEO, 1, 0, &config(n)).unwrap();
        peer.advance(Duration::from_millis(1001)).unwrap();
    }
}

#[test]
fn md_04_a_configuration_over_64_kib_is_dropped() {
    let (mut peer, _) = Peer::publishing();
    let mut body = AVC_CONFIG.to_vec();
    body.resize((64 << 10) + 1, 0);
    peer.message(type_id::VIDEO, 1, 0, &body).unwrap();
    assert!(peer.events().is_empty());
}

#[test]
fn md_05_metadata_ten_times_a_second_and_the_last_one_in_the_end() {
    let (mut peer, _) = Peer::publishing();
    for n in 0..100 {
        peer.message(type_id::DATA_AMF0, 1, 0, &set_data_frame(f64::from(n))).unwrap();
    }
    assert_eq!(peer.frames().len(), 10);
    peer.advance(Duration::from_secs(1)).unwrap();
    peer.message(type_id::VIDEO, 1, 9, AVC_KEYFRAME).unwrap();
    let frames = peer.frames();
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0].payload, metadata(99.0));
}

#[test]
fn md_05_metadata_over_64_kib_is_relayed_but_not_kept() {
    let (mut peer, _) = Peer::publishing();
    let mut body = set_data_frame(1.0);
    body.resize(70_000, 0);
    peer.message(type_id::DATA_AMF0, 1, 0, &body).unwrap();
    let frames = peer.frames();
    assert_eq!(frames.len(), 1);
    assert!(!frames[0].flags.metadata);
}

#[test]
fn md_09_a_hundred_bad_frames_in_a_row_end_the_publish() {
    let (mut peer, _) = Peer::publishing();
    for _ in 0..5 {
        for _ in 0..99 {
            peer.message(type_id::VIDEO, 1, 0, &[0x17]).unwrap();
        }
        peer.message(type_id::VIDEO, 1, 0, AVC_KEYFRAME).unwrap();
    }
    assert_eq!(peer.frames().len(), 5);
    let outcome = (0..100).try_for_each(|_| peer.message(type_id::VIDEO, 1, 0, &[0x17]));
    assert_eq!(outcome, Err(ProtocolError::BadMedia("frames")));
}
