use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::control::testing::{facts, id, key};
use crate::names::Kind;
use crate::stdx::ids::SplitMix;

const RESUME: Duration = Duration::from_secs(10);
const ORDER: Duration = Duration::from_secs(1);

struct Desk {
    registry: Registry,
    orders: OrderIds,
    now: Instant,
}

/// What came out, in words that compare well.
#[derive(Debug, PartialEq, Eq)]
enum Out {
    Granted(u64),
    Refused(u64, Reason),
    Close(u16, u64),
    Open(u16, u16),
    Shut(u16, u16),
    Online(u64, u16, bool),
    Idle,
    Offline,
}
use Out::{Close, Granted, Idle, Offline, Online, Open, Refused, Shut};

impl Desk {
    fn new(policy: DuplicatePublish) -> Self {
        Self { registry: Registry::new(policy, RESUME, ORDER), orders: OrderIds::default(), now: Instant::now() }
    }

    /// Session `n` on `shard` asks for `live/a`; tickets are session numbers.
    fn ask(&mut self, n: u64, shard: u16, change: impl FnOnce(&mut Facts)) -> Vec<Out> {
        let mut facts = facts(n, shard, Kind::Publish, "live/a", &format!("192.0.2.{}:1000", n % 250));
        change(&mut facts);
        let refuses = self.registry.refuses(&facts);
        self.registry.ask_publish(self.now, ShardId(shard), Ticket(n), Arc::new(facts), &mut self.orders);
        let out = self.out();
        assert_eq!(refuses, out.contains(&Refused(n, Reason::DuplicatePublish)), "it said otherwise before");
        out
    }

    fn left(&mut self, n: u64) -> Vec<Out> {
        self.registry.publisher_left(self.now, &key("live/a"), id(n));
        self.out()
    }

    fn subscribe(&mut self, shard: u16) -> Vec<Out> {
        self.registry.subscribe(ShardId(shard), &key("live/a"));
        self.out()
    }

    fn unsubscribe(&mut self, shard: u16) -> Vec<Out> {
        self.registry.unsubscribe(ShardId(shard), &key("live/a"));
        self.out()
    }

    fn done(&mut self, order: u64) -> Vec<Out> {
        self.registry.done(self.now, OrderId(order));
        self.out()
    }

    fn pass(&mut self, time: Duration) -> Vec<Out> {
        self.now += time;
        self.registry.expire(self.now);
        self.out()
    }

    fn out(&mut self) -> Vec<Out> {
        let number = |session: SessionId| u64::try_from(session.as_u128() >> 80).unwrap();
        std::iter::from_fn(|| self.registry.poll())
            .map(|action| match action {
                Action::Verdict { ticket, verdict: Ok(()), .. } => Granted(ticket.0),
                Action::Verdict { ticket, verdict: Err(reason), .. } => Refused(ticket.0, reason.reason),
                Action::Close { to, session, .. } => Close(to.0, number(session)),
                Action::OpenRelay { from, to, .. } => Open(from.0, to.0),
                Action::CloseRelay { from, to, .. } => Shut(from.0, to.0),
                Action::Happened(StreamEvent { what, .. }) => match what {
                    StreamWhat::Online { publisher, shard, resumed } => Online(number(publisher), shard.0, resumed),
                    StreamWhat::Idle => Idle,
                    StreamWhat::Offline { .. } => Offline,
                },
            })
            .collect()
    }
}

fn alike(facts: &mut Facts) {
    facts.remote = "198.51.100.1:99".parse().unwrap();
    facts.query = Some("token=1".into());
}

#[test]
fn fa_09_reject_refuses_the_second_publisher() {
    let mut desk = Desk::new(DuplicatePublish::Reject);
    assert_eq!(desk.ask(1, 0, alike), [Granted(1), Online(1, 0, false)]);
    assert_eq!(desk.ask(2, 1, alike), [Refused(2, Reason::DuplicatePublish)]);
    assert_eq!(desk.ask(3, 0, alike), [Refused(3, Reason::DuplicatePublish)]);
}

#[test]
fn fa_09_a_takeover_ends_the_old_publisher_before_it_admits_the_new() {
    let mut desk = Desk::new(DuplicatePublish::Takeover);
    desk.ask(1, 0, |_| {});
    assert_eq!(desk.ask(2, 1, |_| {}), [Close(0, 1)]);
    assert_eq!(desk.done(1), [Granted(2), Online(2, 1, true)]);
    assert_eq!(desk.left(1), [], "the old one has no say any more");
    assert_eq!(desk.registry.replaced(), 1);
}

#[test]
fn fa_07_the_same_publisher_from_a_new_connection_takes_over() {
    let mut desk = Desk::new(DuplicatePublish::TakeoverSameIdentity);
    desk.ask(1, 0, alike);
    assert_eq!(desk.ask(2, 1, alike), [Close(0, 1)]);
    // The old session's end may be told before the order's answer.
    assert_eq!(desk.left(1), [Granted(2), Online(2, 1, true)]);
    assert_eq!(desk.done(1), []);
    let other_query = |facts: &mut Facts| {
        alike(facts);
        facts.query = Some("token=2".into());
    };
    assert_eq!(desk.ask(3, 0, other_query), [Refused(3, Reason::DuplicatePublish)]);
    assert_eq!(desk.ask(4, 0, |facts| facts.query = Some("token=1".into())), [Refused(4, Reason::DuplicatePublish)]);
}

#[test]
fn fa_07_a_known_user_is_the_identity_wherever_it_comes_from() {
    let ann = |facts: &mut Facts| facts.user = Some("ann".into());
    let mut desk = Desk::new(DuplicatePublish::TakeoverSameIdentity);
    desk.ask(1, 0, ann);
    assert_eq!(desk.ask(2, 1, |facts| facts.user = Some("bob".into())), [Refused(2, Reason::DuplicatePublish)]);
    assert_eq!(
        desk.ask(3, 1, |facts| facts.remote = "192.0.2.1:1000".parse().unwrap()),
        [Refused(3, Reason::DuplicatePublish)]
    );
    assert_eq!(desk.ask(4, 1, ann), [Close(0, 1)]);
}

#[test]
fn fa_09_a_third_publisher_meets_the_same_policy_against_the_newcomer() {
    let mut desk = Desk::new(DuplicatePublish::Takeover);
    desk.ask(1, 0, |_| {});
    desk.ask(2, 1, |_| {});
    assert_eq!(desk.ask(3, 2, |_| {}), [Refused(2, Reason::Replaced)]);
    assert_eq!(desk.done(1), [Granted(3), Online(3, 2, true)]);

    let mut desk = Desk::new(DuplicatePublish::TakeoverSameIdentity);
    desk.ask(1, 0, alike);
    desk.ask(2, 1, alike);
    assert_eq!(desk.ask(3, 2, |_| {}), [Refused(3, Reason::DuplicatePublish)]);
    assert_eq!(desk.done(1), [Granted(2), Online(2, 1, true)]);
}

#[test]
fn fa_09_a_shard_that_does_not_answer_loses_its_say() {
    let mut desk = Desk::new(DuplicatePublish::Takeover);
    desk.ask(1, 0, |_| {});
    desk.ask(2, 1, |_| {});
    assert_eq!(desk.pass(ORDER / 2), []);
    assert_eq!(desk.pass(ORDER), [Granted(2), Online(2, 1, true)]);
    assert_eq!(desk.done(1), [], "a late answer changes nothing");
    assert_eq!(desk.left(1), []);
}

#[test]
fn a_newcomer_that_leaves_while_it_waits_gets_nothing() {
    let mut desk = Desk::new(DuplicatePublish::Takeover);
    desk.ask(1, 0, |_| {});
    desk.ask(2, 1, |_| {});
    assert_eq!(desk.left(2), []);
    assert_eq!(desk.done(1), [Idle]);
    assert_eq!(desk.pass(RESUME), [Offline]);
    assert!(desk.registry.is_empty());
    assert_eq!(desk.registry.replaced(), 0);
}

#[test]
fn fa_06_a_publisher_back_in_time_keeps_its_viewers_and_relays() {
    let mut desk = Desk::new(DuplicatePublish::Reject);
    desk.ask(1, 0, |_| {});
    assert_eq!(desk.subscribe(0), []);
    assert_eq!(desk.subscribe(1), [Open(0, 1)]);
    assert_eq!(desk.left(1), [Idle]);
    assert_eq!(desk.ask(2, 0, |_| {}), [Granted(2), Online(2, 0, true)], "no relay moves");
    assert_eq!(desk.left(2), [Idle]);
    // It comes back on another shard: the old home is fed from there.
    assert_eq!(desk.ask(3, 1, |_| {}), [Granted(3), Shut(0, 1), Open(1, 0), Online(3, 1, true)]);
    assert_eq!(desk.left(3), [Idle]);
    assert_eq!(desk.pass(RESUME), [Shut(1, 0), Offline]);
    assert_eq!(desk.unsubscribe(0), []);
    assert_eq!(desk.unsubscribe(1), []);
    assert!(desk.registry.is_empty());
}

#[test]
fn fa_06_flapping_for_an_hour_leaves_nothing_behind() {
    let mut desk = Desk::new(DuplicatePublish::TakeoverSameIdentity);
    for n in 1..=3_600 {
        let shard = u16::try_from(n % 3).unwrap();
        assert!(desk.ask(n, shard, alike).contains(&Granted(n)));
        assert_eq!(desk.left(n), [Idle]);
        desk.pass(Duration::from_secs(1));
        assert_eq!((desk.registry.len(), desk.registry.due.len(), desk.registry.orders.len()), (1, 1, 0));
    }
    assert_eq!(desk.pass(RESUME), [Offline]);
    assert!(desk.registry.is_empty() && desk.registry.due.is_empty());
}

#[test]
fn players_that_wait_for_a_publisher_are_fed_when_it_comes() {
    let mut desk = Desk::new(DuplicatePublish::Reject);
    desk.subscribe(2);
    desk.subscribe(1);
    assert_eq!(desk.ask(1, 1, |_| {}), [Granted(1), Open(1, 2), Online(1, 1, false)]);
    assert_eq!(desk.unsubscribe(2), [Shut(1, 2)]);
}

#[test]
fn the_holder_that_asks_again_holds_still() {
    let mut desk = Desk::new(DuplicatePublish::Takeover);
    desk.ask(1, 0, |_| {});
    assert_eq!(desk.ask(1, 0, |_| {}), [Granted(1)]);
}

#[test]
fn without_a_resume_window_a_stream_ends_at_once() {
    let mut desk = Desk::new(DuplicatePublish::Reject);
    desk.registry.resume_window = Duration::ZERO;
    desk.ask(1, 0, |_| {});
    desk.subscribe(1);
    assert_eq!(desk.left(1), [Idle, Shut(0, 1), Offline]);
    desk.unsubscribe(1);
    assert!(desk.registry.is_empty());
}

/// Shards that answer late and in their own time, against what must hold at every step.
struct World {
    keys: [StreamKey; 3],
    registry: Registry,
    orders: OrderIds,
    now: Instant,
    random: SplitMix,
    /// Sessions with the right to publish, as their shards see it, by stream.
    publishing: BTreeMap<StreamKey, BTreeMap<SessionId, ShardId>>,
    /// Sessions whose question is open, with their stream.
    asking: BTreeMap<u64, (ShardId, Arc<Facts>)>,
    /// Orders on their way: shard, order, session, stream.
    closing: Vec<(ShardId, OrderId, SessionId)>,
    /// Sessions that were ordered away and whose shard was too late.
    disowned: BTreeSet<SessionId>,
    interested: BTreeMap<StreamKey, BTreeSet<ShardId>>,
    feeds: BTreeMap<(StreamKey, ShardId), ShardId>,
    online: BTreeMap<StreamKey, bool>,
    sessions: u64,
    slow_shards: bool,
}

impl World {
    fn step(&mut self) {
        let key = self.keys[usize::try_from(self.random.below(3)).unwrap()].clone();
        let shard = ShardId(u16::try_from(self.random.below(4)).unwrap());
        match self.random.below(16) {
            0..=3 => {
                self.sessions += 1;
                let n = self.sessions;
                let mut facts = facts(n, shard.0, Kind::Publish, "live/x", "192.0.2.1:1");
                facts.key = key;
                facts.query = (self.random.below(3) == 0).then(|| "other".into());
                let facts = Arc::new(facts);
                self.asking.insert(n, (shard, facts.clone()));
                self.registry.ask_publish(self.now, shard, Ticket(n), facts, &mut self.orders);
            }
            4..=5 => {
                // A publisher leaves by itself.
                let who = self.publishing.get(&key).and_then(|who| who.keys().next().copied());
                if let Some(session) = who {
                    self.publishing.get_mut(&key).unwrap().remove(&session);
                    self.disowned.remove(&session);
                    self.registry.publisher_left(self.now, &key, session);
                }
            }
            6 => {
                // One leaves while its question is open.
                if let Some(n) = self.asking.keys().next_back().copied() {
                    let (_, facts) = self.asking.remove(&n).unwrap();
                    self.registry.publisher_left(self.now, &facts.key, facts.id);
                }
            }
            7..=9 => self.carry_out_an_order(),
            10..=11 => {
                self.interested.entry(key.clone()).or_default().insert(shard);
                self.registry.subscribe(shard, &key);
            }
            12..=13 => {
                if let Some(shards) = self.interested.get_mut(&key) {
                    shards.remove(&shard);
                }
                self.registry.unsubscribe(shard, &key);
            }
            _ => {
                let longest = if self.slow_shards { 4_000 } else { 400 };
                self.now += Duration::from_millis(self.random.below(longest));
                if !self.slow_shards {
                    while !self.closing.is_empty() {
                        self.carry_out_an_order();
                    }
                }
                self.registry.expire(self.now);
            }
        }
        self.take_actions();
        self.check();
    }

    fn carry_out_an_order(&mut self) {
        if self.closing.is_empty() {
            return;
        }
        let index = usize::try_from(self.random.below(self.closing.len() as u64)).unwrap();
        let (_, order, session) = self.closing.remove(index);
        self.disowned.remove(&session);
        let key = self.publishing.iter().find(|(_, who)| who.contains_key(&session)).map(|(key, _)| key.clone());
        if let Some(key) = key {
            self.publishing.get_mut(&key).unwrap().remove(&session);
            if self.random.below(2) == 0 {
                self.registry.publisher_left(self.now, &key, session);
                self.take_actions();
            }
            self.registry.done(self.now, order);
            self.take_actions();
            self.registry.publisher_left(self.now, &key, session);
        } else {
            self.registry.done(self.now, order);
        }
        self.take_actions();
    }

    fn take_actions(&mut self) {
        while let Some(action) = self.registry.poll() {
            match action {
                Action::Verdict { to, ticket, verdict, .. } => {
                    // The asker may have left; its shard then has said so.
                    if let Some((shard, facts)) = self.asking.remove(&ticket.0) {
                        assert_eq!(shard, to);
                        if verdict.is_ok() {
                            self.publishing.entry(facts.key.clone()).or_default().insert(facts.id, shard);
                        }
                    } else {
                        assert!(verdict.is_err(), "a session that has left was admitted");
                    }
                }
                Action::Close { to, order, session } => {
                    if self.slow_shards {
                        // From here on the registry may stop waiting for it at any time.
                        self.disowned.insert(session);
                    }
                    self.closing.push((to, order, session));
                }
                Action::OpenRelay { key, from, to } => {
                    assert_ne!(from, to);
                    assert_eq!(self.feeds.insert((key, to), from), None, "a second feed");
                }
                Action::CloseRelay { key, from, to } => {
                    assert_eq!(self.feeds.remove(&(key, to)), Some(from), "closed a relay that is not there");
                }
                Action::Happened(StreamEvent { key, what, .. }) => {
                    let was = self.online.insert(key.clone(), matches!(what, StreamWhat::Online { .. }));
                    match what {
                        StreamWhat::Idle => assert_eq!(was, Some(true)),
                        StreamWhat::Offline { .. } => assert_eq!(was, Some(false)),
                        StreamWhat::Online { .. } => {}
                    }
                }
            }
        }
    }

    fn check(&self) {
        for (key, who) in &self.publishing {
            let holders = who.keys().filter(|session| !self.disowned.contains(session)).count();
            assert!(holders <= 1, "{key} has {holders} publishers");
        }
        let wanted = self.interested.iter().flat_map(|(key, shards)| {
            let home = self.registry.home(key);
            let fed = move |to: &&ShardId| home.is_some_and(|home| home != **to);
            shards.iter().filter(fed).filter_map(move |to| Some(((key, *to), home?)))
        });
        let fed = self.feeds.iter().map(|((key, to), from)| ((key, *to), *from));
        assert!(fed.eq(wanted), "{:?} for {:?}", self.feeds, self.interested);
        assert!(self.registry.due.len() <= self.registry.len());
        assert!(self.registry.orders.len() <= self.registry.len());
    }
}

fn simulate(seed: u64, policy: DuplicatePublish, slow_shards: bool) {
    let mut world = World {
        keys: ["live/a", "live/b", "live/c"].map(key),
        registry: Registry::new(policy, RESUME, ORDER),
        orders: OrderIds::default(),
        now: Instant::now(),
        random: SplitMix::new(seed),
        publishing: BTreeMap::new(),
        asking: BTreeMap::new(),
        closing: Vec::new(),
        disowned: BTreeSet::new(),
        interested: BTreeMap::new(),
        feeds: BTreeMap::new(),
        online: BTreeMap::new(),
        sessions: 0,
        slow_shards,
    };
    for _ in 0..400 {
        world.step();
    }
    // Everybody leaves, those who still wait first: nothing may stay.
    for (_, facts) in std::mem::take(&mut world.asking).into_values() {
        world.registry.publisher_left(world.now, &facts.key, facts.id);
    }
    for (key, who) in std::mem::take(&mut world.publishing) {
        for session in who.into_keys() {
            world.registry.publisher_left(world.now, &key, session);
        }
    }
    world.now += ORDER;
    world.registry.expire(world.now);
    world.now += RESUME;
    world.registry.expire(world.now);
    for (key, shards) in std::mem::take(&mut world.interested) {
        for shard in shards {
            world.registry.unsubscribe(shard, &key);
        }
    }
    world.take_actions();
    assert!(world.registry.is_empty() && world.registry.due.is_empty() && world.registry.orders.is_empty());
    assert!(world.feeds.is_empty());
}

#[test]
fn fa_09_never_two_publishers_and_one_feed_for_each_shard_whatever_happens() {
    let seeds = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).map_or(0..30, |seed| seed..seed + 1);
    for seed in seeds {
        for policy in [DuplicatePublish::Reject, DuplicatePublish::TakeoverSameIdentity, DuplicatePublish::Takeover] {
            for slow_shards in [false, true] {
                let run = std::panic::AssertUnwindSafe(|| simulate(seed, policy, slow_shards));
                if let Err(panic) = std::panic::catch_unwind(run) {
                    eprintln!("SEED={seed} {policy:?} slow_shards={slow_shards}");
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}
