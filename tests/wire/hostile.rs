//! What strangers send over a socket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use sluicegate::stdx::ids::SplitMix;

use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually};

/// Sends bytes and reads to the end.
fn exchange(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(server.rtmp).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = socket.write_all(bytes);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    answer
}

fn attempts(server: &Server, reason: &str) -> u64 {
    server.metrics().sum("sluicegate_attempts_total", &format!("reason=\"{reason}\""))
}

fn defects(server: &Server) -> u64 {
    server.metrics().sum("sluicegate_internal_errors_total", "")
}

#[test]
fn rt_01_rt_02_rt_03_wrong_protocols_are_closed_at_the_first_byte() {
    let server = Server::start("");
    assert!(exchange(&server, &[6]).is_empty());
    assert!(exchange(&server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").is_empty());
    let answer = exchange(&server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 400") && answer.len() <= 128, "{}", String::from_utf8_lossy(&answer));
    eventually("the attempts are counted", || attempts(&server, "protocol_error") == 3);
}

#[test]
fn rt_05_a_silent_or_slow_handshake_is_closed_by_its_deadline() {
    let server = Server::start("[rtmp]\nhandshake_timeout = \"500ms\"");
    assert!(exchange(&server, &[3]).is_empty());
    let mut slow = TcpStream::connect(server.rtmp).unwrap();
    slow.set_nodelay(true).unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut closed = false;
    for _ in 0..500 {
        closed = slow.write_all(&[3]).is_err() || matches!(slow.read(&mut [0; 1]), Ok(0));
        if closed {
            break;
        }
    }
    assert!(closed, "a byte now and then kept the handshake open");
    eventually("both are counted", || attempts(&server, "handshake_timeout") == 2);
}

#[test]
fn rt_39_a_session_in_single_bytes_is_the_same_session() {
    let server = Server::start("");
    let mut publisher = Raw::publish(server.rtmp, "live", "bytes").start();
    let mut player = Raw::play(server.rtmp, "live", "bytes").start();
    // A picture, cut by hand into one-byte segments: header of chunk stream 6, type 0, then the body in chunks of the
    // size that our client announced.
    let body = [0x17, 1, 0, 0, 0, 1, 2, 3];
    let mut bytes = vec![6, 0, 0, 40, 0, 0, body.len() as u8, 9, 1, 0, 0, 0];
    bytes.extend_from_slice(&body);
    for byte in bytes {
        publisher.send_raw(&[byte]);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(
        player.pump_until(PATIENCE, |it| it.messages.iter().any(|m| m.payload[..] == body)),
        "{:?}",
        player.messages
    );
}

#[test]
fn i1_garbage_connections_change_nothing_for_a_live_player() {
    let server = Server::start("[shard]\ncount = 2");
    let mut publisher = Raw::publish(server.rtmp, "live", "calm").start();
    let mut player = Raw::play(server.rtmp, "live", "calm").start();
    let addr = server.rtmp;
    let garbage = std::thread::spawn(move || {
        let seed = 0x5eed_u64;
        let mut random = SplitMix::new(seed);
        for number in 0..2_000_u32 {
            let Ok(mut socket) = TcpStream::connect(addr) else { continue };
            let mut bytes: Vec<u8> = (0..random.below(4_000)).map(|_| random.next_u64() as u8).collect();
            // Half of them look like RTMP for a while.
            if number % 2 == 0 {
                bytes.insert(0, 3);
            }
            let _ = socket.write_all(&bytes);
        }
    });
    let mut number = 0;
    while !garbage.is_finished() || number < 100 {
        publisher.send_picture(number);
        number += 1;
        player.pump_until(Duration::from_millis(5), |_| false);
    }
    garbage.join().unwrap();
    let pictures =
        |raw: &Raw| raw.messages.iter().filter(|m| m.type_id == 9 && m.payload.len() == 1_000).count() as u64;
    assert!(player.pump_until(PATIENCE, |it| pictures(it) >= number - 1), "{} of {number}", pictures(&player));
    let numbers: Vec<u64> = player
        .messages
        .iter()
        .filter(|m| m.type_id == 9 && m.payload.len() == 1_000)
        .map(|m| u64::from_be_bytes(m.payload[5..13].try_into().unwrap()))
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "pictures are missing or out of order");
    assert_eq!(defects(&server), 0);
    assert_eq!(server.sessions("").len(), 2);
}

#[test]
fn fa_03_fa_08_a_stalled_viewer_is_closed_and_its_neighbour_is_not_disturbed() {
    let server = Server::start("[sessions]\nno_progress = \"1s\"\n[stream]\nqueue_bytes = \"256KiB\"");
    let mut publisher = Raw::publish(server.rtmp, "live", "slow").start();
    let mut healthy = Raw::play(server.rtmp, "live", "slow").start();
    let stalled = Raw::play(server.rtmp, "live", "slow").start();
    let port = stalled.local().port();
    let sessions = server.wait_for_sessions("kind=play", 2);
    let id = sessions
        .iter()
        .find(|it| it["remote"].as_str().unwrap().ends_with(&format!(":{port}")))
        .and_then(|it| it["id"].as_str())
        .unwrap()
        .to_owned();
    let mut number = 0;
    let mut body = vec![0x27, 1, 0, 0, 0];
    body.resize(50_000, 7);
    loop {
        publisher.send_picture(number);
        publisher.send(9, number * 40, &body);
        number += 1;
        healthy.pump_until(Duration::from_millis(10), |_| false);
        let (_, session) = server.get(&format!("/v1/sessions/{id}"));
        if session["state"] == "finished" {
            assert_eq!(session["reason"], "slow_consumer", "{session:#}");
            assert!(
                session["dropped_frames"].as_u64().unwrap() > 0 || session["detail"] == "no_progress",
                "{session:#}"
            );
            break;
        }
        assert!(number < 5_000, "the stalled viewer stays: {session:#}");
    }
    let before = healthy.messages.len();
    publisher.send_picture(number);
    assert!(healthy.pump_until(PATIENCE, |it| it.messages.len() > before));
}

#[test]
fn rt_52_a_refused_connection_is_closed_even_if_its_peer_stays() {
    let server = Server::start("[shard]\ncount = 1");
    let mut bad = Raw::play(server.rtmp, "a/../b", "x");
    bad.drain();
    assert_eq!(bad.refused.unwrap().0, "NetConnection.Connect.InvalidApp");
    // A second connect ends a session that is there already.
    let mut publisher = Raw::publish(server.rtmp, "live", "twice").start();
    publisher.send_picture(0);
    let id = server.wait_for_sessions("kind=publish", 1)[0]["id"].as_str().unwrap().to_owned();
    let mut body = b"\x02\x00\x07connect\x00\x3f\xf0\x00\x00\x00\x00\x00\x00\x03\x00\x00\x09".to_vec();
    let mut message = vec![3, 0, 0, 0, 0, 0, body.len() as u8, 20, 0, 0, 0, 0];
    message.append(&mut body);
    publisher.send_raw(&message);
    publisher.drain();
    assert_eq!(server.wait_for_end(&id)["reason"], "protocol_error");
}

#[cfg(feature = "faults")]
#[test]
fn fa_26_a_panic_in_one_connection_closes_that_session_alone() {
    let server = Server::start("[shard]\ncount = 1");
    let mut publisher = Raw::publish(server.rtmp, "live", "calm").start();
    publisher.send_picture(0);
    let mut player = Raw::play(server.rtmp, "live", "calm").start();
    let mut victim = Raw::play(server.rtmp, "live", "fault-panic").start();
    let id = server.wait_for_sessions("stream=fault-panic", 1)[0]["id"].as_str().unwrap().to_owned();
    let mut bad = Raw::publish(server.rtmp, "live", "fault-panic").start();
    let bad_id = server.wait_for_sessions("stream=fault-panic&kind=publish", 1)[0]["id"].as_str().unwrap().to_owned();
    bad.send_picture(0);
    bad.drain();
    let session = server.wait_for_end(&bad_id);
    assert_eq!(session["reason"], "internal_error");
    publisher.send_picture(1);
    let before = player.messages.len();
    assert!(player.pump_until(PATIENCE, |it| it.messages.len() > before));
    victim.pump_until(Duration::from_millis(200), |_| false);
    assert!(!victim.closed, "the neighbour {id} fell too");
    eventually("the defect is counted", || defects(&server) == 1);
    // The log tells the panic in a line of its own, and nothing else does.
    let log = server.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("ev=panic")).collect();
    assert_eq!(told.len(), 1, "{log}");
    for part in ["ERROR asked for by its name", "thread=shard-", "at=src/adapter/rtmp.rs:"] {
        assert!(told[0].contains(part), "{part} is not in {}", told[0]);
    }
    assert!(!log.contains("panicked at"), "{log}");
}

#[cfg(feature = "faults")]
#[test]
fn fa_26_a_second_panic_within_a_second_disables_publishing_and_not_playing() {
    let server = Server::start("[shard]\ncount = 2\n[admission]\nduplicate_publish = \"takeover\"");
    let mut calm = Raw::publish(server.rtmp, "live", "calm").start();
    calm.send_picture(0);
    // Streams whose names end alike, so that nobody takes anybody's place.
    let mut bad: Vec<Raw> =
        (0..2).map(|n| Raw::publish(server.rtmp, &format!("live{n}"), "fault-panic").start()).collect();
    for one in &mut bad {
        one.send_picture(0);
    }
    for one in &mut bad {
        one.drain();
    }
    eventually("both are counted", || defects(&server) == 2);
    let mut next = Raw::publish(server.rtmp, "live", "innocent");
    assert!(next.pump_until(PATIENCE, |it| it.started || it.refused.is_some()));
    assert!(next.refused.expect("it was let in").1.contains("failed"));
    // Who publishes goes on, and whoever wants may watch.
    let mut player = Raw::play(server.rtmp, "live", "calm").start();
    calm.send_picture(1);
    assert!(player.pump_until(PATIENCE, |it| it.messages.iter().any(|m| m.type_id == 9)));
    assert_eq!(server.metric("sluicegate_session_types_disabled", "") as u64, 1);
    let log = server.log();
    assert_eq!(log.matches("ev=type_disabled").count(), 1, "{log}");
    // What each of the two had said is told with it.
    let traces: Vec<&str> = log.lines().filter(|line| line.contains("ev=session_trace")).collect();
    assert_eq!(traces.len(), 2, "{log}");
    for part in ["reason=internal_error", "connect_accepted", "publish_accepted", "video"] {
        assert!(traces[0].contains(part), "{part} is not in {}", traces[0]);
    }
}

#[test]
fn a_session_that_breaks_the_protocol_leaves_its_last_events_in_the_log_and_a_stranger_does_not() {
    let server = Server::start("");
    assert!(exchange(&server, &[6]).is_empty());
    let mut publisher = Raw::publish(server.rtmp, "live", "told").start();
    let id = server.wait_for_sessions("kind=publish", 1)[0]["id"].as_str().unwrap().to_owned();
    for number in 0..100 {
        publisher.send_picture(number);
    }
    // A chunk size of 0 on chunk stream 2.
    publisher.send_raw(&[2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    publisher.drain();
    assert_eq!(server.wait_for_end(&id)["reason"], "protocol_error");
    eventually("it is told", || server.log().contains("ev=session_trace"));
    let log = server.log();
    let traces: Vec<&str> = log.lines().filter(|line| line.contains("ev=session_trace")).collect();
    assert_eq!(traces.len(), 1, "{log}");
    for part in [&id, "reason=protocol_error", "detail=chunk_size", "after ", "video 1000B @3960", "audio"] {
        assert!(traces[0].contains(part), "{part} is not in {}", traces[0]);
    }
}
