//! The table of `robustness.md` §8.1: what a back end's answer, and what its failure, means.

use std::sync::Arc;
use std::time::Duration;

use sluicegate::admission::{Access, Answer, AppPattern, Failure, HookRule, Note, Settings, Terms, Why};
use sluicegate::names::{Kind, Name};
use sluicegate::session::{CloseReason, Facts, Reason};

use crate::room::{Room, SECOND, START_UNIX, allow, deny, refused, shortly_before, terms_of, timeout, why};

fn room(rule: HookRule) -> Room {
    // The profile says no, so every yes below is the hook's.
    let settings = Settings { publish: Access::Deny, play: Access::Deny, ..Settings::default() };
    Room::new(&settings, vec![rule])
}

/// A peer asks and the back end answers.
fn outcome(room: &mut Room, kind: Kind, answer: Answer) -> Result<(), CloseReason> {
    let facts = room.peer(kind, "cam", "token=x");
    let question = room.ask(&facts);
    assert_eq!(room.said(question), None, "nothing is said before the answer");
    assert_eq!(room.asks.len(), 1);
    room.answer(answer);
    let said = room.said(question).expect("a verdict");
    room.close(&facts);
    said
}

fn cached(for_: Duration) -> Terms {
    Terms { cache_for: Some(for_), ..terms_of("ann") }
}

fn unavailable(detail: &'static str) -> Result<(), CloseReason> {
    Err(refused(Reason::AuthUnavailable, detail))
}

#[test]
fn allow_starts_and_deny_refuses_publishers_and_players_alike() {
    for kind in [Kind::Publish, Kind::Play] {
        let mut room = room(HookRule::default());
        assert_eq!(outcome(&mut room, kind, allow(Terms::default())), Ok(()));
        assert_eq!(outcome(&mut room, kind, deny()), Err(Reason::AuthDenied.into()));
        assert!(room.notes.contains(&Note::AuthFailed(Reason::AuthDenied.into())));
    }
}

#[test]
fn a_failure_without_cache_refuses_and_lets_players_in_only_where_that_is_wanted() {
    let failures = [
        (Failure::Timeout, "timeout"),
        (Failure::Connect, "connect"),
        (Failure::Status(500), "status"),
        (Failure::Malformed("json"), "malformed"),
        (Failure::BreakerOpen, "breaker_open"),
        (Failure::QueueFull, "queue_full"),
    ];
    for (failure, word) in failures {
        let mut strict = room(HookRule::default());
        let mut lax = room(HookRule { play_on_failure: true, ..HookRule::default() });
        for room in [&mut strict, &mut lax] {
            assert_eq!(outcome(room, Kind::Publish, Answer::Failure(failure)), unavailable(word));
            assert_eq!(room.desk.counts().failures[word], 1);
        }
        assert_eq!(outcome(&mut strict, Kind::Play, Answer::Failure(failure)), unavailable(word));
        assert_eq!(outcome(&mut lax, Kind::Play, Answer::Failure(failure)), Ok(()));
        assert_eq!(lax.desk.counts().let_in, 1);
        assert!(strict.notes.is_empty(), "a failure of ours is not held against the source");
    }
}

#[test]
fn an_allow_bridges_failures_for_players_until_it_is_too_old() {
    let mut room = room(HookRule::default());
    assert_eq!(outcome(&mut room, Kind::Play, allow(terms_of("ann"))), Ok(()));
    room.wait(SECOND * 59);
    assert_eq!(outcome(&mut room, Kind::Play, timeout()), Ok(()), "it was asked, and failed");
    assert_eq!(room.desk.counts().stale, 1);
    room.wait(SECOND);
    assert_eq!(outcome(&mut room, Kind::Play, timeout()), unavailable("timeout"), "60 s are over");
}

#[test]
fn a_remembered_allow_is_for_the_same_token_stream_role_and_address() {
    let mut room = room(HookRule::default());
    assert_eq!(outcome(&mut room, Kind::Play, allow(cached(SECOND * 60))), Ok(()));
    let peers = [
        room.peer(Kind::Play, "cam", "token=y"),
        room.peer(Kind::Play, "cam2", "token=x"),
        room.peer(Kind::Publish, "cam", "token=x"),
        room.peer_at(Kind::Play, "live/cam", "token=x", "192.0.2.2"),
        room.peer_at(Kind::Play, "other/cam", "token=x", "192.0.2.1"),
    ];
    for facts in peers {
        let question = room.ask(&facts);
        assert_eq!(room.said(question), None);
        room.answer(timeout());
        assert_eq!(room.said(question), Some(unavailable("timeout")), "{:?} {:?}", facts.kind, facts.key);
    }
    let same = room.peer(Kind::Play, "cam", "token=x");
    assert_eq!(room.verdict_on(&same).unwrap().user.as_deref(), Some("ann"));
    assert_eq!(room.desk.counts().cached, 1);
}

#[test]
fn an_answer_may_be_shared_between_addresses_where_the_hook_says_so() {
    let mut room = room(HookRule { cache_by_address: false, ..HookRule::default() });
    assert_eq!(outcome(&mut room, Kind::Play, allow(cached(SECOND * 60))), Ok(()));
    let other = room.peer_at(Kind::Play, "live/cam", "token=x", "192.0.2.2");
    assert!(room.verdict_on(&other).is_ok());
}

#[test]
fn nothing_is_remembered_for_publishers_unless_the_hook_says_so() {
    let mut strict = room(HookRule::default());
    assert_eq!(outcome(&mut strict, Kind::Publish, allow(cached(SECOND * 60))), Ok(()));
    assert_eq!(outcome(&mut strict, Kind::Publish, timeout()), unavailable("timeout"), "neither fresh nor stale");
    let no = Answer::Deny { text: None, redirect: None, cache_for: Some(SECOND * 60) };
    assert_eq!(outcome(&mut strict, Kind::Publish, no), Err(Reason::AuthDenied.into()));
    assert_eq!(outcome(&mut strict, Kind::Publish, allow(Terms::default())), Ok(()), "a no is not remembered either");
    assert_eq!(strict.desk.held().cached, 0);

    let mut lax = room(HookRule { cache_publish: true, ..HookRule::default() });
    assert_eq!(outcome(&mut lax, Kind::Publish, allow(cached(SECOND * 60))), Ok(()));
    assert!(lax.verdict(Kind::Publish, "cam", "token=x").is_ok());
    lax.wait(SECOND * 119);
    assert_eq!(outcome(&mut lax, Kind::Publish, timeout()), Ok(()), "60 s fresh and 60 s stale");
    lax.wait(SECOND);
    assert_eq!(outcome(&mut lax, Kind::Publish, timeout()), unavailable("timeout"));
}

#[test]
fn a_no_is_remembered_for_as_long_as_it_says_and_forgets_the_yes_before() {
    let mut room = room(HookRule::default());
    assert_eq!(outcome(&mut room, Kind::Play, allow(Terms::default())), Ok(()));
    let no = Answer::Deny { text: Some("gone".into()), redirect: None, cache_for: Some(SECOND * 10) };
    assert_eq!(outcome(&mut room, Kind::Play, no), Err(Reason::AuthDenied.into()));
    let verdict = room.verdict(Kind::Play, "cam", "token=x");
    assert_eq!(verdict.unwrap_err().text.as_deref(), Some("gone"), "the words are remembered as well");
    room.wait(SECOND * 10);
    assert_eq!(outcome(&mut room, Kind::Play, timeout()), unavailable("timeout"), "the yes is not used any more");
    assert_eq!(outcome(&mut room, Kind::Play, allow(Terms::default())), Ok(()));
    assert_eq!(outcome(&mut room, Kind::Play, deny()), Err(Reason::AuthDenied.into()));
    assert_eq!(outcome(&mut room, Kind::Play, timeout()), unavailable("timeout"));
}

#[test]
fn hk_07_a_huge_time_is_a_day() {
    let mut room = room(HookRule { stale_if_error: Duration::ZERO, ..HookRule::default() });
    assert_eq!(outcome(&mut room, Kind::Play, allow(cached(Duration::from_hours(1_000_000)))), Ok(()));
    room.wait(shortly_before(Duration::from_hours(24)));
    assert!(room.verdict(Kind::Play, "cam", "token=x").is_ok());
    room.wait(Duration::from_millis(1));
    assert_eq!(outcome(&mut room, Kind::Play, timeout()), unavailable("timeout"));
}

#[test]
fn hk_07_an_expiry_in_the_past_is_an_expired_token() {
    for (ends, expected) in [(START_UNIX, Err(Reason::TokenExpired.into())), (START_UNIX + 1, Ok(()))] {
        let mut room = room(HookRule::default());
        let terms = Terms { expires_unix_ms: Some(ends * 1_000), ..Terms::default() };
        assert_eq!(outcome(&mut room, Kind::Play, allow(terms)), expected);
    }
}

#[test]
fn the_expiry_wins_over_the_cache_also_while_the_back_end_fails() {
    let mut room = room(HookRule::default());
    let ends = Some((START_UNIX + 30) * 1_000);
    let terms = Terms { expires_unix_ms: ends, ..cached(SECOND * 600) };
    assert_eq!(outcome(&mut room, Kind::Play, allow(terms)), Ok(()));
    room.wait(SECOND * 29);
    assert!(room.verdict(Kind::Play, "cam", "token=x").is_ok());
    room.wait(SECOND);
    assert_eq!(outcome(&mut room, Kind::Play, timeout()), unavailable("timeout"), "asked again, and not remembered");
}

#[test]
fn the_same_question_is_asked_once_and_answers_all_that_wait() {
    let mut room = room(HookRule::default());
    let peers: Vec<Arc<Facts>> = (0..100).map(|_| room.peer(Kind::Play, "cam", "token=x")).collect();
    let questions: Vec<u64> = peers.iter().map(|facts| room.ask(facts)).collect();
    let other = room.peer(Kind::Play, "cam", "token=y");
    room.ask(&other);
    assert_eq!(room.asks.len(), 2);
    assert_eq!(room.desk.counts().shared, 99);
    room.close(&peers[7]);
    room.answer(allow(terms_of("ann")));
    for (at, question) in questions.iter().enumerate() {
        assert_eq!(room.said(*question), (at != 7).then_some(Ok(())), "{at}");
    }
    assert_eq!(room.desk.held().waiting, 1);
    // The next one is a new question: the answer did not say that it may be kept.
    assert_eq!(outcome_of_next(&mut room), None);
}

fn outcome_of_next(room: &mut Room) -> Option<Result<(), CloseReason>> {
    let facts = room.peer(Kind::Play, "cam", "token=x");
    let question = room.ask(&facts);
    room.said(question)
}

#[test]
fn an_answer_that_does_not_come_is_a_failure_at_the_deadline_and_one_that_comes_late_is_nothing() {
    let mut room = room(HookRule::default());
    let facts = room.peer(Kind::Publish, "cam", "");
    let question = room.ask(&facts);
    room.wait(shortly_before(SECOND * 5));
    assert_eq!(room.said(question), None);
    room.wait(Duration::from_millis(1));
    assert_eq!(room.said(question), Some(unavailable("timeout")));
    room.answer(allow(Terms::default()));
    assert_eq!(room.said(question), Some(unavailable("timeout")));
    assert_eq!(room.desk.held(), sluicegate::admission::Held { seats_are_free: true, ..Default::default() });
}

#[test]
fn more_questions_than_may_wait_are_failures() {
    let settings = Settings { waiting_max: 2, ..Settings::default() };
    let mut room = Room::new(&settings, vec![HookRule::default()]);
    let peers = ["a", "b", "c"].map(|stream| room.peer(Kind::Publish, stream, ""));
    let questions = peers.each_ref().map(|facts| room.ask(facts));
    assert_eq!(questions.map(|question| room.said(question)), [None, None, Some(unavailable("queue_full"))]);
    room.close(&peers[0]);
    let next = room.peer(Kind::Publish, "d", "");
    let question = room.ask(&next);
    assert_eq!(room.said(question), None, "there is room again");
}

#[test]
fn memory_has_a_cap_and_what_ends_first_leaves() {
    let settings = Settings { cache_entries: 2, ..Settings::default() };
    let mut room = Room::new(&settings, vec![HookRule::default()]);
    for (stream, seconds) in [("a", 30), ("b", 10), ("c", 20)] {
        let facts = room.peer(Kind::Play, stream, "");
        room.ask(&facts);
        room.answer(allow(cached(SECOND * seconds)));
    }
    assert_eq!(room.desk.held().cached, 2);
    assert!(room.verdict(Kind::Play, "a", "").is_ok());
    assert!(room.verdict(Kind::Play, "c", "").is_ok());
    let facts = room.peer(Kind::Play, "b", "");
    let question = room.ask(&facts);
    assert_eq!(room.said(question), None, "it has to be asked again");
}

#[test]
fn the_first_hook_for_the_app_and_kind_is_asked() {
    let app = |text| vec![AppPattern::parse(text).unwrap()];
    let hooks = vec![
        HookRule { apps: app("vod"), ..HookRule::default() },
        HookRule { apps: app("live"), kinds: vec![Kind::Publish], ..HookRule::default() },
        HookRule { apps: app("live"), ..HookRule::default() },
    ];
    let mut room = Room::new(&Settings { play: Access::Deny, ..Settings::default() }, hooks);
    for (kind, path, expected) in
        [(Kind::Publish, "live/a", 1), (Kind::Play, "live/a", 2), (Kind::Play, "vod/a", 0), (Kind::Publish, "vod/a", 0)]
    {
        let facts = room.peer_at(kind, path, "", "192.0.2.1");
        room.ask(&facts);
        let (_, hook, asked, reason) = room.asks.pop().unwrap();
        assert_eq!((hook, asked.id, reason), (expected, facts.id, Why::Open), "{path}");
    }
    let nowhere = room.peer_at(Kind::Play, "other/a", "", "192.0.2.1");
    assert_eq!(why(&room.verdict_on(&nowhere)), refused(Reason::AuthDenied, "admission.play"));
}

#[test]
fn a_verdict_may_rename_the_stream_and_give_a_name_and_labels() {
    let mut room = room(HookRule::default());
    let facts = room.peer(Kind::Publish, "secret-key", "");
    let question = room.ask(&facts);
    let terms = Terms {
        app: Some(Name::app("studio/a").unwrap()),
        stream: Some(Name::stream("camera").unwrap()),
        labels: [("plan".into(), "gold".into())].into(),
        publish_bps_max: Some(5_000_000),
        ..terms_of("ann")
    };
    room.answer(allow(terms));
    let grant = room.verdicts[&question].as_ref().unwrap();
    assert_eq!(grant.key.to_string(), "default/studio/a/camera");
    assert_eq!(grant.user.as_deref(), Some("ann"));
    assert_eq!(grant.labels.len(), 1);
    assert_eq!(grant.publish_bps_max, Some(5_000_000));
}

#[test]
fn hk_09_a_redirect_goes_to_a_host_that_is_named_and_nowhere_else() {
    let settings = Settings { redirect_hosts: vec!["edge.example".into()], ..Settings::default() };
    let mut room = Room::new(&settings, vec![HookRule::default()]);
    for (url, stays) in
        [("rtmp://edge.example/live", true), ("rtmp://evil.example/live", false), ("rtmp://198.51.100.1/live", true)]
    {
        let facts = room.peer(Kind::Play, "cam", "");
        let question = room.ask(&facts);
        room.answer(Answer::Deny { text: None, redirect: Some(url.into()), cache_for: None });
        let refusal = room.verdicts[&question].as_ref().unwrap_err();
        assert_eq!(refusal.redirect.as_deref(), stays.then_some(url));
        assert_eq!(refusal.reason, CloseReason::new(Reason::AuthDenied));
        assert_eq!(room.notes.contains(&Note::RedirectRefused), !stays, "{url}");
        room.notes.clear();
    }
    assert_eq!(room.desk.counts().redirects, (2, 1));
}
