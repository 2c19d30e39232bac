//! From the first byte to `connect`.

use sluicegate::proto::rtmp::message::type_id;
use sluicegate::proto::rtmp::server::ServerEvent;
use sluicegate::proto::rtmp::{ProtocolError, Settings};

use crate::support::{PACKET, Peer, Reply, command_body, connect_object, hello};

#[test]
fn rt_07_the_content_of_c2_is_ignored() {
    let mut peer = Peer::new(Settings::default());
    peer.send(&hello()).unwrap();
    peer.take_output();
    peer.send(&[0xa5; PACKET]).unwrap();
    peer.connect(connect_object("live")).unwrap();
    assert_eq!(peer.connect_info().app, "live");
}

#[test]
fn rt_08_one_segment_or_one_byte_each_come_to_the_same() {
    let mut whole = Peer::new(Settings::default());
    let mut bytes = hello();
    bytes.extend_from_slice(&[7; PACKET]);
    let body = command_body("connect", 1.0, &[connect_object("live?token=x")]);
    bytes.extend(whole.encode(type_id::COMMAND_AMF0, 0, 0, &body));
    whole.send(&bytes).unwrap();

    let mut split = Peer::new(Settings::default());
    for byte in &bytes {
        split.send(std::slice::from_ref(byte)).unwrap();
    }
    let events = whole.events();
    assert!(matches!(events[..], [ServerEvent::Connect(_)]), "{events:?}");
    assert_eq!(events, split.events());
    assert_eq!(whole.take_output().len(), split.take_output().len());
}

#[test]
fn rt_08_commands_sent_before_the_answer_to_connect_are_obeyed_in_order_after_it() {
    let mut peer = Peer::handshaken();
    let mut bytes = peer.encode(type_id::COMMAND_AMF0, 0, 0, &command_body("connect", 1.0, &[connect_object("live")]));
    bytes.extend(peer.encode(type_id::COMMAND_AMF0, 0, 0, &command_body("createStream", 2.0, &[])));
    peer.send(&bytes).unwrap();
    assert_eq!(peer.events().len(), 1);
    assert!(peer.replies().is_empty(), "nothing is answered before the verdict");
    peer.command(0, "createStream", 3.0, &[]).unwrap();
    peer.server.accept_connect();
    let results: Vec<_> = peer
        .replies()
        .iter()
        .filter_map(|reply| match reply {
            Reply::Command { name, transaction, .. } if name == "_result" => Some(*transaction),
            _ => None,
        })
        .collect();
    assert_eq!(results, [1.0, 2.0, 3.0]);
}

#[test]
fn rt_09_a_handshake_cut_short_leaves_nothing_behind() {
    let mut peer = Peer::new(Settings::default());
    peer.send(&hello()).unwrap();
    peer.send(&[0; PACKET - 1]).unwrap();
    peer.take_output();
    assert!(peer.events().is_empty());
    assert_eq!(peer.server.held_bytes(), 0);
}

#[test]
fn rt_03_http_is_answered_once_and_refused() {
    let mut peer = Peer::new(Settings::default());
    assert_eq!(peer.send(b"GET / HTTP/1.1\r\n\r\n"), Err(ProtocolError::Illegal("http_on_rtmp")));
    let answer = peer.take_output();
    assert!(answer.starts_with(b"HTTP/1.1 400 ") && answer.len() <= 128);
    // The engine has failed for good and says why as often as it is asked.
    assert_eq!(peer.send(b"x"), Err(ProtocolError::Illegal("http_on_rtmp")));
    assert!(peer.take_output().is_empty());
}
