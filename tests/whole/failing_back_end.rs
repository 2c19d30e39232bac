//! The back end that is asked is slow, wrong or gone: each newcomer meets the policy, and nobody else notices.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::back_end::{BackEnd, Say};
use crate::support::calm::Calm;
use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually};

/// The end of somebody who is not let in.
fn refusal(server: &Server, mut raw: Raw) -> (String, String) {
    assert!(raw.pump_until(PATIENCE, |it| it.started || it.refused.is_some() || it.closed), "no answer");
    assert!(!raw.started, "it is let in");
    let remote = raw.local();
    let ends = || server.sessions(&format!("state=finished&remote={remote}"));
    eventually("its end is known", || ends().len() == 1);
    let text = |field: &str| ends()[0][field].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("detail"))
}

fn gate(server: &Server) -> f64 {
    server.metric("sluicegate_hook_breaker", "call=\"ask\"")
}

#[test]
fn fa_10_without_a_back_end_publishers_are_refused_and_players_meet_the_policy() {
    for (policy, is_let_in) in [("deny", false), ("allow", true)] {
        let back_end = BackEnd::start();
        let ask = back_end.ask(&format!("play_on_failure = \"{policy}\"\nstale_if_error = \"0s\""));
        let server = Server::start(&ask);
        let mut calm = Calm::start(&server, "goes-on");
        back_end.go_down();
        for number in 0..8 {
            let raw = Raw::publish(server.rtmp, "live", &format!("new-{number}"));
            let (reason, detail) = refusal(&server, raw);
            assert_eq!(reason, "auth_unavailable");
            assert!(["connect", "breaker_open"].contains(&&*detail), "{detail}");
            calm.beat();
        }
        let player = Raw::play(server.rtmp, "live", "goes-on");
        if is_let_in {
            let mut player = player.start();
            assert!(player.pump_until(PATIENCE, |it| !it.messages.is_empty()));
        } else {
            assert_eq!(refusal(&server, player).0, "auth_unavailable");
        }
        assert!(gate(&server) > 0.0, "the breaker is shut after eight failures");
        let (_, ready) = server.get("/readyz?verbose=true");
        let checks = ready["checks"].as_array().unwrap().clone();
        assert!(checks.iter().any(|it| it["name"] == "hook.ask" && it["ok"] == false), "{ready:#}");
        // It is back: one question a second finds out.
        back_end.go_up();
        eventually("publishers are let in again", || {
            let mut raw = Raw::publish(server.rtmp, "live", "after");
            raw.pump_until(PATIENCE, |it| it.started || it.refused.is_some() || it.closed);
            raw.started
        });
        assert_eq!(gate(&server), 0.0);
        calm.assert_undisturbed(&server);
    }
}

#[test]
fn answers_that_make_no_sense_are_failures_and_never_a_yes() {
    let back_end = BackEnd::start();
    let server = Server::start(&back_end.ask(""));
    let mut calm = Calm::start(&server, "goes-on");
    let answers = [
        Say::status(500),
        Say::yes(json!({"stream": 7})),
        Say::yes(json!({"stream": "../up"})),
        Say::yes(json!({"recheck_every_ms": -1})),
    ];
    for answer in answers {
        let said = answer.clone();
        back_end.answer(move |_| said.clone());
        let (reason, _) = refusal(&server, Raw::publish(server.rtmp, "live", "senseless"));
        assert_eq!(reason, "auth_unavailable", "{answer:?}");
        // A good answer in between keeps the breaker from opening.
        back_end.answer(|_| Say::yes(json!({})));
        drop(Raw::publish(server.rtmp, "live", "sensible").start());
    }
    calm.assert_undisturbed(&server);
}

#[test]
fn fa_10_a_slow_back_end_keeps_its_newcomers_waiting_and_nobody_else() {
    let back_end = BackEnd::answering(|asked| {
        let is_slow = asked["session"]["stream"].as_str().is_some_and(|stream| stream.starts_with("slow"));
        Say::yes(json!({})).after(Duration::from_millis(if is_slow { 1_500 } else { 0 }))
    });
    let server = Server::start(&format!("[shard]\ncount = 1\n{}", back_end.ask("")));
    let mut calm = Calm::start(&server, "goes-on");
    let mut waiting: Vec<Raw> =
        (0..10).map(|number| Raw::publish(server.rtmp, "live", &format!("slow-{number}"))).collect();
    eventually("all of them wait", || {
        for raw in &mut waiting {
            raw.pump_until(Duration::from_millis(1), |_| false);
        }
        server.sessions("state=establishing").len() == 10
    });
    let before = calm.pictures().len();
    let mut beats = 0;
    while !waiting[0].pump_until(Duration::from_millis(25), |it| it.started) {
        calm.beat();
        beats += 1;
    }
    let passed = calm.pictures().len() - before;
    assert!(beats > 5 && passed * 2 > beats, "{passed} of {beats} pictures came while others waited");
    for raw in waiting {
        raw.start();
    }
    calm.assert_undisturbed(&server);
}

#[test]
fn fa_10_a_back_end_that_hangs_costs_each_newcomer_its_time_and_then_nothing() {
    let back_end = BackEnd::start();
    let server = Server::start(&format!("[hook]\ndecide_timeout = \"200ms\"\n{}", back_end.ask("")));
    let mut calm = Calm::start(&server, "goes-on");
    back_end.answer(|_| Say::yes(json!({})).after(Duration::from_secs(60)));
    let mut details = Vec::new();
    while gate(&server) == 0.0 {
        let raw = Raw::publish(server.rtmp, "live", &format!("hangs-{}", details.len()));
        let (reason, detail) = refusal(&server, raw);
        assert_eq!(reason, "auth_unavailable");
        details.push(detail);
        calm.beat();
        assert!(details.len() < 50, "{details:?}");
    }
    assert_eq!(details[0], "timeout");
    // From now on nobody waits for it: far more than could be asked in that time are answered.
    let (began, asked) = (Instant::now(), back_end.asked().len());
    let mut at_once = 0;
    while began.elapsed() < Duration::from_secs(2) {
        let (_, detail) = refusal(&server, Raw::publish(server.rtmp, "live", "hangs-more"));
        at_once += usize::from(detail == "breaker_open");
        calm.beat();
    }
    let probes = back_end.asked().len() - asked;
    assert!(probes <= 4, "{probes} questions in two seconds");
    assert!(at_once > 2 * probes, "{at_once} were answered at once, {probes} were put");
    calm.assert_undisturbed(&server);
}

#[test]
fn running_sessions_go_on_when_the_back_end_is_gone() {
    let back_end = BackEnd::answering(|_| Say::yes(json!({"recheck_every_ms": 1_000})));
    let server = Server::start(&back_end.ask(""));
    let mut calm = Calm::start(&server, "goes-on");
    eventually("it is asked again", || {
        calm.beat();
        back_end.asked().iter().any(|asked| asked["why"] == "recheck")
    });
    back_end.go_down();
    eventually("it is missed", || {
        calm.beat();
        server.metric("sluicegate_hook_requests_total", "result=\"connect\"") > 1.0
    });
    calm.assert_undisturbed(&server);
}

#[test]
fn a_newcomer_may_wait_for_its_answer_longer_than_for_its_command() {
    let back_end = BackEnd::answering(|_| Say::yes(json!({})).after(Duration::from_millis(2_500)));
    let server = Server::start(&format!("[rtmp]\ncommand_timeout = \"1s\"\n{}", back_end.ask("")));
    let mut publisher = Raw::publish(server.rtmp, "live", "patient").start();
    publisher.send_picture(0);
    let mut player = Raw::play(server.rtmp, "live", "patient").start();
    assert!(player.pump_until(PATIENCE, |it| !it.messages.is_empty()));
}
