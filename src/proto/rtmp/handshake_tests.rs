use rml_rtmp::handshake::{Handshake as Theirs, HandshakeProcessResult, PeerType};
use sha2::{Digest, Sha256};

use super::*;

const FP_KEY: &[u8] = b"Genuine Adobe Flash Player 001";
const FMS_KEY: &[u8] = b"Genuine Adobe Flash Media Server 001";

/// HMAC-SHA256 (RFC 2104), written out so that the peer under test is not its own witness.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let mut inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36));
    for part in parts {
        inner.update(part);
    }
    Sha256::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner.finalize()).finalize().into()
}

/// The digest in a first packet where `layout` says, if it is that of `key`.
fn digest_in(packet: &[u8], layout: usize, key: &[u8]) -> Option<[u8; 32]> {
    let sum: usize = packet[layout..layout + 4].iter().map(|b| usize::from(*b)).sum();
    let at = sum % 728 + layout + 4;
    let found = <[u8; 32]>::try_from(&packet[at..at + 32]).unwrap();
    (hmac(key, &[&packet[..at], &packet[at + 32..]]) == found).then_some(found)
}

/// A C1 whose digest lies where `scheme` puts it, and the digest.
fn digest_c1(scheme: u8) -> (Vec<u8>, [u8; 32]) {
    let mut c1: Vec<u8> = (0..PACKET).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
    c1[4..8].copy_from_slice(&[128, 0, 7, 2]);
    let base = if scheme == 0 { 8 } else { 772 };
    let sum: usize = c1[base..base + 4].iter().map(|b| usize::from(*b)).sum();
    let at = sum % 728 + base + 4;
    let digest = hmac(FP_KEY, &[&c1[..at], &c1[at + 32..]]);
    c1[at..at + 32].copy_from_slice(&digest);
    (c1, digest)
}

fn simple_c1() -> Vec<u8> {
    let mut c1 = vec![0_u8; PACKET];
    for (i, byte) in c1.iter_mut().enumerate().skip(8) {
        *byte = u8::try_from(i % 256).unwrap();
    }
    c1
}

/// Feeds `input` in segments of `step` bytes; the answer, and what the handshake left.
fn run(input: &[u8], step: usize) -> (Vec<u8>, usize, bool) {
    let mut handshake = Handshake::server();
    let (mut out, mut taken, mut done) = (Vec::new(), 0, false);
    for segment in input.chunks(step) {
        if done {
            break;
        }
        let progress = handshake.handle(segment, &mut out).unwrap();
        taken += progress.consumed;
        done = progress.done;
        assert!(done || progress.consumed == segment.len());
        assert!(handshake.held_bytes() <= PACKET);
    }
    (out, taken, done)
}

fn refused(first: u8) -> (ProtocolError, Vec<u8>) {
    let mut out = Vec::new();
    let error = Handshake::server().handle(&[first], &mut out).unwrap_err();
    (error, out)
}

#[test]
fn rt_01_another_version_is_refused_at_its_byte() {
    for first in (0..=255).filter(|b| ![3, 0x16].contains(b) && !b"GPHDOCT".contains(b)) {
        assert_eq!(refused(first), (ProtocolError::Illegal("version"), vec![]), "{first}");
    }
}

#[test]
fn rt_02_tls_on_the_plain_port_is_named() {
    assert_eq!(refused(0x16), (ProtocolError::Illegal("tls_on_plain"), vec![]));
}

#[test]
fn rt_03_http_gets_one_short_answer() {
    for method in ["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PRI"] {
        let (error, out) = refused(method.as_bytes()[0]);
        assert_eq!(error, ProtocolError::Illegal("http_on_rtmp"));
        assert!(out.len() <= 128);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 "));
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}

#[test]
fn rt_06_both_digest_schemes_are_answered_with_a_digest() {
    for scheme in [0, 1] {
        let (c1, digest) = digest_c1(scheme);
        let (out, ..) = run(&[&[3][..], &c1].concat(), usize::MAX);
        assert_eq!(out.len(), 1 + 2 * PACKET);
        assert_eq!(out[0], 3);
        // Signed with our own key, and of a version that says so: ffmpeg looks for a digest from 3 on.
        assert!(out[5] >= 3);
        assert!(digest_in(&out[1..=PACKET], 772, FMS_KEY).is_some(), "scheme {scheme}");
        let s2 = &out[1 + PACKET..];
        let crud = [
            0xf0, 0xee, 0xc2, 0x4a, 0x80, 0x68, 0xbe, 0xe8, 0x2e, 0x00, 0xd0, 0xd1, 0x02, 0x9e, 0x7e, 0x57, 0x6e, 0xec,
            0x5d, 0x2d, 0x29, 0x80, 0x6f, 0xab, 0x93, 0xb8, 0xe6, 0x36, 0xcf, 0xeb, 0x31, 0xae,
        ];
        // The key is longer than a block, so it is hashed first (RFC 2104 §2).
        let key: [u8; 32] = Sha256::digest([FMS_KEY, &crud].concat()).into();
        let key = if FMS_KEY.len() + crud.len() > 64 { key.to_vec() } else { [FMS_KEY, &crud].concat() };
        let signed = hmac(&hmac(&key, &[&digest]), &[&s2[..PACKET - 32]]);
        assert_eq!(s2[PACKET - 32..], signed, "scheme {scheme}");
    }
}

#[test]
fn rt_06_no_digest_or_a_wrong_one_is_the_simple_handshake() {
    let (mut wrong, _) = digest_c1(0);
    wrong[1000] ^= 1;
    for c1 in [simple_c1(), wrong, vec![0; PACKET], vec![0xff; PACKET]] {
        let (out, ..) = run(&[&[3][..], &c1].concat(), usize::MAX);
        // The simple form echoes C1 (RTMP 1.0 §5.2.4) and has zeros where the digest forms have a version (§5.2.3).
        assert_eq!(out[1 + PACKET..], c1);
        assert_eq!(out[1..9], [0; 8]);
    }
}

#[test]
fn rt_07_what_c2_says_is_ignored() {
    for c2 in [vec![0; PACKET], vec![0xff; PACKET]] {
        let (_, taken, done) = run(&[&[3][..], &simple_c1(), &c2].concat(), usize::MAX);
        assert!(done);
        assert_eq!(taken, 1 + 2 * PACKET);
    }
}

#[test]
fn rt_08_any_segmentation_gives_the_same_handshake() {
    let after = b"\x03\x00\x00\x00chunks";
    let input = [&[3][..], &simple_c1(), &[9; PACKET], after].concat();
    for step in [1, 2, 3, 7, 1535, 1536, 1537, 1538, 3072, 3073, 3074, input.len()] {
        let (out, taken, done) = run(&input, step);
        assert!(done);
        assert_eq!(taken, input.len() - after.len(), "step {step}");
        // S1 is random; everything else is determined.
        assert_eq!(out.len(), 1 + 2 * PACKET);
        assert_eq!(out[1 + PACKET..], simple_c1());
    }
}

#[test]
fn rt_05_nothing_is_answered_before_c1_is_whole() {
    let (mut handshake, mut out) = (Handshake::server(), Vec::new());
    for byte in [&[3][..], &simple_c1()[1..]].concat() {
        assert_eq!(handshake.handle(&[byte], &mut out), Ok(Progress { consumed: 1, done: false }));
        assert_eq!(out, b"");
        assert!(handshake.held_bytes() <= PACKET);
    }
    assert_eq!(handshake.handle(&[0], &mut out), Ok(Progress { consumed: 1, done: false }));
    assert_eq!(out.len(), 1 + 2 * PACKET);
    assert_eq!(handshake.held_bytes(), 0);
}

#[test]
fn rt_09_a_short_c2_is_not_done() {
    let input = [&[3][..], &simple_c1(), &[9; PACKET - 1]].concat();
    let (_, taken, done) = run(&input, 100);
    assert!(!done);
    assert_eq!(taken, input.len());
}

#[test]
fn client_and_server_shake_hands() {
    for step in [1, 1000, usize::MAX] {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut client = Handshake::client(&mut to_server);
        let mut server = Handshake::server();
        for segment in to_server.clone().chunks(step) {
            server.handle(segment, &mut to_client).unwrap();
        }
        to_server.clear();
        let mut client_done = false;
        for segment in to_client.clone().chunks(step) {
            client_done = client.handle(segment, &mut to_server).unwrap().done;
        }
        assert!(client_done);
        assert_eq!(to_server.len(), PACKET);
        let progress = server.handle(&to_server, &mut to_client).unwrap();
        assert_eq!(progress, Progress { consumed: PACKET, done: true });
    }
}

#[test]
fn rt_06_a_digest_at_the_end_of_its_range_is_found() {
    // The place is the sum of four bytes modulo 728: nothing, the last place, and one that goes round.
    for (four, layout) in [([0; 4], 8), ([255, 255, 217, 0], 8), ([255; 4], 8), ([255, 255, 217, 0], 772)] {
        let mut c1 = simple_c1();
        c1[4..8].copy_from_slice(&[9, 0, 124, 2]);
        c1[layout..layout + 4].copy_from_slice(&four);
        let sum: usize = four.iter().map(|b| usize::from(*b)).sum();
        let at = sum % 728 + layout + 4;
        let digest = hmac(FP_KEY, &[&c1[..at], &c1[at + 32..]]);
        c1[at..at + 32].copy_from_slice(&digest);
        let (out, ..) = run(&[&[3][..], &c1].concat(), usize::MAX);
        assert_ne!(out[1 + PACKET..], c1, "{four:?} at {layout}");
    }
}

#[test]
fn no_two_packets_are_alike() {
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        let (out, ..) = run(&[&[3][..], &simple_c1()].concat(), usize::MAX);
        let noise = out[9..=PACKET].to_vec();
        assert!(noise.windows(8).all(|part| part != [0; 8]), "a part was never filled");
        assert!(seen.insert(noise));
    }
}

#[test]
fn a_client_signs_for_a_server_that_signs_and_echoes_one_that_does_not() {
    let (mut c1, mut c2) = (Vec::new(), Vec::new());
    let mut client = Handshake::client(&mut c1);
    let digest = digest_in(&c1[1..], 8, FP_KEY);
    assert!(digest.is_some());
    let (answer, ..) = run(&c1, usize::MAX);
    assert!(client.handle(&answer, &mut c2).unwrap().done);
    assert_ne!(c2, answer[1..=PACKET]);

    let (mut c1, mut c2) = (Vec::new(), Vec::new());
    let mut client = Handshake::client(&mut c1);
    let s1 = simple_c1();
    assert!(client.handle(&[&[3][..], &s1, &c1[1..]].concat(), &mut c2).unwrap().done);
    assert_eq!(c2, s1);
}

#[test]
fn the_library_as_client_is_content_with_our_server() {
    // The digest's place is random: a hundred of them.
    for _ in 0..100 {
        let mut client = Theirs::new(PeerType::Client);
        let c1 = client.generate_outbound_p0_and_p1().unwrap();
        let (mut server, mut to_client) = (Handshake::server(), Vec::new());
        server.handle(&c1, &mut to_client).unwrap();
        assert_ne!(to_client[1 + PACKET..], c1[1..], "its digest was found");
        let HandshakeProcessResult::Completed { response_bytes, remaining_bytes } =
            client.process_bytes(&to_client).unwrap()
        else {
            panic!("it waits for more");
        };
        assert!(remaining_bytes.is_empty());
        assert_ne!(response_bytes, to_client[1..=PACKET], "it found ours");
        assert!(server.handle(&response_bytes, &mut to_client).unwrap().done);
    }
}

#[test]
fn the_library_as_server_is_content_with_our_client() {
    for _ in 0..100 {
        let (mut to_server, mut server) = (Vec::new(), Theirs::new(PeerType::Server));
        let mut client = Handshake::client(&mut to_server);
        let HandshakeProcessResult::InProgress { response_bytes } = server.process_bytes(&to_server).unwrap() else {
            panic!("it is through before C2");
        };
        assert_ne!(response_bytes[1 + PACKET..], to_server[1..], "it found our digest");
        to_server.clear();
        assert!(client.handle(&response_bytes, &mut to_server).unwrap().done);
        assert_ne!(to_server, response_bytes[1..=PACKET], "we found its digest");
        assert!(matches!(server.process_bytes(&to_server), Ok(HandshakeProcessResult::Completed { .. })));
    }
}
