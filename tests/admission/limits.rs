//! How many at once, and how much: exact under a burst, and given back at the close.

use std::sync::Arc;
use std::time::Duration;

use sluicegate::admission::settings::Limits;
use sluicegate::admission::{Access, AtLimit, Decision, Gate, HookRule, Settings, Terms, Verdict};
use sluicegate::names::Kind;
use sluicegate::session::{CloseReason, Facts, Reason};

use crate::room::{Room, SECOND, allow, limited, refused, shortly_before, terms_of, why};
use crate::support::request;

fn room(limits: Limits) -> Room {
    Room::new(&Settings { publish: Access::Open, limits, ..Settings::default() }, Vec::new())
}

/// A room in which a hook names users.
fn with_hook(limits: Limits) -> Room {
    Room::new(&Settings { limits, ..Settings::default() }, vec![HookRule::default()])
}

/// Asks, and lets the hook answer with these terms.
fn named(room: &mut Room, kind: Kind, stream: &str, terms: Terms) -> (Arc<Facts>, u64) {
    let facts = room.peer(kind, stream, &format!("q={:?}", room.now));
    let question = room.ask(&facts);
    room.answer(allow(terms));
    (facts, question)
}

fn too_many(detail: &'static str) -> Result<(), CloseReason> {
    Err(refused(Reason::ConcurrencyLimit, detail))
}

fn is_full(verdict: &Verdict, detail: &'static str) -> bool {
    why(verdict) == refused(Reason::ConcurrencyLimit, detail)
}

#[test]
fn a_shard_asks_about_players_as_soon_as_one_limit_is_on() {
    let decide = |limits: Limits| {
        let settings = Settings { limits, ..Settings::default() };
        let policy = sluicegate::admission::Policy {
            gate: Arc::new(Gate::new(&settings, &[])),
            bans: sluicegate::admission::Bans::default(),
        };
        policy.decide(std::time::Instant::now(), &request(Kind::Play, "192.0.2.1", "cam"))
    };
    assert_eq!(decide(Limits::default()), Decision::Allow, "without limits the quick path stays");
    assert_eq!(decide(Limits { sessions_per_server: 1, ..Limits::default() }), Decision::Ask);
    assert_eq!(decide(Limits { egress_bps_per_app: 1, ..Limits::default() }), Decision::Ask);
    assert_eq!(decide(Limits { duration_max: SECOND, ..Limits::default() }), Decision::Ask);
    assert_eq!(decide(Limits { publish_bps_max: 1, ..Limits::default() }), Decision::Allow, "that is for publishers");
}

#[test]
fn each_limit_holds_at_its_number_and_is_told_by_its_word() {
    let one = |set: fn(&mut Limits)| {
        let mut limits = Limits::default();
        set(&mut limits);
        room(limits)
    };
    for (mut room, detail) in [
        (one(|limits| limits.sessions_per_address = 3), "ip"),
        (one(|limits| limits.sessions_per_stream = 3), "stream"),
        (one(|limits| limits.sessions_per_app = 3), "app"),
        (one(|limits| limits.sessions_per_server = 3), "server"),
    ] {
        let first = room.peer(Kind::Play, "cam", "");
        assert!(room.verdict_on(&first).is_ok());
        for _ in 0..2 {
            assert!(room.verdict(Kind::Play, "cam", "").is_ok());
        }
        assert!(is_full(&room.verdict(Kind::Play, "cam", ""), detail));
        assert!(room.verdict(Kind::Publish, "cam", "").is_ok(), "players keep no publisher out");
        room.close(&first);
        room.close(&first);
        assert!(room.verdict(Kind::Play, "cam", "").is_ok());
        assert!(is_full(&room.verdict(Kind::Play, "cam", ""), detail), "a close counts once");
        assert_eq!(room.desk.counts().refused[&refused(Reason::ConcurrencyLimit, detail)], 2);
    }
}

#[test]
fn limits_are_for_the_one_they_name() {
    let limits = Limits { sessions_per_address: 1, ..Limits::default() };
    let mut per_address = room(limits);
    for (from, fits) in [
        ("192.0.2.1", true),
        ("192.0.2.2", true),
        ("::ffff:192.0.2.1", false),
        ("2001:db8::1", true),
        ("2001:db8::ffff:0:0:1", false),
        ("2001:db8:0:1::1", true),
    ] {
        let facts = per_address.peer_at(Kind::Play, "live/cam", "", from);
        assert_eq!(per_address.verdict_on(&facts).is_ok(), fits, "{from}");
    }
    let mut per_stream = room(Limits { sessions_per_stream: 1, ..Limits::default() });
    assert!(per_stream.verdict(Kind::Play, "a", "").is_ok());
    assert!(per_stream.verdict(Kind::Play, "b", "").is_ok());
    let mut per_app = room(Limits { sessions_per_app: 1, ..Limits::default() });
    assert!(per_app.verdict(Kind::Play, "a", "").is_ok());
    assert!(is_full(&per_app.verdict(Kind::Play, "b", ""), "app"));
    let other = per_app.peer_at(Kind::Play, "vod/a", "", "192.0.2.1");
    assert!(per_app.verdict_on(&other).is_ok());
}

#[test]
fn a_user_is_counted_over_all_streams_and_the_back_ends_number_wins() {
    let mut room = with_hook(Limits { sessions_per_user: 2, ..Limits::default() });
    for (stream, terms, expected) in [
        ("a", terms_of("ann"), Ok(())),
        ("b", terms_of("ann"), Ok(())),
        ("c", terms_of("ann"), too_many("user")),
        ("c", terms_of("bob"), Ok(())),
        ("d", limited("ann", 3, AtLimit::RejectNew), Ok(())),
        ("e", limited("ann", 3, AtLimit::RejectNew), too_many("user")),
        ("f", limited("bob", 1, AtLimit::RejectNew), too_many("user")),
        ("g", limited("bob", 0, AtLimit::RejectNew), too_many("user")),
        ("h", limited("eve", 0, AtLimit::EvictOldest), too_many("user")),
        ("i", Terms { sessions_max: Some(0), ..Terms::default() }, too_many("user")),
    ] {
        let (_, question) = named(&mut room, Kind::Play, stream, terms);
        assert_eq!(room.said(question), Some(expected), "{stream}");
        room.wait(SECOND);
    }
}

#[test]
fn who_may_have_no_session_ends_nobody_elses() {
    let mut room = with_hook(Limits::default());
    named(&mut room, Kind::Play, "a", terms_of("ann"));
    room.wait(SECOND);
    let (_, question) = named(&mut room, Kind::Play, "b", limited("ann", 0, AtLimit::EvictOldest));
    assert_eq!(room.said(question), Some(too_many("user")));
    assert_eq!(room.ends, []);
}

#[test]
fn sessions_with_the_same_token_are_counted() {
    let mut room = with_hook(Limits { sessions_per_token: 2, ..Limits::default() });
    let peers: Vec<Arc<Facts>> = (0..4).map(|_| room.peer(Kind::Play, "cam", "t=1")).collect();
    let questions: Vec<u64> = peers.iter().map(|facts| room.ask(facts)).collect();
    room.answer(allow(Terms::default()));
    let said: Vec<_> = questions.iter().map(|question| room.said(*question)).collect();
    assert_eq!(
        said,
        [Some(Ok(())), Some(Ok(())), Some(too_many("token")), Some(too_many("token"))],
        "in the order they came"
    );
}

#[test]
fn an_encoder_that_comes_back_is_not_one_too_many() {
    let limits = Limits { sessions_per_address: 1, sessions_per_server: 1, ..Limits::default() };
    let mut room = room(limits);
    let old = room.peer(Kind::Publish, "cam", "");
    assert!(room.verdict_on(&old).is_ok());
    let back = room.peer(Kind::Publish, "cam", "");
    assert!(room.verdict_on(&back).is_ok(), "it replaces the one that hangs, or the registry refuses it");
    assert!(is_full(&room.verdict(Kind::Publish, "cam2", ""), "ip"));
    room.close(&old);
    assert!(is_full(&room.verdict(Kind::Publish, "cam2", ""), "ip"));
    room.close(&back);
    assert!(room.verdict(Kind::Publish, "cam2", "").is_ok());
}

#[test]
fn the_oldest_goes_and_the_newcomer_enters_when_it_is_gone() {
    let limits = Limits { sessions_per_stream: 2, at_limit: AtLimit::EvictOldest, ..Limits::default() };
    let mut room = room(limits);
    let old: Vec<Arc<Facts>> = (0..2).map(|_| room.peer(Kind::Play, "cam", "")).collect();
    for facts in &old {
        assert!(room.verdict_on(facts).is_ok());
    }
    let (first, second) = (room.peer(Kind::Play, "cam", ""), room.peer(Kind::Play, "cam", ""));
    let questions = [room.ask(&first), room.ask(&second)];
    let evicted = refused(Reason::ConcurrencyLimit, "stream");
    assert_eq!(room.ends, [(old[0].id, evicted), (old[1].id, evicted)], "one for each newcomer, the oldest first");
    assert_eq!(questions.map(|question| room.said(question)), [None, None]);
    let third = room.verdict(Kind::Play, "cam", "");
    assert!(is_full(&third, "stream"), "nobody is left to evict");
    room.close(&old[1]);
    assert_eq!(questions.map(|question| room.said(question)), [None, Some(Ok(()))], "the seat was promised");
    room.close(&old[0]);
    assert_eq!(questions.map(|question| room.said(question)), [Some(Ok(())), Some(Ok(()))]);
    for facts in [&first, &second] {
        room.close(facts);
    }
    assert_eq!(room.desk.held(), sluicegate::admission::Held { seats_are_free: true, ..Default::default() });
}

#[test]
fn a_newcomer_does_not_wait_for_ever_and_may_leave_while_it_waits() {
    let limits = Limits { sessions_per_server: 1, at_limit: AtLimit::EvictOldest, ..Limits::default() };
    let mut room = room(limits);
    let old = room.peer(Kind::Play, "cam", "");
    assert!(room.verdict_on(&old).is_ok());
    let newcomer = room.peer(Kind::Play, "cam", "");
    let question = room.ask(&newcomer);
    room.wait(shortly_before(SECOND * 5));
    assert_eq!(room.said(question), None);
    room.wait(Duration::from_millis(1));
    assert_eq!(room.said(question), Some(too_many("evict_timeout")));
    room.close(&old);
    let next = room.peer(Kind::Play, "cam", "");
    assert!(room.verdict_on(&next).is_ok(), "the seat is free for whoever comes");

    let leaver = room.peer(Kind::Play, "cam", "");
    let question = room.ask(&leaver);
    room.close(&leaver);
    room.close(&next);
    assert_eq!(room.said(question), None, "nobody is there to be answered");
    assert_eq!(room.desk.held(), sluicegate::admission::Held { seats_are_free: true, ..Default::default() });
}

#[test]
fn nobody_is_ended_for_a_publisher_that_is_a_duplicate() {
    let mut room = with_hook(Limits { sessions_per_user: 1, at_limit: AtLimit::EvictOldest, ..Limits::default() });
    let (first, question) = named(&mut room, Kind::Publish, "a", terms_of("ann"));
    assert_eq!(room.said(question), Some(Ok(())));
    room.wait(SECOND);
    room.rates.taken = true;
    let (_, question) = named(&mut room, Kind::Publish, "b", terms_of("ann"));
    assert_eq!(room.said(question), Some(Err(Reason::DuplicatePublish.into())));
    assert_eq!(room.ends, []);
    room.wait(SECOND);
    room.rates.taken = false;
    named(&mut room, Kind::Publish, "c", terms_of("ann"));
    assert_eq!(room.ends, [(first.id, refused(Reason::ConcurrencyLimit, "user"))]);
}

#[test]
fn two_limits_may_each_need_an_end() {
    let limits =
        Limits { sessions_per_stream: 1, sessions_per_server: 2, at_limit: AtLimit::EvictOldest, ..Limits::default() };
    let mut room = room(limits);
    let (other, same) = (room.peer(Kind::Play, "other", ""), room.peer(Kind::Play, "cam", ""));
    assert!(room.verdict_on(&other).is_ok() && room.verdict_on(&same).is_ok());
    let newcomer = room.peer(Kind::Play, "cam", "");
    let question = room.ask(&newcomer);
    assert_eq!(room.ends.len(), 1);
    let sneaked = room.peer(Kind::Play, "third", "");
    room.ask(&sneaked);
    assert_eq!(room.ends.len(), 2, "the server is full as well");
    room.close(&same);
    assert_eq!(room.said(question), Some(Ok(())));
    room.close(&other);
    assert_eq!(room.desk.held().sessions, 2);
}

#[test]
fn a_back_end_lets_its_users_oldest_go_and_nobody_elses() {
    let mut room = with_hook(Limits { sessions_per_server: 2, ..Limits::default() });
    let evicting = |user| limited(user, 1, AtLimit::EvictOldest);
    let (bob, question) = named(&mut room, Kind::Play, "a", evicting("bob"));
    assert_eq!(room.said(question), Some(Ok(())));
    let (ann, question) = named(&mut room, Kind::Play, "b", evicting("ann"));
    assert_eq!(room.said(question), Some(Ok(())));
    let (_, question) = named(&mut room, Kind::Play, "c", evicting("cid"));
    assert_eq!(room.said(question), Some(too_many("server")), "that limit is ours, and ours says reject");
    let (_, question) = named(&mut room, Kind::Play, "d", evicting("ann"));
    assert_eq!(room.ends, [(ann.id, refused(Reason::ConcurrencyLimit, "user"))]);
    room.close(&bob);
    assert_eq!(room.said(question), None, "it waits for the seat it was promised");
    room.close(&ann);
    assert_eq!(room.said(question), Some(Ok(())));
}

#[test]
fn a_renamed_stream_is_counted_where_it_is() {
    let mut room = with_hook(Limits { sessions_per_stream: 1, ..Limits::default() });
    let to = |name: &str| Terms { stream: Some(sluicegate::names::Name::stream(name).unwrap()), ..Terms::default() };
    let (_, question) = named(&mut room, Kind::Play, "alias1", to("cam"));
    assert_eq!(room.said(question), Some(Ok(())));
    let (_, question) = named(&mut room, Kind::Play, "alias2", to("cam"));
    assert_eq!(room.said(question), Some(too_many("stream")));
}

#[test]
fn egress_is_admitted_by_what_is_expected_and_nobody_who_plays_is_touched() {
    let limits = Limits { egress_bps_per_stream: 10_000_000, ..Limits::default() };
    let mut room = room(limits);
    room.rates.streams.insert("default/live/cam".into(), 3_000_000);
    let peers: Vec<Arc<Facts>> = (0..4).map(|_| room.peer(Kind::Play, "cam", "")).collect();
    let said: Vec<bool> = peers.iter().map(|facts| room.verdict_on(facts).is_ok()).collect();
    assert_eq!(said, [true, true, true, false], "a burst is counted before it is measured");
    let refusal = room.verdict(Kind::Play, "cam", "");
    assert_eq!(why(&refusal), refused(Reason::LimitExceeded, "admission.limits.egress_bps_per_stream"));
    assert!(room.verdict(Kind::Play, "other", "").is_ok(), "4 Mbit/s are expected of a stream that nobody measured");

    // By now the three are measured, and take less than expected.
    room.wait(SECOND * 5);
    room.rates.egress.insert("default/live/cam".into(), 6_000_000);
    let fourth = room.peer(Kind::Play, "cam", "");
    assert!(room.verdict_on(&fourth).is_ok());
    assert!(room.verdict(Kind::Play, "cam", "").is_err());
    // One that leaves before it was measured is not expected any more.
    room.close(&fourth);
    assert!(room.verdict(Kind::Play, "cam", "").is_ok());
    // However much is sent, nobody is ended for it.
    room.rates.egress.insert("default/live/cam".into(), 60_000_000);
    room.wait(SECOND * 100);
    assert_eq!(room.ends, []);
    assert!(room.verdict(Kind::Play, "cam", "").is_err());
    assert!(room.verdict(Kind::Publish, "cam", "").is_ok());
}

#[test]
fn a_player_is_expected_to_take_something_only_until_it_is_measured() {
    let limits = Limits { egress_bps_per_stream: 1_000_000, ..Limits::default() };
    let mut room = room(limits);
    room.rates.streams.insert("default/live/cam".into(), 220_000);
    for number in 1..=4 {
        let facts = room.peer(Kind::Play, "cam", "");
        assert!(room.verdict_on(&facts).is_ok(), "player {number}, one a second");
        room.wait(SECOND);
        room.rates.egress.insert("default/live/cam".into(), number * 220_000);
        assert!(room.desk.handle_counted(facts.id, &room.rates));
        assert!(!room.desk.is_unmeasured(facts.id));
    }
    assert!(room.verdict(Kind::Play, "cam", "").is_err(), "a fifth is too much");
    // What a stream brings that nobody has measured is expected as before.
    let facts = room.peer(Kind::Play, "new", "");
    let limits = Limits { egress_bps_per_stream: 1_000_000, egress_bps_expected: 600_000, ..Limits::default() };
    let mut room = self::room(limits);
    assert!(room.verdict_on(&facts).is_ok());
    assert!(!room.desk.handle_counted(facts.id, &room.rates));
    assert!(room.verdict(Kind::Play, "new", "").is_err());
    room.rates.streams.insert("default/live/new".into(), 200_000);
    room.rates.egress.insert("default/live/new".into(), 200_000);
    assert!(room.desk.handle_counted(facts.id, &room.rates));
    assert!(room.verdict(Kind::Play, "new", "").is_ok());
    room.close(&facts);
    assert!(room.desk.handle_counted(facts.id, &room.rates), "it has gone");
}

#[test]
fn egress_is_limited_for_a_stream_an_app_and_the_server() {
    let of = |stream, app, server| Limits {
        egress_bps_per_stream: stream,
        egress_bps_per_app: app,
        egress_bps_per_server: server,
        egress_bps_expected: 1_000,
        ..Limits::default()
    };
    for (limits, expected) in [
        (of(2_000, 0, 0), [true, true, false, true, true]),
        (of(0, 3_000, 0), [true, true, true, false, true]),
        (of(0, 0, 3_000), [true, true, true, false, false]),
    ] {
        let mut room = room(limits);
        let paths = ["live/a", "live/a", "live/a", "live/b", "vod/a"];
        let said = paths.map(|path| {
            let facts = room.peer_at(Kind::Play, path, "", "192.0.2.1");
            room.verdict_on(&facts).is_ok()
        });
        assert_eq!(said, expected);
    }
}

#[test]
fn egress_is_summed_only_where_it_is_limited() {
    for (limits, summed) in [
        (Limits { sessions_per_server: 9, ..Limits::default() }, vec![]),
        (Limits { egress_bps_per_stream: 1 << 40, ..Limits::default() }, vec!["default/live/cam"]),
        (Limits { egress_bps_per_app: 1 << 40, ..Limits::default() }, vec!["default/live"]),
        (Limits { egress_bps_per_server: 1 << 40, ..Limits::default() }, vec![""]),
    ] {
        let mut room = room(limits);
        assert!(room.verdict(Kind::Play, "cam", "").is_ok());
        assert_eq!(*room.rates.asked.borrow(), summed);
    }
}

#[test]
fn a_session_that_asks_twice_takes_one_seat() {
    let mut room = room(Limits { sessions_per_server: 1, ..Limits::default() });
    let facts = room.peer(Kind::Play, "cam", "");
    assert!(room.verdict_on(&facts).is_ok());
    assert!(room.verdict_on(&facts).is_ok());
    room.close(&facts);
    assert!(room.verdict(Kind::Play, "cam", "").is_ok());
}

#[test]
fn trusted_addresses_need_no_token_and_are_counted() {
    let rule = sluicegate::admission::settings::AddressRule {
        effect: sluicegate::admission::settings::Effect::Trust,
        networks: vec!["192.0.2.0/24".parse().unwrap()],
        listener: None,
        apps: Vec::new(),
        kinds: Vec::new(),
    };
    let limits = Limits { sessions_per_server: 1, ..Limits::default() };
    let settings = Settings { rules: vec![rule], limits, ..Settings::default() };
    let mut room = Room::new(&settings, vec![HookRule::default()]);
    assert!(room.verdict(Kind::Play, "cam", "").is_ok());
    assert!(is_full(&room.verdict(Kind::Play, "cam", ""), "server"));
    assert!(room.asks.is_empty());
}

#[test]
fn who_is_refused_by_a_limit_is_named() {
    let limits = Limits { sessions_per_user: 1, ..Limits::default() };
    let mut room = with_hook(limits);
    let labels: sluicegate::session::Labels = vec![("plan".into(), "free".into())].into();
    let terms = || Terms { user: Some("bob".into()), labels: labels.clone(), ..Terms::default() };
    named(&mut room, Kind::Play, "cam", terms());
    room.wait(SECOND);
    let (_, question) = named(&mut room, Kind::Play, "cam", terms());
    let refusal = room.verdicts[&question].as_ref().unwrap_err();
    assert_eq!((refusal.reason.reason, refusal.user.as_deref()), (Reason::ConcurrencyLimit, Some("bob")));
    assert_eq!(refusal.labels, labels);
}
