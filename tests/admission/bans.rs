//! Who must not come back yet.

use std::time::{Duration, Instant};

use sluicegate::admission::{Ban, Bans, Whom};
use sluicegate::names::Kind;

use crate::support::{address, request, stream_key};

const SECOND: Duration = Duration::from_secs(1);

fn ban(from: &str, stream: &str, until: Instant) -> Ban {
    Ban { whom: Whom::exactly(address(from), Kind::Play, stream_key(stream)), until }
}

#[test]
fn a_ban_holds_for_that_address_role_and_stream_and_no_other() {
    let now = Instant::now();
    let mut bans = Bans::new(10);
    bans.insert(now, ban("192.0.2.1", "cam", now + SECOND));
    assert!(bans.is_banned(now, &request(Kind::Play, "192.0.2.1", "cam")));
    assert!(!bans.is_banned(now, &request(Kind::Publish, "192.0.2.1", "cam")));
    assert!(!bans.is_banned(now, &request(Kind::Play, "192.0.2.2", "cam")));
    assert!(!bans.is_banned(now, &request(Kind::Play, "192.0.2.1", "cam2")));
}

#[test]
fn a_peer_does_not_escape_by_another_port_or_query() {
    let now = Instant::now();
    let mut bans = Bans::new(10);
    bans.insert(now, ban("192.0.2.1", "cam", now + SECOND));
    let mut again = request(Kind::Play, "192.0.2.1", "cam");
    again.remote.set_port(1);
    again.query = Some("token=fresh".into());
    assert!(bans.is_banned(now, &again));
}

#[test]
fn an_ipv4_address_is_the_same_peer_written_as_ipv6() {
    let now = Instant::now();
    let (plain, mapped) = ("192.0.2.1", "::ffff:192.0.2.1");
    for (banned, comes_as) in [(plain, mapped), (mapped, plain), (mapped, mapped)] {
        let mut bans = Bans::new(10);
        bans.insert(now, ban(banned, "cam", now + SECOND));
        assert!(bans.is_banned(now, &request(Kind::Play, comes_as, "cam")), "{banned} as {comes_as}");
        bans.remove(&Whom::exactly(address(comes_as), Kind::Play, stream_key("cam")));
        assert!(bans.is_empty(), "{banned} lifted as {comes_as}");
    }
    // `::192.0.2.1` is an address of its own, whatever it looks like.
    let mut bans = Bans::new(10);
    bans.insert(now, ban(plain, "cam", now + SECOND));
    assert!(!bans.is_banned(now, &request(Kind::Play, "::192.0.2.1", "cam")));
}

#[test]
fn a_ban_ends_at_its_instant() {
    let now = Instant::now();
    let mut bans = Bans::new(10);
    bans.insert(now, ban("192.0.2.1", "cam", now + SECOND));
    let comes = request(Kind::Play, "192.0.2.1", "cam");
    assert!(bans.is_banned(now + Duration::from_nanos(999_999_999), &comes));
    assert!(!bans.is_banned(now + SECOND, &comes), "even before it is forgotten");
    assert_eq!(bans.len(), 1);
    bans.expire(now + SECOND);
    assert!(bans.is_empty());
}

#[test]
fn a_ban_is_extended_and_never_shortened_by_another() {
    let now = Instant::now();
    let mut bans = Bans::new(10);
    let comes = request(Kind::Play, "192.0.2.1", "cam");
    for seconds in [10, 60, 5] {
        bans.insert(now, ban("192.0.2.1", "cam", now + SECOND * seconds));
    }
    assert_eq!(bans.len(), 1);
    bans.expire(now + SECOND * 59);
    assert!(bans.is_banned(now + SECOND * 59, &comes));
    bans.expire(now + SECOND * 60);
    assert!(!bans.is_banned(now + SECOND * 60, &comes));
    assert!(bans.is_empty());
}

#[test]
fn a_ban_that_has_already_ended_is_not_held() {
    let now = Instant::now();
    let mut bans = Bans::new(10);
    bans.insert(now, ban("192.0.2.1", "cam", now));
    assert!(bans.is_empty());
}

#[test]
fn a_ban_is_lifted_once_and_only_that_one() {
    let now = Instant::now();
    let mut bans = Bans::new(10);
    bans.insert(now, ban("192.0.2.1", "cam", now + SECOND));
    bans.insert(now, ban("192.0.2.2", "cam", now + SECOND));
    bans.remove(&Whom::exactly(address("192.0.2.1"), Kind::Publish, stream_key("cam")));
    assert_eq!(bans.len(), 2);
    for _ in 0..2 {
        bans.remove(&Whom::exactly(address("192.0.2.1"), Kind::Play, stream_key("cam")));
        assert_eq!(bans.len(), 1);
    }
    assert!(!bans.is_banned(now, &request(Kind::Play, "192.0.2.1", "cam")));
    assert!(bans.is_banned(now, &request(Kind::Play, "192.0.2.2", "cam")));
}

#[test]
fn at_the_limit_the_ban_that_ends_first_leaves() {
    let now = Instant::now();
    let mut bans = Bans::new(3);
    for (from, seconds) in [("192.0.2.1", 30), ("192.0.2.2", 10), ("192.0.2.3", 20)] {
        bans.insert(now, ban(from, "cam", now + SECOND * seconds));
    }
    let banned = |bans: &Bans| -> Vec<u8> {
        (1..=5).filter(|last| bans.is_banned(now, &request(Kind::Play, &format!("192.0.2.{last}"), "cam"))).collect()
    };
    assert_eq!(banned(&bans), [1, 2, 3]);
    bans.insert(now, ban("192.0.2.4", "cam", now + SECOND * 40));
    assert_eq!(banned(&bans), [1, 3, 4]);
    bans.insert(now, ban("192.0.2.5", "cam", now + SECOND));
    assert_eq!(banned(&bans), [1, 4, 5], "an order just given takes effect, however short");
    bans.insert(now, ban("192.0.2.1", "cam", now + SECOND * 50));
    assert_eq!(banned(&bans), [1, 4, 5], "extending one takes no place");
    assert_eq!(bans.len(), 3);
}

#[test]
fn bans_without_room_hold_none() {
    let now = Instant::now();
    let mut bans = Bans::new(0);
    bans.insert(now, ban("192.0.2.1", "cam", now + SECOND));
    assert!(bans.is_empty());
    assert!(!bans.is_banned(now, &request(Kind::Play, "192.0.2.1", "cam")));
}

#[test]
fn forgetting_is_bounded_in_each_call_and_complete_in_the_end() {
    let now = Instant::now();
    let mut bans = Bans::new(10_000);
    for last in 0..1_000_u32 {
        let from = std::net::Ipv4Addr::from(0xc612_0000 + last).to_string();
        bans.insert(now, ban(&from, "cam", now + SECOND));
    }
    bans.insert(now, ban("192.0.2.1", "cam", now + SECOND * 100));
    let later = now + SECOND * 2;
    bans.expire(later);
    assert!((500..1_001).contains(&bans.len()), "one call did {} of 1000", 1_001 - bans.len());
    for _ in 0..10 {
        bans.expire(later);
    }
    assert_eq!(bans.len(), 1, "what is in force stays");
}
