use std::sync::Arc;

use super::*;

const OFF: Limits = Limits {
    connections_per_ip: 0,
    unauthenticated_per_ip: 0,
    accept_rate_per_ip: 0,
    auth_failures_per_ip: 0,
    table: 1_024,
    unauthenticated: 0,
};

fn peer(text: &str) -> SocketAddr {
    format!("{text}:5000").parse().unwrap()
}

fn numbered(n: u32) -> SocketAddr {
    SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0a00_0000 + n), 5_000))
}

fn detail(result: Result<Entered, CloseReason>) -> String {
    result.expect_err("a refusal").to_string()
}

#[test]
fn limits_connections_per_ip_are_counted_and_given_back() {
    let now = Instant::now();
    let sources = Sources::new(Limits { connections_per_ip: 2, ..OFF }, now);
    let one = sources.enter(now, peer("192.0.2.1")).unwrap();
    sources.step(one.place, true);
    let two = sources.enter(now, peer("192.0.2.1")).unwrap();
    assert_eq!(detail(sources.enter(now, peer("192.0.2.1"))), "concurrency_limit:ip");
    // The same peer as a dual-stack listener sees it, and a neighbour.
    assert_eq!(detail(sources.enter(now, peer("[::ffff:192.0.2.1]"))), "concurrency_limit:ip");
    sources.enter(now, peer("192.0.2.2")).unwrap();
    sources.leave(one.place, true);
    sources.enter(now, peer("192.0.2.1")).unwrap();
    sources.leave(two.place, false);
    sources.enter(now, peer("192.0.2.1")).unwrap();
}

#[test]
fn limits_unauthenticated_per_ip_are_strangers_of_one_source_and_an_ipv6_customer_is_one() {
    let now = Instant::now();
    let sources = Sources::new(Limits { unauthenticated_per_ip: 1, ..OFF }, now);
    let one = sources.enter(now, peer("[2001:db8:0:7::1]")).unwrap();
    assert_eq!(detail(sources.enter(now, peer("[2001:db8:0:7:ffff::2]"))), "concurrency_limit:ip");
    sources.enter(now, peer("[2001:db8:0:8::1]")).unwrap();
    sources.step(one.place, true);
    let two = sources.enter(now, peer("[2001:db8:0:7::2]")).unwrap();
    // What was admitted and is a stranger again counts again.
    sources.leave(two.place, false);
    sources.step(one.place, false);
    assert_eq!(detail(sources.enter(now, peer("[2001:db8:0:7::3]"))), "concurrency_limit:ip");
    sources.leave(one.place, false);
    sources.enter(now, peer("[2001:db8:0:7::3]")).unwrap();
    assert_eq!(sources.strangers(), 2);
    // Loopback and IPv4 are nobody's prefix.
    sources.enter(now, peer("[::1]")).unwrap();
    sources.enter(now, peer("0.0.0.1")).unwrap();
}

#[test]
fn limits_accept_rate_per_ip_passes_a_burst_and_then_the_rate() {
    let start = Instant::now();
    let sources = Sources::new(Limits { accept_rate_per_ip: 200, ..OFF }, start);
    let passed = |now: Instant, from: &str| {
        let entered: Vec<_> = (0..1_000).filter_map(|_| sources.enter(now, peer(from)).ok()).collect();
        for one in &entered {
            sources.leave(one.place, false);
        }
        entered.len()
    };
    assert_eq!(passed(start, "192.0.2.1"), 400);
    assert_eq!(detail(sources.enter(start, peer("192.0.2.1"))), "limit_exceeded:accept_rate_per_ip");
    assert_eq!(passed(start, "192.0.2.2"), 400, "another source paid for it");
    assert_eq!(passed(start + Duration::from_secs(1), "192.0.2.1"), 200);
    assert_eq!(sources.strangers(), 0);
}

#[test]
fn limits_auth_failures_per_ip_refuse_for_a_minute_without_being_asked() {
    let start = Instant::now();
    let sources = Sources::new(Limits { auth_failures_per_ip: 10, ..OFF }, start);
    let bad = peer("192.0.2.1");
    for _ in 0..20 {
        sources.note_failure(start, bad);
        assert!(!sources.is_refused(start, bad));
    }
    sources.note_failure(start, bad);
    assert!(sources.is_refused(start, bad));
    assert!(!sources.is_refused(start, peer("192.0.2.2")));
    assert!(sources.is_refused(start + Duration::from_secs(59), bad));
    let later = start + Duration::from_mins(1);
    assert!(!sources.is_refused(later, bad));
    // A minute has forgiven ten.
    for _ in 0..10 {
        sources.note_failure(later, bad);
    }
    assert!(!sources.is_refused(later, bad));
    sources.note_failure(later, bad);
    assert!(sources.is_refused(later, bad));
}

#[test]
fn limits_auth_failures_that_come_slowly_refuse_nobody() {
    let start = Instant::now();
    let sources = Sources::new(Limits { auth_failures_per_ip: 10, ..OFF }, start);
    for n in 0..1_000 {
        let now = start + Duration::from_secs(6) * n;
        sources.note_failure(now, peer("192.0.2.1"));
        assert!(!sources.is_refused(now, peer("192.0.2.1")));
    }
}

#[test]
fn limits_source_table_forgets_who_was_not_seen_for_longest_and_nobody_with_connections() {
    let start = Instant::now();
    let sources = Sources::new(Limits { connections_per_ip: 1, auth_failures_per_ip: 1, table: 64, ..OFF }, start);
    let stays = sources.enter(start, peer("192.0.2.1")).unwrap();
    for n in 0..3 {
        sources.note_failure(start + Duration::from_secs(n), peer("192.0.2.2"));
    }
    let mut now = start + Duration::from_secs(5);
    assert!(sources.is_refused(now, peer("192.0.2.2")));
    for n in 0..10_000 {
        now += Duration::from_micros(1);
        let one = sources.enter(now, numbered(n)).unwrap();
        sources.leave(one.place, false);
    }
    assert!(sources.forgotten() > 9_000, "{}", sources.forgotten());
    assert!(!sources.is_refused(now, peer("192.0.2.2")), "an old source is still known");
    assert_eq!(detail(sources.enter(now, peer("192.0.2.1"))), "concurrency_limit:ip");
    sources.leave(stays.place, false);
    sources.enter(now, peer("192.0.2.1")).unwrap();
}

#[test]
fn limits_source_table_that_is_full_of_connections_lets_newcomers_in_uncounted() {
    let now = Instant::now();
    let sources = Sources::new(Limits { connections_per_ip: 1, table: 8, unauthenticated: 9, ..OFF }, now);
    let all: Vec<_> = (0..10).map(|n| sources.enter(now, numbered(n)).unwrap()).collect();
    assert_eq!(all.iter().filter(|one| one.place == NOWHERE).count(), 2);
    // They still count among all.
    assert_eq!(sources.strangers(), 10);
    assert_eq!(all.iter().filter(|one| one.is_crowded).count(), 1);
    for one in all {
        sources.leave(one.place, false);
    }
    assert_eq!(sources.strangers(), 0);
}

#[test]
fn limits_unauthenticated_says_when_there_are_too_many() {
    let now = Instant::now();
    let sources = Sources::new(Limits { unauthenticated: 2, ..OFF }, now);
    let one = sources.enter(now, numbered(1)).unwrap();
    assert!(!one.is_crowded && !sources.enter(now, numbered(2)).unwrap().is_crowded);
    assert!(sources.enter(now, numbered(3)).unwrap().is_crowded);
    sources.step(one.place, true);
    assert_eq!(sources.strangers(), 2);
}

#[test]
fn counts_are_exact_however_many_shards_count_at_once() {
    let now = Instant::now();
    let limits = Limits { connections_per_ip: 1_000, table: 16, ..OFF };
    let sources = Arc::new(Sources::new(limits, now));
    let shards: Vec<_> = (0..4)
        .map(|shard| {
            let sources = Arc::clone(&sources);
            std::thread::spawn(move || {
                // Few sources in a small table: entries change hands all the time.
                let mut kept = Vec::new();
                for n in 0..20_000_u32 {
                    let at = now + Duration::from_micros(u64::from(n));
                    let one = sources.enter(at, numbered((n * 7 + shard) % 40)).unwrap();
                    if n % 16 == 0 && kept.len() < 200 {
                        kept.push(one.place);
                    } else {
                        sources.leave(one.place, false);
                    }
                }
                for place in kept {
                    sources.leave(place, false);
                }
            })
        })
        .collect();
    for shard in shards {
        shard.join().unwrap();
    }
    assert_eq!(sources.strangers(), 0);
    let left: u64 =
        sources.buckets.iter().flat_map(|bucket| &bucket.entries).map(|it| it.counts.load(Ordering::SeqCst)).sum();
    assert_eq!(left, 0, "a connection is counted that has left");
    let mut owners: Vec<u64> =
        sources.buckets.iter().flat_map(|bucket| &bucket.entries).map(|it| it.owner.load(Ordering::SeqCst)).collect();
    owners.retain(|owner| *owner != 0);
    let known = owners.len();
    owners.sort_unstable();
    owners.dedup();
    assert_eq!(owners.len(), known, "a source is known twice");
}

#[test]
fn a_limit_holds_exactly_however_many_shards_count_at_once() {
    let now = Instant::now();
    for round in 0..200 {
        // Nobody knows the source yet: the first instant counts too.
        let sources = Arc::new(Sources::new(Limits { connections_per_ip: 100, ..OFF }, now));
        let shards: Vec<_> = (0..4)
            .map(|_| {
                let sources = Arc::clone(&sources);
                std::thread::spawn(move || (0..60).filter(|_| sources.enter(now, numbered(round)).is_ok()).count())
            })
            .collect();
        let let_in: usize = shards.into_iter().map(|shard| shard.join().unwrap()).sum();
        assert_eq!(let_in, 100);
    }
}

#[test]
fn new_sources_of_one_bucket_are_known_once_each_whoever_brings_them() {
    let now = Instant::now();
    let ways = u32::try_from(WAYS).unwrap();
    for _ in 0..500 {
        let sources = Arc::new(Sources::new(Limits { connections_per_ip: 1, table: WAYS, ..OFF }, now));
        let shards: Vec<_> = (0..4_u32)
            .map(|shard| {
                let sources = Arc::clone(&sources);
                std::thread::spawn(move || {
                    let mine = (0..ways).map(|n| numbered((n + shard * 2) % ways));
                    mine.filter(|one| sources.enter(now, *one).is_ok()).count()
                })
            })
            .collect();
        let let_in: usize = shards.into_iter().map(|shard| shard.join().unwrap()).sum();
        assert_eq!(let_in, WAYS);
        assert_eq!(sources.forgotten(), 0);
    }
}
