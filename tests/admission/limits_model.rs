//! Any sequence of asks, answers, closes and waits, from peers of many shards: the counts equal a plain list, and no
//! limit is ever exceeded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sluicegate::admission::settings::Limits;
use sluicegate::admission::{Answer, AtLimit, Failure, HookRule, Settings, Terms};
use sluicegate::names::{Kind, SessionId};
use sluicegate::session::{Facts, Reason};

use crate::room::{Room, allow, deny, terms_of};

#[derive(Clone, Debug)]
enum Operation {
    Ask {
        kind: Kind,
        path: usize,
        from: usize,
        query: usize,
    },
    Answer {
        which: usize,
        how: usize,
    },
    /// A session that is there goes, whether it was told to or not.
    Close {
        which: usize,
    },
    /// All that were told to go do.
    Obey,
    Wait {
        ms: u64,
    },
    CloseAgain {
        which: usize,
    },
}

const PATHS: [&str; 4] = ["live/a", "live/b", "vod/a", "free/a"];
const PEERS: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const QUERIES: [&str; 2] = ["", "t=1"];
const USERS: [&str; 2] = ["ann", "bob"];

fn operation() -> impl Strategy<Value = Operation> {
    let kind = prop::sample::select(&[Kind::Publish, Kind::Play, Kind::Play][..]);
    prop_oneof![
        8 => (kind, 0..PATHS.len(), 0..PEERS.len(), 0..QUERIES.len())
            .prop_map(|(kind, path, from, query)| Operation::Ask { kind, path, from, query }),
        6 => (any::<usize>(), 0..8_usize).prop_map(|(which, how)| Operation::Answer { which, how }),
        4 => any::<usize>().prop_map(|which| Operation::Close { which }),
        2 => Just(Operation::Obey),
        2 => (0..4_000_u64).prop_map(|ms| Operation::Wait { ms }),
        1 => any::<usize>().prop_map(|which| Operation::CloseAgain { which }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (prop::array::uniform6(0..4_u32), any::<bool>(), any::<bool>()).prop_map(|(counts, evicts, lasts)| Limits {
        sessions_per_user: counts[0],
        sessions_per_token: counts[1],
        sessions_per_address: counts[2],
        sessions_per_stream: counts[3],
        sessions_per_app: counts[4],
        sessions_per_server: counts[5],
        at_limit: if evicts { AtLimit::EvictOldest } else { AtLimit::RejectNew },
        duration_max: if lasts { Duration::from_secs(6) } else { Duration::ZERO },
        ..Limits::default()
    })
}

/// By scope, kind and limit: the seats that are taken.
type Seats = BTreeMap<(String, Kind, u32), BTreeSet<String>>;

/// The plain list: who is in, under which name.
struct Model {
    limits: Limits,
    /// Whoever asked and has not been closed, with the number of its question.
    present: BTreeMap<SessionId, (Arc<Facts>, u64)>,
    gone: Vec<Arc<Facts>>,
    told_to_go: BTreeSet<SessionId>,
}

impl Model {
    /// Everybody who was admitted and has not been closed.
    fn admitted<'a>(&'a self, room: &'a Room) -> impl Iterator<Item = (&'a Arc<Facts>, Option<&'a str>)> {
        self.present.values().filter_map(|(facts, question)| {
            let grant = room.verdicts.get(question)?.as_ref().ok()?;
            Some((facts, grant.user.as_deref()))
        })
    }

    /// Who sits where there is a limit.
    fn seats(&self, room: &Room) -> Seats {
        let mut seats = Seats::new();
        for (facts, user) in self.admitted(room) {
            let key = &facts.key;
            let limits = &self.limits;
            let mut scopes = vec![
                ("server".to_owned(), limits.sessions_per_server),
                (format!("app {}", key.app()), limits.sessions_per_app),
                (format!("address {}", facts.remote.ip()), limits.sessions_per_address),
            ];
            if facts.kind == Kind::Play {
                scopes.push((format!("stream {key}"), limits.sessions_per_stream));
            }
            if let Some(user) = user {
                scopes.push((format!("user {user}"), limits.sessions_per_user));
            }
            if let Some(query) = facts.query.as_deref().filter(|_| key.app() != "free") {
                scopes.push((format!("token {query}"), limits.sessions_per_token));
            }
            for (scope, limit) in scopes.into_iter().filter(|(_, limit)| *limit > 0) {
                // Publishers of one stream share a seat.
                let seat = if facts.kind == Kind::Publish { key.to_string() } else { facts.id.to_string() };
                seats.entry((scope, facts.kind, limit)).or_default().insert(seat);
            }
        }
        seats
    }

    fn check(&self, room: &Room) -> Result<(), TestCaseError> {
        for ((scope, kind, limit), taken) in self.seats(room) {
            prop_assert!(taken.len() <= limit as usize, "{} sit in {limit} seats of {scope} to {kind:?}", taken.len());
        }
        // Whoever waits is waited for, and nobody has two verdicts (the room checks that).
        let waiting = self.present.values().filter(|(_, question)| !room.verdicts.contains_key(question)).count();
        prop_assert_eq!(room.desk.held().waiting, waiting);
        prop_assert!(room.desk.held().sessions <= self.admitted(room).count());
        Ok(())
    }
}

/// A player that is refused for a limit had no seat there.
fn check_refusal(model: &Model, room: &Room, facts: &Facts, question: u64) -> Result<(), TestCaseError> {
    let Some(Err(reason)) = room.said(question) else { return Ok(()) };
    if reason.reason != Reason::ConcurrencyLimit || facts.kind != Kind::Play {
        return Ok(());
    }
    let scope = match reason.detail {
        "server" => "server".to_owned(),
        "app" => format!("app {}", facts.key.app()),
        "ip" => format!("address {}", facts.remote.ip()),
        "stream" => format!("stream {}", facts.key),
        // Whose name or token it was is not in a refusal.
        _ => return Ok(()),
    };
    let seats = model.seats(room);
    let full = seats
        .iter()
        .any(|((name, kind, limit), taken)| *name == scope && *kind == Kind::Play && taken.len() == *limit as usize);
    prop_assert!(full, "refused for {} and there was room: {:?}", reason.detail, seats);
    Ok(())
}

fn pick<T: Clone>(items: impl Iterator<Item = T>, which: usize) -> Option<T> {
    let items: Vec<T> = items.collect();
    (!items.is_empty()).then(|| items[which % items.len()].clone())
}

fn answer(how: usize) -> Answer {
    match how {
        0 => deny(),
        1 => Answer::Failure(Failure::Connect),
        2 => allow(Terms::default()),
        3 => allow(Terms { cache_for: Some(Duration::from_secs(3)), ..terms_of(USERS[0]) }),
        4 => allow(Terms { recheck_every: Some(Duration::from_secs(1)), ..terms_of(USERS[1]) }),
        how => allow(terms_of(USERS[how % 2])),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn counts_equal_a_list_and_never_exceed_a_limit(
        limits in limits(),
        operations in prop::collection::vec(operation(), 0..120),
    ) {
        let hook = HookRule {
            apps: ["live", "vod"].map(|app| sluicegate::admission::AppPattern::parse(app).unwrap()).to_vec(),
            play_on_failure: true,
            ..HookRule::default()
        };
        let settings = Settings {
            publish: sluicegate::admission::Access::Open,
            limits: limits.clone(),
            waiting_max: 20,
            ..Settings::default()
        };
        let mut room = Room::new(&settings, vec![hook]);
        let mut model = Model { limits, present: BTreeMap::new(), gone: Vec::new(), told_to_go: BTreeSet::new() };
        for operation in operations {
            match operation {
                Operation::Ask { kind, path, from, query } => {
                    let facts = room.peer_at(kind, PATHS[path], QUERIES[query], PEERS[from]);
                    let question = room.ask(&facts);
                    check_refusal(&model, &room, &facts, question)?;
                    model.present.insert(facts.id, (facts, question));
                }
                Operation::Answer { which, how } => {
                    if !room.asks.is_empty() {
                        let which = which % room.asks.len();
                        room.asks.swap(0, which);
                        room.answer(answer(how));
                    }
                }
                Operation::Close { which } => {
                    if let Some(id) = pick(model.present.keys().copied(), which) {
                        close(&mut room, &mut model, id);
                    }
                }
                Operation::Obey => {
                    for id in std::mem::take(&mut model.told_to_go) {
                        close(&mut room, &mut model, id);
                    }
                }
                Operation::Wait { ms } => room.wait(Duration::from_millis(ms)),
                Operation::CloseAgain { which } => {
                    if let Some(facts) = pick(model.gone.iter().cloned(), which) {
                        room.close(&facts);
                    }
                }
            }
            for (id, _) in std::mem::take(&mut room.ends) {
                prop_assert!(model.present.contains_key(&id), "told to go and not there");
                prop_assert!(model.told_to_go.insert(id), "told to go twice");
            }
            model.check(&room)?;
        }
        // Everybody leaves, and nothing is left of them.
        let all: Vec<SessionId> = model.present.keys().copied().collect();
        for id in all {
            close(&mut room, &mut model, id);
        }
        room.wait(Duration::from_secs(200));
        prop_assert_eq!(
            room.desk.held(),
            sluicegate::admission::Held { seats_are_free: true, ..Default::default() }
        );
    }
}

/// A session that was told to go and is closed is not expected to go any more. One that was refused is gone as well.
fn close(room: &mut Room, model: &mut Model, id: SessionId) {
    if let Some((facts, _)) = model.present.remove(&id) {
        model.told_to_go.remove(&id);
        room.close(&facts);
        model.gone.push(facts);
    }
}
