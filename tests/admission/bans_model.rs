//! Random bans against a list that is searched from end to end.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluicegate::admission::{Ban, Bans, Whom};
use sluicegate::names::Kind;

use crate::support::{address, request, stream_key};

const MAX: usize = 6;

#[derive(Clone, Debug)]
enum Operation {
    Insert { who: usize, kind: Kind, stream: usize, for_ms: u64 },
    Remove { who: usize, kind: Kind, stream: usize },
    Wait { ms: u64 },
    Expire,
}

/// Four spellings of three peers.
const PEERS: [(&str, usize); 4] = [("192.0.2.1", 0), ("::ffff:192.0.2.1", 0), ("192.0.2.2", 1), ("2001:db8::1", 2)];
const STREAMS: [&str; 2] = ["cam", "cam2"];

fn operation() -> impl Strategy<Value = Operation> {
    let kind = prop::sample::select(&[Kind::Publish, Kind::Play][..]);
    let subject = (0..PEERS.len(), kind, 0..STREAMS.len());
    prop_oneof![
        5 => (subject.clone(), 0..50_u64)
            .prop_map(|((who, kind, stream), for_ms)| Operation::Insert { who, kind, stream, for_ms }),
        1 => subject.prop_map(|(who, kind, stream)| Operation::Remove { who, kind, stream }),
        2 => (0..20_u64).prop_map(|ms| Operation::Wait { ms }),
        1 => Just(Operation::Expire),
    ]
}

/// Peer, role, stream; and until when, with the count of the insertion.
type Entry = ((usize, Kind, usize), (Instant, u64));

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bans_agree_with_a_plain_list(operations in prop::collection::vec(operation(), 0..60)) {
        let mut now = Instant::now();
        let mut bans = Bans::new(MAX);
        let mut list: Vec<Entry> = Vec::new();
        for (count, operation) in (0_u64..).zip(operations) {
            match operation {
                Operation::Insert { who, kind, stream, for_ms } => {
                    let until = now + Duration::from_millis(for_ms);
                    let ban = Ban { whom: Whom::exactly(address(PEERS[who].0), kind, stream_key(STREAMS[stream])), until };
                    bans.insert(now, ban);
                    let subject = (PEERS[who].1, kind, stream);
                    let held = list.iter().position(|(other, _)| *other == subject);
                    let longer = held.is_none_or(|at| list[at].1.0 < until);
                    if until > now && longer {
                        if let Some(at) = held {
                            list.remove(at);
                        } else if list.len() == MAX {
                            let first = (0..MAX).min_by_key(|at| list[*at].1).unwrap();
                            list.remove(first);
                        }
                        list.push((subject, (until, count)));
                    }
                }
                Operation::Remove { who, kind, stream } => {
                    bans.remove(&Whom::exactly(address(PEERS[who].0), kind, stream_key(STREAMS[stream])));
                    list.retain(|(subject, _)| *subject != (PEERS[who].1, kind, stream));
                }
                Operation::Wait { ms } => now += Duration::from_millis(ms),
                Operation::Expire => {
                    bans.expire(now);
                    list.retain(|(_, (until, _))| *until > now);
                }
            }
            prop_assert_eq!(bans.len(), list.len());
            prop_assert!(bans.len() <= MAX);
            for (text, peer) in PEERS {
                for kind in Kind::ALL {
                    for (stream, name) in STREAMS.iter().enumerate() {
                        let expected = list
                            .iter()
                            .any(|(subject, (until, _))| *subject == (peer, kind, stream) && *until > now);
                        prop_assert_eq!(bans.is_banned(now, &request(kind, text, name)), expected);
                    }
                }
            }
        }
    }
}
