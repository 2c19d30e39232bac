//! Duplicate publishers, take-over, and coming back.

use std::time::Duration;

use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server};

fn second_publisher(policy: &str) -> (Server, Raw, Raw) {
    let server = Server::start(&format!("[shard]\ncount = 2\n[admission]\nduplicate_publish = \"{policy}\""));
    let mut first = Raw::publish(server.rtmp, "live", "busy?key=a").start();
    first.send_picture(0);
    let mut second = Raw::publish(server.rtmp, "live", "busy?key=b");
    assert!(second.pump_until(PATIENCE, |it| it.started || it.refused.is_some()));
    (server, first, second)
}

#[test]
fn fa_09_rt_60_reject_refuses_the_newcomer() {
    let (server, mut first, second) = second_publisher("reject");
    assert_eq!(second.refused.unwrap().0, "NetStream.Publish.BadName");
    first.send_picture(1);
    server.wait_for_sessions("kind=publish", 1);
}

#[test]
fn fa_09_another_identity_is_refused() {
    let (_server, _first, second) = second_publisher("takeover_same_identity");
    assert_eq!(second.refused.unwrap().0, "NetStream.Publish.BadName");
}

#[test]
fn fa_09_rt_60_takeover_replaces_the_first() {
    let (server, mut first, second) = second_publisher("takeover");
    assert!(second.started);
    first.drain();
    let running = server.wait_for_sessions("kind=publish", 1);
    assert!(running[0]["remote"].as_str().unwrap().ends_with(&second.local().port().to_string()));
}

#[test]
fn fa_07_the_same_identity_takes_over_and_viewers_continue() {
    let server = Server::start("[shard]\ncount = 2");
    let mut first = Raw::publish(server.rtmp, "live", "same?key=a").start();
    let id = server.wait_for_sessions("kind=publish", 1)[0]["id"].as_str().unwrap().to_owned();
    first.send_picture(0);
    let mut viewer = Raw::play(server.rtmp, "live", "same").start();
    assert!(viewer.pump_until(PATIENCE, |it| it.messages.iter().any(|m| m.type_id == 9)));
    let mut second = Raw::publish(server.rtmp, "live", "same?key=a").start();
    let ended = server.wait_for_end(&id);
    assert_eq!(ended["reason"], "replaced");
    let before = viewer.messages.len();
    let last = viewer.messages.iter().map(|m| m.timestamp_ms).max().unwrap();
    second.send_picture(0);
    second.send_picture(1);
    assert!(viewer.pump_until(PATIENCE, |it| it.messages.len() >= before + 4));
    assert!(!viewer.ended);
    assert!(
        viewer.messages[before..].iter().filter(|m| m.type_id != 18).all(|m| m.timestamp_ms >= last),
        "time went back: {:?} after {last}",
        viewer.messages[before..].iter().map(|m| m.timestamp_ms).collect::<Vec<_>>()
    );
}

#[test]
fn a_publisher_back_within_the_resume_window_keeps_its_viewers() {
    let server = Server::start("[stream]\nresume_window = \"5s\"");
    let mut publisher = Raw::publish(server.rtmp, "live", "resume").start();
    publisher.send_picture(0);
    let mut viewer = Raw::play(server.rtmp, "live", "resume").start();
    assert!(viewer.pump_until(PATIENCE, |it| it.messages.iter().any(|m| m.type_id == 9)));
    drop(publisher);
    server.wait_for_sessions("kind=publish", 0);
    assert_eq!(server.sessions("kind=play").len(), 1);
    let mut publisher = Raw::publish(server.rtmp, "live", "resume").start();
    let before = viewer.messages.len();
    publisher.send_picture(0);
    assert!(viewer.pump_until(PATIENCE, |it| it.messages.len() > before));
}

#[test]
fn the_resume_window_passes_and_viewers_are_told() {
    let server = Server::start("[stream]\nresume_window = \"500ms\"");
    let mut publisher = Raw::publish(server.rtmp, "live", "gone").start();
    publisher.send_picture(0);
    let mut viewer = Raw::play(server.rtmp, "live", "gone").start();
    assert!(viewer.pump_until(PATIENCE, |it| it.messages.iter().any(|m| m.type_id == 9)));
    drop(publisher);
    assert!(viewer.pump_until(PATIENCE, |it| it.ended), "{:?}", viewer.statuses);

    // Who comes afterwards waits for a publisher like anybody else.
    let mut next = Raw::play(server.rtmp, "live", "gone").start();
    next.pump_until(Duration::from_millis(500), |_| false);
    assert!(!next.ended && !next.closed, "{:?}", next.statuses);
    let mut publisher = Raw::publish(server.rtmp, "live", "gone").start();
    publisher.send_picture(0);
    assert!(next.pump_until(PATIENCE, |it| it.messages.iter().any(|m| m.type_id == 9)));
}

#[test]
fn md_06_a_stream_without_a_keyframe_is_not_waited_for_for_ever() {
    let server = Server::start("[sessions]\nfirst_keyframe = \"1s\"");
    let mut publisher = Raw::publish(server.rtmp, "live", "keyless").start();
    let mut viewer = Raw::play(server.rtmp, "live", "keyless").start();
    let id = server.wait_for_sessions("kind=play", 1)[0]["id"].as_str().unwrap().to_owned();
    for number in 0..200 {
        publisher.send(9, number * 40, &[0x27, 1, 0, 0, 0, 7, 7, 7]);
        if viewer.pump_until(Duration::from_millis(20), |it| it.closed) {
            break;
        }
    }
    assert!(viewer.closed);
    assert_eq!(server.wait_for_end(&id)["detail"], "no_keyframe");
}

#[test]
fn a_player_waits_for_its_publisher_and_not_for_ever() {
    let server = Server::start("[sessions]\nplay_wait = \"1s\"");
    let mut early = Raw::play(server.rtmp, "live", "late").start();
    let mut publisher = Raw::publish(server.rtmp, "live", "late").start();
    publisher.send_picture(0);
    assert!(early.pump_until(PATIENCE, |it| it.messages.iter().any(|m| m.type_id == 9)));

    let mut never = Raw::play(server.rtmp, "live", "never").start();
    let id = server.wait_for_sessions("stream=never", 1)[0]["id"].as_str().unwrap().to_owned();
    never.drain();
    assert_eq!(never.refused.unwrap().0, "NetStream.Play.StreamNotFound");
    let session = server.wait_for_end(&id);
    assert_eq!((&session["reason"], &session["detail"]), (&"stream_ended".into(), &"never_published".into()));
    // The one that got media is not meant.
    early.pump_until(Duration::from_millis(500), |_| false);
    assert!(!early.closed);
}
