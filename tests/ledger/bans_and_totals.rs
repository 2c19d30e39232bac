//! What outlives every session: bans, and the sums.

use std::collections::BTreeMap;

use sluicegate::admission::Whom;
use sluicegate::ledger::StoredBan;
use sluicegate::names::{Kind, StreamKey};
use sluicegate::session::What;
use sluicegate::stdx::ids::SplitMix;

use crate::support::*;

fn cam() -> StreamKey {
    StreamKey::new(&name("default"), &name("live"), &name("cam"))
}

fn ban(address: &str, kind: Option<Kind>, key: Option<StreamKey>, ms: u64) -> StoredBan {
    StoredBan { whom: Whom { address: address.parse().unwrap(), kind, key }, until_unix_ms: NOON_MS + ms }
}

#[test]
fn bans_outlive_the_process_until_they_end_or_are_lifted() {
    let folder = folder();
    let bed = Bed::new(&settings(folder.path()));
    let on_cam = |address: &str, kind, ms| ban(address, Some(kind), Some(cam()), ms);
    bed.ledger.ban(on_cam("192.0.2.1", Kind::Publish, 1_000));
    bed.ledger.ban(on_cam("192.0.2.1", Kind::Publish, 90_000));
    bed.ledger.ban(on_cam("::ffff:192.0.2.2", Kind::Play, 90_000));
    bed.ledger.ban(on_cam("192.0.2.3", Kind::Play, 90_000));
    bed.ledger.ban(ban("192.0.2.3", None, None, 90_000));
    bed.ledger.ban(ban("2001:db8::4", Some(Kind::Play), None, 2_000));
    bed.ledger.unban(&on_cam("192.0.2.3", Kind::Play, 0).whom);
    bed.stop();
    let long = vec![
        on_cam("192.0.2.1", Kind::Publish, 90_000),
        on_cam("192.0.2.2", Kind::Play, 90_000),
        ban("192.0.2.3", None, None, 90_000),
    ];
    let mut short = long.clone();
    short.push(ban("2001:db8::4", Some(Kind::Play), None, 2_000));
    for (now, expected) in [(1_000, short), (3_000, long), (90_000, vec![])] {
        let (opened, _) = open(&settings(folder.path()), NOON_MS + now);
        assert_eq!(opened.bans(), expected, "{now} ms later");
    }
}

#[test]
fn a_shorter_ban_does_not_cut_a_longer_one_of_the_same_peer() {
    let folder = folder();
    let bed = Bed::new(&settings(folder.path()));
    for ms in [90_000, 1_000] {
        bed.ledger.ban(ban("192.0.2.1", None, None, ms));
    }
    // One that was lifted is gone, and the next is as long as it says.
    for ms in [90_000, 1_000] {
        bed.ledger.ban(ban("192.0.2.2", None, None, ms));
        if ms == 90_000 {
            bed.ledger.unban(&ban("192.0.2.2", None, None, 0).whom);
        }
    }
    bed.stop();
    let (opened, _) = open(&settings(folder.path()), NOON_MS);
    assert_eq!(opened.bans(), [ban("192.0.2.1", None, None, 90_000), ban("192.0.2.2", None, None, 1_000)]);
}

#[test]
fn sums_are_exact_over_kinds_batches_and_starts() {
    let folder = folder();
    let mut random = SplitMix::new(11);
    let mut expected: BTreeMap<(String, Kind), (u64, u64, u64)> = BTreeMap::new();
    for life in 0..4_u64 {
        let mut bed = Bed::at(&settings(folder.path()), NOON_MS + life * DAY_MS / 3);
        for n in 0..300 {
            let kind = Kind::ALL[usize::try_from(random.below(4)).unwrap()];
            let facts = bed.facts(life * 1_000 + n, kind, n);
            let (rx, tx) = (random.below(1 << 40), random.below(1 << 40));
            let starts = random.below(5) > 0;
            bed.happens(&facts, 1, n, What::Opened);
            if starts {
                bed.happens(&facts, 2, n, What::Started);
                let sum = expected.entry(("rtmp".into(), kind)).or_default();
                *sum = (sum.0 + 1, sum.1 + rx, sum.2 + tx);
            }
            bed.happens(&facts, 3, n, What::Closed(done(), bytes(rx, tx)));
        }
        bed.settle();
        bed.stop();
        let (opened, _) = open(&settings(folder.path()), NOON_MS + life * DAY_MS / 3);
        let totals = opened.totals();
        let found: BTreeMap<_, _> =
            totals.into_iter().map(|(key, sum)| (key, (sum.sessions, sum.rx_bytes, sum.tx_bytes))).collect();
        assert_eq!(found, expected, "after life {life}");
    }
}
