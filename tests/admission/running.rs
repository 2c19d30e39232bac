//! Sessions that run: asked about again, ended when their time is over.

use std::time::Duration;

use sluicegate::admission::settings::{JwtRule, Limits};
use sluicegate::admission::{HookRule, Note, Settings, Terms, Why};
use sluicegate::names::Kind;
use sluicegate::session::{CloseReason, Reason};
use sluicegate::stdx::units::Secret;

use crate::room::{Room, SECOND, START_UNIX, allow, deny, shortly_before, terms_of, timeout};

fn rechecking(every: Duration) -> Room {
    Room::new(&Settings::default(), vec![HookRule { recheck_every: every, ..HookRule::default() }])
}

/// Admits a player with these terms.
fn admitted(room: &mut Room, terms: Terms) -> std::sync::Arc<sluicegate::session::Facts> {
    let facts = room.peer(Kind::Play, "cam", "");
    let question = room.ask(&facts);
    room.answer(allow(terms));
    assert_eq!(room.said(question), Some(Ok(())));
    facts
}

/// Questions that wait, and those whose session did not wait.
fn open_and_gone(room: &Room) -> (u64, u64) {
    (room.desk.counts().open(), room.desk.counts().gone)
}

#[test]
fn a_question_whose_session_leaves_is_no_longer_open() {
    let mut room = rechecking(SECOND);
    let facts = room.peer(Kind::Play, "cam", "");
    room.ask(&facts);
    assert_eq!(open_and_gone(&room), (1, 0));
    room.close(&facts);
    assert_eq!(open_and_gone(&room), (0, 1));
    room.answer(allow(Terms::default()));
    room.close(&facts);
    assert_eq!(open_and_gone(&room), (0, 1), "an answer that comes too late is none");
    admitted(&mut room, Terms::default());
    let refused = room.peer(Kind::Play, "cam", "");
    room.ask(&refused);
    room.answer(deny());
    room.close(&refused);
    assert_eq!(open_and_gone(&room), (0, 1));
}

#[test]
fn a_running_session_is_asked_about_again_and_only_a_no_ends_it() {
    let mut room = rechecking(SECOND * 60);
    let facts = admitted(&mut room, terms_of("ann"));
    for answer in [allow(terms_of("ann")), timeout(), allow(Terms::default())] {
        let after = room.wait_for_ask();
        assert!((SECOND * 54..=SECOND * 66).contains(&after), "a tenth more or less: {after:?}");
        let (_, _, asked, reason) = &room.asks[0];
        assert_eq!((asked.id, *reason), (facts.id, Why::Recheck));
        assert_eq!(asked.user.as_deref(), Some("ann"), "the back end is told whom it named");
        room.answer(answer);
        assert_eq!(room.ends, []);
    }
    room.wait_for_ask();
    room.answer(deny());
    assert_eq!(room.ends, [(facts.id, CloseReason::new(Reason::ReauthDenied))]);
    room.wait(SECOND * 1_000);
    assert!(room.asks.is_empty(), "whoever has been told to go is not asked about");
    assert_eq!(room.ends.len(), 1);
    room.close(&facts);
    assert_eq!(room.desk.held().sessions, 0);
    assert_eq!(room.desk.held().timers, 0);
}

#[test]
fn a_recheck_that_is_never_answered_is_a_failure_and_the_session_goes_on() {
    let mut room = rechecking(SECOND * 10);
    admitted(&mut room, Terms::default());
    room.wait(SECOND * 11);
    assert_eq!(room.asks.len(), 1);
    room.wait(SECOND * 100);
    assert!((6..=8).contains(&room.asks.len()), "about every 15 s: {}", room.asks.len());
    assert_eq!(room.ends, []);
}

#[test]
fn the_back_end_says_how_often_and_may_change_its_mind() {
    let mut room = rechecking(SECOND * 10);
    admitted(&mut room, Terms { recheck_every: Some(SECOND * 100), ..Terms::default() });
    assert!(room.wait_for_ask() >= SECOND * 90);
    room.answer(allow(Terms { recheck_every: Some(SECOND * 2), ..Terms::default() }));
    assert!(room.wait_for_ask() <= SECOND * 3);
}

#[test]
fn sessions_that_began_together_are_not_asked_about_together() {
    let mut room = rechecking(SECOND * 100);
    let peers: Vec<_> = (0..200).map(|_| room.peer(Kind::Play, "cam", "")).collect();
    for facts in &peers {
        room.ask(facts);
    }
    room.answer(allow(Terms::default()));
    room.wait(SECOND * 90);
    let mut most = 0;
    for _ in 0..20 {
        let before = room.asks.len();
        room.wait(SECOND);
        most = most.max(room.asks.len() - before);
    }
    assert_eq!(room.asks.len(), 200);
    assert!(most < 50, "{most} in one second");
}

#[test]
fn a_player_let_in_while_the_back_end_failed_is_asked_about_later() {
    let rule = HookRule { play_on_failure: true, recheck_every: SECOND * 10, ..HookRule::default() };
    let mut room = Room::new(&Settings::default(), vec![rule]);
    let facts = room.peer(Kind::Play, "cam", "");
    room.ask(&facts);
    room.answer(timeout());
    room.wait(SECOND * 11);
    room.answer(deny());
    assert_eq!(room.ends, [(facts.id, Reason::ReauthDenied.into())]);
}

#[test]
fn the_back_ends_expiry_ends_the_session_and_a_new_one_moves_it() {
    let mut room = rechecking(SECOND * 10);
    let ends = |seconds: u64| Terms { expires_unix_ms: Some((START_UNIX + seconds) * 1_000), ..Terms::default() };
    let facts = admitted(&mut room, ends(20));
    room.wait(SECOND * 11);
    room.answer(allow(ends(40)));
    room.wait(SECOND * 19);
    assert_eq!(room.ends, [], "it was moved");
    room.asks.clear();
    room.wait(SECOND * 10);
    assert_eq!(room.ends, [(facts.id, Reason::TokenExpired.into())]);
}

#[test]
fn a_recheck_that_brings_an_expiry_in_the_past_ends_the_session() {
    let mut room = rechecking(SECOND * 10);
    let facts = admitted(&mut room, Terms::default());
    room.wait(SECOND * 11);
    room.answer(allow(Terms { expires_unix_ms: Some(START_UNIX * 1_000), ..Terms::default() }));
    assert_eq!(room.ends, [(facts.id, Reason::TokenExpired.into())]);
}

fn with_token(seconds: u64) -> (Settings, String) {
    let secret = "0123456789abcdef0123456789abcdef";
    let rule = JwtRule { secrets: vec![Secret::new(secret.into())], ..JwtRule::default() };
    let claims = serde_json::json!({"exp": START_UNIX + seconds});
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    (Settings { jwt: vec![rule], ..Settings::default() }, format!("token={token}"))
}

#[test]
fn fa_18_a_token_ends_its_session_when_the_wall_clock_says_so_even_if_that_jumps() {
    let (settings, query) = with_token(3_600);
    for (step, after) in [(0, 3_630), (3_600, 30), (-3_600, 7_230), (4_000, 0)] {
        let mut room = Room::new(&settings, Vec::new());
        let facts = room.peer(Kind::Play, "cam", &query);
        assert!(room.verdict_on(&facts).is_ok());
        room.step_clock(step);
        room.wait(shortly_before(SECOND * after));
        assert_eq!(room.ends.len(), usize::from(after == 0), "{step}: not before its time");
        room.wait(Duration::from_millis(1));
        assert_eq!(room.ends, [(facts.id, Reason::TokenExpired.into())], "{step}");
        room.close(&facts);
        assert_eq!(room.desk.held().timers, 0);
    }
}

#[test]
fn fa_18_durations_do_not_change_with_the_wall_clock() {
    let limits = Limits { duration_max: SECOND * 60, ..Limits::default() };
    let mut room = Room::new(&Settings { limits, ..Settings::default() }, Vec::new());
    let facts = room.peer(Kind::Play, "cam", "");
    assert!(room.verdict_on(&facts).is_ok());
    room.step_clock(7_200);
    room.wait(SECOND * 59);
    assert_eq!(room.ends, []);
    room.wait(SECOND);
    assert_eq!(room.ends, [(facts.id, Reason::MaxDuration.into())]);
}

#[test]
fn the_tokens_expiry_holds_even_if_the_hook_says_later() {
    let (mut settings, query) = with_token(60);
    settings.jwt[0].then = sluicegate::admission::settings::Then::Hook;
    let mut room = Room::new(&settings, vec![HookRule::default()]);
    let facts = room.peer(Kind::Play, "cam", &query);
    let question = room.ask(&facts);
    let later = Some((START_UNIX + 1_000) * 1_000);
    room.answer(allow(Terms { expires_unix_ms: later, cache_for: Some(SECOND * 1_000), ..Terms::default() }));
    let grant = room.verdicts[&question].as_ref().unwrap();
    assert_eq!(grant.expires_at, Some(room.now + SECOND * 90));
    room.wait(SECOND * 90);
    assert_eq!(room.ends, [(facts.id, Reason::TokenExpired.into())]);
    let late = room.verdict(Kind::Play, "cam", &query).unwrap_err();
    assert_eq!(late.reason, Reason::TokenExpired.into(), "not even from memory");
}

#[test]
fn md_10_a_publisher_above_its_rate_is_noted_and_then_closed() {
    let limits = Limits { publish_bps_max: 1_000_000, ..Limits::default() };
    let mut room = Room::new(
        &Settings { publish: sluicegate::admission::Access::Open, limits, ..Settings::default() },
        Vec::new(),
    );
    let facts = room.peer(Kind::Publish, "cam", "");
    assert_eq!(room.verdict_on(&facts).unwrap().publish_bps_max, Some(1_000_000));
    let mut noted_after = None;
    for second in 1..=60 {
        assert_eq!(room.ends, [], "after {second} s");
        room.now += SECOND;
        room.desk.handle_received(room.now, facts.id, second * 1_250_000);
        room.drain();
        if !room.notes.is_empty() {
            noted_after.get_or_insert(second);
        }
    }
    assert_eq!(noted_after, Some(10));
    assert_eq!(room.notes, [Note::BitrateHigh { bps: 10_000_000, max: 1_000_000 }]);
    assert_eq!(room.ends, [(facts.id, Reason::BitrateExceeded.into())]);
    room.desk.handle_received(room.now + SECOND, facts.id, 61 * 1_250_000);
    room.drain();
    assert_eq!(room.ends.len(), 1, "told once");
}

#[test]
fn what_nobody_will_ask_about_is_not_remembered() {
    let mut room =
        Room::new(&Settings { publish: sluicegate::admission::Access::Open, ..Settings::default() }, Vec::new());
    for kind in [Kind::Publish, Kind::Play, Kind::Ingest, Kind::Push] {
        let facts = room.peer(kind, "cam", "");
        assert!(room.verdict_on(&facts).is_ok());
    }
    assert_eq!(room.desk.held(), sluicegate::admission::Held { seats_are_free: true, ..Default::default() });
    assert_eq!(room.desk.next_due(), None);
}
