//! Sessions are ended by id and by filter, and refused when they come straight back.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server};

#[test]
fn delete_ends_one_session_and_only_that() {
    let server = Server::start("");
    let mut publisher = Raw::publish(server.rtmp, "live", "kick").start();
    publisher.send_picture(0);
    let mut one = Raw::play(server.rtmp, "live", "kick").start();
    let mut other = Raw::play(server.rtmp, "live", "kick").start();
    let port = one.local().port();
    let sessions = server.wait_for_sessions("kind=play", 2);
    let target = sessions.iter().find(|it| it["remote"].as_str().unwrap().ends_with(&format!(":{port}"))).unwrap();
    let id = target["id"].as_str().unwrap();

    let (status, answer) = server.call("DELETE", &format!("/v1/sessions/{id}"), None);
    assert_eq!(status, 200, "{answer}");
    one.drain();
    assert!(one.refused.is_some(), "no goodbye");
    let session = server.wait_for_end(id);
    assert_eq!(session["reason"], "kicked");
    assert_eq!(session["bytes"]["tx"].as_u64(), Some(one.received), "{session:#}");

    // Again: harmless, and says so. An unknown one is not there.
    let (status, answer) = server.call("DELETE", &format!("/v1/sessions/{id}"), None);
    assert_eq!((status, &answer["already_closed"]), (200, &json!(true)), "{answer}");
    let (status, _) = server.call("DELETE", "/v1/sessions/01890a5d-ac96-774b-bcce-b302099a8057", None);
    assert_eq!(status, 404);

    publisher.send_picture(1);
    let before = other.messages.len();
    assert!(other.pump_until(PATIENCE, |it| it.messages.len() > before), "the neighbour was disturbed");
}

#[test]
fn a_terminated_player_is_refused_for_as_long_as_asked_and_no_longer() {
    let server = Server::start("");
    let mut publisher = Raw::publish(server.rtmp, "live", "banned").start();
    publisher.send_picture(0);
    let _player = Raw::play(server.rtmp, "live", "banned").start();
    let _innocent = Raw::publish(server.rtmp, "live", "elsewhere").start();
    server.wait_for_sessions("kind=play", 1);

    let ask = json!({"filter": {"stream": "banned", "kind": "play"}, "ban_for": "2s", "dry_run": true});
    let (status, answer) = server.call("POST", "/v1/sessions/terminate", Some(&ask));
    assert_eq!((status, &answer["matched"], &answer["closed"]), (200, &json!(1), &json!(0)), "{answer}");
    assert_eq!(server.sessions("kind=play").len(), 1, "a dry run ended a session");

    let ask = json!({"filter": {"stream": "banned", "kind": "play"}, "ban_for": "2s"});
    let banned_at = Instant::now();
    let (status, answer) = server.call("POST", "/v1/sessions/terminate", Some(&ask));
    assert_eq!((status, &answer["matched"], &answer["closed"]), (200, &json!(1), &json!(1)), "{answer}");

    let mut back = Raw::play(server.rtmp, "live", "banned");
    assert!(back.pump_until(PATIENCE, |it| it.started || it.refused.is_some()));
    let refusal = back.refused.clone().expect("the banned player was let in");
    assert!(refusal.1.contains("refused for some time"), "{refusal:?}");
    // The publisher has the same address and another role; another stream is not meant either.
    assert_eq!(server.sessions("kind=publish").len(), 2);
    Raw::play(server.rtmp, "live", "elsewhere").start();

    std::thread::sleep(Duration::from_secs(2).saturating_sub(banned_at.elapsed()) + Duration::from_millis(100));
    Raw::play(server.rtmp, "live", "banned").start();
}

#[test]
fn a_filter_without_conditions_needs_a_confirmation() {
    let server = Server::start("");
    let mut publisher = Raw::publish(server.rtmp, "live", "all").start();
    publisher.send_picture(0);
    let (status, answer) = server.call("POST", "/v1/sessions/terminate", Some(&json!({"filter": {}})));
    assert_eq!(status, 400, "{answer}");
    let (status, answer) =
        server.call("POST", "/v1/sessions/terminate", Some(&json!({"filter": {}, "confirm": "all"})));
    assert_eq!((status, &answer["closed"]), (200, &json!(1)), "{answer}");
    publisher.drain();
}
