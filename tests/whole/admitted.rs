//! The hook decides about ffmpeg, and about everybody while they run.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::support::back_end::{BackEnd, Say};
use crate::support::calm::Calm;
use crate::support::peers::{self, Running};
use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually, scratch};

/// ffmpeg publishes a clip again and again.
fn publish(clip: &Path, url: &str) -> Running {
    peers::publish_for_ever(peers::ffmpeg(), clip, url)
}

/// ffmpeg plays so many pictures to nowhere, or for ever.
fn play(url: &str, frames: Option<u32>) -> Running {
    let mut command = peers::ffmpeg();
    command.args(["-rw_timeout", "15000000", "-i", url]);
    if let Some(frames) = frames {
        command.args(["-frames:v", &frames.to_string()]);
    }
    Running::start(command.args(["-c", "copy", "-f", "null", "-"]))
}

#[test]
fn ffmpeg_comes_in_under_the_name_and_user_that_the_hook_says() {
    let back_end = BackEnd::answering(|asked| match asked["session"]["kind"].as_str() {
        Some("publish") => Say::yes(json!({"user": "anna", "labels": {"plan": "gold"}, "stream": "given"})),
        _ if asked["session"]["query"] == "token=open-sesame" => Say::yes(json!({"user": "bert"})),
        _ => Say::no("not without a ticket"),
    });
    let server = Server::start(&back_end.ask(""));
    let (_dir, dir) = scratch();
    let clip = dir.join("clip.flv");
    peers::make_clip(&clip, 2);
    let _publisher = publish(&clip, &server.url("live/asked"));
    let sessions = server.wait_for_sessions("kind=publish&state=running", 1);
    assert_eq!((&sessions[0]["stream"], &sessions[0]["user"]), (&"given".into(), &"anna".into()), "{sessions:#?}");
    assert_eq!(sessions[0]["labels"], json!({"plan": "gold"}), "{sessions:#?}");
    assert_eq!(server.sessions("user=anna").len(), 1);

    let mut player = play(&server.url("live/given?token=open-sesame"), Some(20));
    assert!(player.wait(), "{}", player.errors());
    let mut stranger = play(&server.url("live/given"), Some(1));
    assert!(!stranger.wait(), "it plays without a ticket");
    assert!(stranger.errors().contains("not without a ticket"), "{}", stranger.errors());
    eventually("both have ended", || server.sessions("state=finished&kind=play").len() == 2);
    let ends = server.sessions("state=finished&kind=play");
    let of = |field: &str| -> Vec<_> { ends.iter().map(|end| end[field].as_str().unwrap_or("").to_owned()).collect() };
    assert_eq!(
        (of("user"), of("reason")),
        (vec!["bert".into(), String::new()], vec!["client_done".to_owned(), "auth_denied".into()])
    );
    let question = &back_end.asked()[0];
    assert_eq!((&question["why"], &question["session"]["stream"]), (&"open".into(), &"asked".into()), "{question:#}");
    assert!(question["session"]["remote"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[test]
fn ffmpeg_prints_why_the_hook_does_not_let_it_publish() {
    let back_end = BackEnd::answering(|_| Say::no("Your plan has ended, see example.org/renew"));
    let server = Server::start(&back_end.ask(""));
    let (_dir, dir) = scratch();
    let clip = dir.join("clip.flv");
    peers::make_clip(&clip, 1);
    let mut publisher = publish(&clip, &server.url("live/denied"));
    assert!(!publisher.wait(), "the publish was accepted");
    let errors = publisher.errors();
    assert!(errors.contains("Server error: Your plan has ended, see example.org/renew"), "{errors}");
    eventually("it is gone", || server.sessions("").is_empty());
    let denied = server.events("session.denied");
    assert_eq!(denied.len(), 1, "{denied:#?}");
    assert_eq!(denied[0].1["reason"], "auth_denied");
}

#[test]
fn a_no_later_ends_ffmpeg_and_leaves_others_alone() {
    let back_end = BackEnd::answering(|asked| {
        let is_over = asked["why"] == "recheck" && asked["session"]["stream"] == "over";
        if is_over { Say::no("it is over") } else { Say::yes(json!({"recheck_every_ms": 1_000})) }
    });
    let server = Server::start(&back_end.ask(""));
    let (_dir, dir) = scratch();
    let clip = dir.join("clip.flv");
    peers::make_clip(&clip, 2);
    let mut calm = Calm::start(&server, "goes-on");
    let mut publisher = publish(&clip, &server.url("live/over"));
    let id = server.wait_for_sessions("kind=publish&stream=over&state=running", 1)[0]["id"].clone();
    calm.beat();
    let end = server.wait_for_end(id.as_str().unwrap());
    assert_eq!(end["reason"], "reauth_denied", "{end:#}");
    assert!(!publisher.wait(), "ffmpeg goes on");
    let errors = publisher.errors();
    assert!(errors.contains("Server error: it is over"), "{errors}");
    let asked = back_end.asked();
    let last = asked.iter().rfind(|asked| asked["session"]["id"] == id).unwrap();
    assert_eq!(last["why"], "recheck");
    assert!(last["counters"]["rx_bytes"].as_u64() > Some(0), "{last:#}");
    calm.assert_undisturbed(&server);
}

#[test]
fn a_session_lasts_as_long_as_the_hook_says() {
    let back_end = BackEnd::answering(|asked| match asked["session"]["stream"].as_str() {
        Some("short") => Say::yes(json!({"duration_max_ms": 1_000})),
        Some("expires") => {
            let now = asked["time_unix_ms"].as_u64().unwrap();
            Say::yes(json!({"expires_unix_ms": now + 1_000}))
        }
        _ => Say::yes(json!({})),
    });
    let server = Server::start(&back_end.ask(""));
    let mut calm = Calm::start(&server, "goes-on");
    for (stream, reason) in [("short", "max_duration"), ("expires", "token_expired")] {
        let mut publisher = Raw::publish(server.rtmp, "live", stream).start();
        publisher.send_picture(0);
        let local = publisher.local();
        let id = server.wait_for_sessions(&format!("remote={local}"), 1)[0]["id"].as_str().unwrap().to_owned();
        publisher.drain();
        let end = server.wait_for_end(&id);
        assert_eq!(end["reason"], reason, "{end:#}");
        assert!(end["duration_ms"].as_u64().unwrap() >= 900, "{end:#}");
    }
    calm.assert_undisturbed(&server);
}

#[test]
fn ffmpeg_is_ended_by_an_order_and_can_be_kept_out() {
    let back_end = BackEnd::start();
    let server = Server::start(&back_end.ask(""));
    let (_dir, dir) = scratch();
    let clip = dir.join("clip.flv");
    peers::make_clip(&clip, 2);
    for (how, reason) in [("", "kicked"), ("?ban_for=1m", "banned")] {
        let mut publisher = publish(&clip, &server.url("live/kicked"));
        let id = server.wait_for_sessions("kind=publish&state=running", 1)[0]["id"].as_str().unwrap().to_owned();
        let (status, answer) = server.call("DELETE", &format!("/v1/sessions/{id}{how}"), None);
        assert_eq!(status, 200, "{answer}");
        assert!(!publisher.wait(), "ffmpeg goes on");
        assert_eq!(server.wait_for_end(&id)["reason"], reason);
    }
    let asked = back_end.asked().len();
    let mut again = publish(&clip, &server.url("live/kicked"));
    assert!(!again.wait(), "the banned one is back");
    assert_eq!(back_end.asked().len(), asked, "nobody asks about who is banned");
}

#[test]
fn who_leaves_before_the_answer_leaves_nothing_behind() {
    let back_end = BackEnd::answering(|_| Say::yes(json!({"user": "anna"})).after(Duration::from_millis(700)));
    let server = Server::start(&format!("{}[admission.limits]\nsessions_per_user = 1\n", back_end.ask("")));
    for _ in 0..3 {
        let mut leaver = Raw::publish(server.rtmp, "live", "one");
        let is_open = |_: &Raw| server.sessions("state=establishing").len() == 1;
        assert!(leaver.pump_until(PATIENCE, is_open), "no question is open");
        drop(leaver);
        eventually("it is gone", || server.sessions("").is_empty());
    }
    // Neither its seat nor its stream is taken, though the answers came after it.
    let mut next = Raw::publish(server.rtmp, "live", "one").start();
    next.send_picture(0);
    server.wait_for_sessions("kind=publish&state=running", 1);
    drop(next);
    server.wait_for_sessions("", 0);
    Raw::publish(server.rtmp, "live", "two").start();
}

#[test]
fn an_order_ends_whoever_still_waits_for_an_answer() {
    let back_end = BackEnd::answering(|asked| {
        let is_slow = asked["session"]["stream"] == "slow";
        Say::yes(json!({"user": "anna"})).after(Duration::from_millis(if is_slow { 1_000 } else { 0 }))
    });
    let server = Server::start(&format!("{}[admission.limits]\nsessions_per_user = 1\n", back_end.ask("")));
    let waiting = || {
        let mut raw = Raw::publish(server.rtmp, "live", "slow");
        let is_open = |_: &Raw| server.sessions("state=establishing").len() == 1;
        assert!(raw.pump_until(PATIENCE, is_open), "no question is open");
        let id = server.sessions("state=establishing")[0]["id"].as_str().unwrap().to_owned();
        (raw, id)
    };
    let (mut raw, id) = waiting();
    assert_eq!(server.call("DELETE", &format!("/v1/sessions/{id}"), None).0, 200);
    raw.drain();
    assert_eq!(server.wait_for_end(&id)["reason"], "kicked");
    let (mut raw, id) = waiting();
    let ban = json!({"address": "127.0.0.1", "kind": "publish", "app": "live", "stream": "slow", "ban_for": "1m"});
    assert_eq!(server.call("POST", "/v1/bans", Some(&ban)).0, 200);
    raw.drain();
    assert_eq!(server.wait_for_end(&id)["reason"], "banned");
    // The answer to both, who asked the same, comes and finds nobody: the one seat is free.
    eventually("the question is answered", || {
        server.metric("sluicegate_hook_requests_total", "result=\"allow\"") == back_end.asked().len() as f64
    });
    let mut next = Raw::publish(server.rtmp, "live", "quick").start();
    next.send_picture(0);
    server.wait_for_sessions("state=running", 1);
}

#[test]
fn a_player_that_the_hook_sends_to_another_stream_gets_that_one() {
    let back_end = BackEnd::answering(|asked| match asked["session"]["kind"].as_str() {
        Some("play") => Say::yes(json!({"app": "inner", "stream": "real"})),
        _ => Say::yes(json!({})),
    });
    let server =
        Server::start(&format!("[shard]\ncount = 2\n[stream]\nresume_window = \"100ms\"\n{}", back_end.ask("")));
    let mut publisher = Raw::publish(server.rtmp, "inner", "real").start();
    publisher.send_picture(0);
    let mut players: Vec<Raw> = (0..6).map(|_| Raw::play(server.rtmp, "live", "alias").start()).collect();
    for player in &mut players {
        assert!(player.pump_until(PATIENCE, |it| it.messages.iter().any(|message| message.type_id == 9)));
    }
    assert_eq!(server.wait_for_sessions("kind=play&app=inner&stream=real", 6)[0]["app"], "inner");
    drop(publisher);
    for player in &mut players {
        assert!(player.pump_until(PATIENCE, |it| it.ended), "the stream does not end");
    }
}
