//! What a shard decides by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::admission::{Access, Ban, Bans, Decision, Gate, Policy, Settings, Whom};
use sluicegate::names::Kind;
use sluicegate::session::{CloseReason, Reason, Side};

use crate::support::{address, request, stream_key};

fn policy(publish: Access, play: Access) -> Policy {
    let settings = Settings { publish, play, ..Settings::default() };
    Policy { gate: Arc::new(Gate::new(&settings, &[])), bans: Bans::default() }
}

fn decide(policy: &Policy, kind: Kind, from: &str) -> Decision {
    policy.decide(Instant::now(), &request(kind, from, "cam"))
}

fn refusal(reason: Reason, setting: &'static str) -> Decision {
    Decision::Deny(CloseReason::with(reason, setting))
}

#[test]
fn each_role_obeys_its_own_setting() {
    let only_play = policy(Access::Deny, Access::Open);
    assert_eq!(decide(&only_play, Kind::Publish, "192.0.2.1"), refusal(Reason::AuthDenied, "admission.publish"));
    assert_eq!(decide(&only_play, Kind::Play, "192.0.2.1"), Decision::Allow);
    let only_publish = policy(Access::Open, Access::Deny);
    assert_eq!(decide(&only_publish, Kind::Publish, "192.0.2.1"), Decision::Allow);
    assert_eq!(decide(&only_publish, Kind::Play, "192.0.2.1"), refusal(Reason::AuthDenied, "admission.play"));
}

#[test]
fn without_a_word_in_the_configuration_nobody_publishes() {
    let policy = Policy { gate: Arc::new(Gate::new(&Settings::default(), &[])), bans: Bans::default() };
    assert!(matches!(decide(&policy, Kind::Publish, "127.0.0.1"), Decision::Deny(_)));
}

#[test]
fn loopback_is_recognised_in_every_spelling_and_nothing_else_is() {
    let policy = policy(Access::Loopback, Access::Loopback);
    for kind in [Kind::Publish, Kind::Play] {
        for from in ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(decide(&policy, kind, from), Decision::Allow, "{from}");
        }
        let setting = if kind == Kind::Publish { "admission.publish" } else { "admission.play" };
        for from in
            ["128.0.0.1", "126.255.255.255", "0.0.0.0", "::", "::2", "::ffff:192.0.2.1", "::127.0.0.1", "fe80::1"]
        {
            assert_eq!(decide(&policy, kind, from), refusal(Reason::IpDenied, setting), "{from}");
        }
    }
}

#[test]
fn a_ban_comes_before_the_profile_and_ends() {
    let now = Instant::now();
    let until = now + Duration::from_secs(10);
    let mut policy = policy(Access::Open, Access::Open);
    let ban = Ban { whom: Whom::exactly(address("192.0.2.1"), Kind::Play, stream_key("cam")), until };
    policy.bans.insert(now, ban);
    let comes = request(Kind::Play, "::ffff:192.0.2.1", "cam");
    assert_eq!(policy.decide(now, &comes), Decision::Deny(Reason::Banned.into()));
    assert_eq!(policy.decide(until, &comes), Decision::Allow);
    assert_eq!(policy.decide(now, &request(Kind::Publish, "192.0.2.1", "cam")), Decision::Allow);

    policy.gate = Arc::new(Gate::new(&Settings { play: Access::Deny, ..Settings::default() }, &[]));
    assert_eq!(policy.decide(now, &comes), Decision::Deny(Reason::Banned.into()), "the ban is what they are told");
}

#[test]
fn what_we_fetch_and_send_ourselves_needs_no_leave() {
    let policy = policy(Access::Deny, Access::Deny);
    for kind in [Kind::Ingest, Kind::Push] {
        assert_eq!(decide(&policy, kind, "192.0.2.1"), Decision::Allow, "{kind:?}");
    }
}

#[test]
fn every_refusal_is_of_the_policy_side() {
    for access in [Access::Loopback, Access::Deny] {
        for kind in [Kind::Publish, Kind::Play] {
            let Decision::Deny(why) = decide(&policy(access, access), kind, "192.0.2.1") else {
                panic!("{kind:?} was allowed with {access:?}");
            };
            assert_eq!(why.reason.side(), Side::Policy);
        }
    }
}

#[test]
fn a_changed_profile_turns_away_those_whom_it_would_not_let_in_any_more_and_nobody_else() {
    let settings = |publish, play| Settings { publish, play, ..Settings::default() };
    let away = |old: &Settings, new: &Settings, kind, from: &str| {
        let policy = Policy { gate: Arc::new(Gate::new(new, &[])), bans: Bans::default() };
        policy.turned_away_since(&Gate::new(old, &[]), &request(kind, from, "cam"))
    };
    let (open, local) = (settings(Access::Open, Access::Open), settings(Access::Loopback, Access::Deny));
    let changed = |setting| Some(CloseReason::with(Reason::ConfigChanged, setting));
    assert_eq!(away(&open, &local, Kind::Publish, "192.0.2.1"), changed("admission.publish"));
    assert_eq!(away(&open, &local, Kind::Publish, "127.0.0.1"), None);
    assert_eq!(away(&open, &local, Kind::Play, "127.0.0.1"), changed("admission.play"));
    assert_eq!(away(&local, &open, Kind::Play, "192.0.2.1"), None);
    // Whom the old profile did not let in is here by somebody else's leave.
    let closed = settings(Access::Deny, Access::Deny);
    assert_eq!(away(&local, &closed, Kind::Play, "192.0.2.1"), None);
    assert_eq!(away(&open, &closed, Kind::Ingest, "192.0.2.1"), None);
    assert_eq!(Reason::ConfigChanged.side(), Side::Server);
}
