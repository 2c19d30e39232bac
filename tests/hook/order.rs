//! The order in which a receiver hears, whatever fails.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluicegate::event::Weight;
use sluicegate::hook::Parcel;
use sluicegate::hook::teller::{Limits, Outcome, REFUSALS_MAX, REFUSED_FOR, Request, Teller};
use sluicegate::names::SessionId;

use crate::support::{Memory, parcel, session};

const LIMITS: Limits = Limits { batch_max: 4, concurrency: 3, window: 64, window_bytes: 1 << 20, rate: 1_000_000 };

/// What may happen next.
#[derive(Clone, Debug)]
enum Step {
    /// Events of a session come into the spool.
    Record { session: u8, weight: Weight },
    /// One that belongs to no session.
    RecordAlone,
    /// The spool is read.
    Read,
    /// Requests set out.
    Send,
    /// One of those under way ends. `heard` is whether the receiver got it although it failed.
    End { which: usize, outcome: Outcome, heard: bool },
    /// Time passes.
    Pass { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let weight = prop_oneof![Just(Weight::Update), Just(Weight::Other), Just(Weight::Must)];
    let outcome = prop_oneof![
        4 => Just(Outcome::Taken),
        1 => Just(Outcome::Refused),
        2 => Just(Outcome::Failed { back_off: None }),
        1 => (0..5_000_u64).prop_map(|ms| Outcome::Failed { back_off: Some(Duration::from_millis(ms)) }),
    ];
    let step = prop_oneof![
        6 => (0..4_u8, weight).prop_map(|(session, weight)| Step::Record { session, weight }),
        1 => Just(Step::RecordAlone),
        3 => Just(Step::Read),
        5 => Just(Step::Send),
        5 => (any::<usize>(), outcome, any::<bool>()).prop_map(|(which, outcome, heard)| Step::End { which, outcome, heard }),
        3 => (0..3_000_u64).prop_map(|ms| Step::Pass { ms }),
    ];
    proptest::collection::vec(step, 1..300)
}

/// A teller, its spool, and all that a receiver could complain about.
struct World {
    teller: Teller,
    spool: Memory,
    limits: Limits,
    now: Instant,
    next_id: i64,
    recorded: BTreeMap<i64, Parcel>,
    flights: Vec<Request>,
    /// Ids that are done with: taken, replaced, given up.
    done: BTreeSet<i64>,
    heard: Vec<i64>,
}

impl World {
    fn new(limits: Limits, seed: u64) -> Self {
        Self {
            teller: Teller::new(limits, seed),
            spool: Memory::default(),
            limits,
            now: Instant::now(),
            next_id: 1,
            recorded: BTreeMap::new(),
            flights: Vec::new(),
            done: BTreeSet::new(),
            heard: Vec::new(),
        }
    }

    fn record(&mut self, session: Option<SessionId>, weight: Weight) {
        let parcel = parcel(self.next_id, session, weight);
        self.next_id += 1;
        self.recorded.insert(parcel.id, parcel.clone());
        self.spool.put(parcel);
    }

    fn read(&mut self) {
        let page = self.spool.page_now(self.teller.cursor(), self.teller.room().min(7));
        self.teller.handle_page(page);
        self.settle();
    }

    fn send(&mut self) {
        while let Some(request) = self.teller.poll_request(self.now) {
            self.check(&request);
            self.flights.push(request);
            assert!(self.flights.len() <= self.limits.concurrency);
        }
    }

    fn end(&mut self, which: usize, outcome: Outcome, heard: bool) {
        if self.flights.is_empty() {
            return;
        }
        let request = self.flights.swap_remove(which % self.flights.len());
        if heard || outcome == Outcome::Taken {
            self.heard.extend(request.parcels.iter().map(|parcel| parcel.id));
        }
        self.teller.handle_outcome(self.now, request.number, outcome);
        self.settle();
    }

    fn settle(&mut self) {
        for id in self.teller.poll_done() {
            assert!(self.done.insert(id), "{id} is done twice");
        }
        self.spool.remove(&self.done.iter().copied().collect::<Vec<_>>());
        assert!(self.teller.held() <= self.limits.window);
    }

    /// What must hold of a request when it sets out.
    fn check(&self, request: &Request) {
        assert!((1..=self.limits.batch_max).contains(&request.parcels.len()));
        let mut ahead = HashMap::new();
        for parcel in &request.parcels {
            assert!(!self.done.contains(&parcel.id), "{} was done with already", parcel.id);
            let Some(session) = parcel.session else { continue };
            for flight in &self.flights {
                assert!(
                    flight.parcels.iter().all(|other| other.session != Some(session)),
                    "two requests of one session"
                );
            }
            // All that came before it in its session is done with, or goes before it in this very request.
            let before: &mut Vec<i64> = ahead.entry(session).or_default();
            let open = self.recorded.values().filter(|other| other.session == Some(session) && other.id < parcel.id);
            for other in open {
                assert!(
                    self.done.contains(&other.id) || before.contains(&other.id),
                    "{} overtakes {}",
                    parcel.id,
                    other.id
                );
            }
            before.push(parcel.id);
        }
    }

    /// From now on everything is taken: in the end nothing is left and nothing is missing.
    fn finish(mut self) {
        let mut rounds = 0;
        while self.spool.len() > 0 {
            self.read();
            self.send();
            while !self.flights.is_empty() {
                self.end(0, Outcome::Taken, true);
            }
            self.now = self.teller.deadline().unwrap_or(self.now).max(self.now);
            rounds += 1;
            assert!(rounds < 10_000, "it does not come to an end: {} left", self.spool.len());
        }
        assert_eq!(self.done.len(), self.recorded.len());
        assert_eq!(self.teller.held(), 0);
        let given_up = self.teller.poll_given_up();
        for parcel in self.recorded.values().filter(|parcel| parcel.weight != Weight::Update) {
            assert!(self.heard.contains(&parcel.id) || given_up.contains(&parcel.event_id), "{} was lost", parcel.id);
        }
        // What was heard for the first time came in order, in each session.
        let mut last: HashMap<SessionId, i64> = HashMap::new();
        let mut known = BTreeSet::new();
        for id in &self.heard {
            let Some(session) = self.recorded[id].session.filter(|_| known.insert(*id)) else { continue };
            let before = last.insert(session, *id);
            assert!(before.is_none_or(|before| before < *id), "{id} came after {before:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn hk_10_whatever_fails_each_session_is_told_in_order_and_nothing_is_lost(
        steps in steps(), seed: u64, batch_max in 1..5_usize, concurrency in 1..4_usize, window in 1..40_usize,
    ) {
        let mut world = World::new(Limits { batch_max, concurrency, window, ..LIMITS }, seed);
        for step in steps {
            match step {
                Step::Record { session: of, weight } => world.record(Some(session(of.into())), weight),
                Step::RecordAlone => world.record(None, Weight::Other),
                Step::Read => world.read(),
                Step::Send => world.send(),
                Step::End { which, outcome, heard } => world.end(which, outcome, heard),
                Step::Pass { ms } => world.now += Duration::from_millis(ms),
            }
        }
        world.finish();
    }
}

#[test]
fn hk_10_a_failed_event_holds_up_its_own_session_only() {
    let mut world = World::new(Limits { batch_max: 1, concurrency: 8, ..LIMITS }, 1);
    for number in 0..3 {
        world.record(Some(session(number)), Weight::Must);
    }
    world.record(Some(session(0)), Weight::Must);
    world.record(Some(session(1)), Weight::Must);
    world.read();
    world.send();
    let heads: Vec<i64> = world.flights.iter().map(|request| request.parcels[0].id).collect();
    assert_eq!(heads, [1, 2, 3], "one of each session");
    world.end(0, Outcome::Failed { back_off: None }, false);
    while !world.flights.is_empty() {
        world.end(0, Outcome::Taken, true);
        world.send();
    }
    assert_eq!(world.heard, [3, 2, 5], "the sessions that did not fail go on");
    world.finish();
}

#[test]
fn a_newer_report_takes_the_place_of_one_that_waits() {
    let mut world = World::new(Limits { batch_max: 1, ..LIMITS }, 1);
    let of = Some(session(1));
    world.record(of, Weight::Must);
    for _ in 0..10 {
        world.record(of, Weight::Update);
    }
    world.record(of, Weight::Must);
    world.read();
    world.send();
    world.read();
    assert_eq!(world.teller.counts().replaced, 9);
    world.end(0, Outcome::Taken, true);
    world.send();
    // One that is under way is not replaced: it may have been heard.
    world.record(of, Weight::Update);
    world.record(of, Weight::Update);
    world.read();
    assert_eq!(world.teller.counts().replaced, 10);
    world.end(0, Outcome::Taken, true);
    world.send();
    world.end(0, Outcome::Taken, true);
    world.send();
    world.end(0, Outcome::Taken, true);
    assert_eq!(world.heard, [1, 11, 12, 14]);
    world.finish();
}

#[test]
fn what_was_handed_in_before_is_passed_over() {
    let mut world = World::new(Limits { batch_max: 1, ..LIMITS }, 1);
    for number in 0..3 {
        world.record(Some(session(number)), Weight::Must);
    }
    let page = world.spool.page_now(0, 10);
    world.teller.handle_page(page.clone());
    world.teller.handle_page(page.clone());
    assert_eq!(world.teller.held(), 3);
    world.send();
    while !world.flights.is_empty() {
        world.end(0, Outcome::Taken, true);
    }
    // The spool may show for a while what is done with.
    world.teller.handle_page(page);
    world.send();
    assert_eq!((world.flights.len(), world.teller.held(), world.teller.cursor()), (0, 0, 3));
}

#[test]
fn a_batch_has_what_is_due_and_a_session_in_its_order() {
    let mut world = World::new(LIMITS, 1);
    for of in [1, 1, 2, 1, 3, 3, 3] {
        world.record(Some(session(of)), Weight::Must);
    }
    world.read();
    world.send();
    let batches: Vec<Vec<i64>> =
        world.flights.iter().map(|request| request.parcels.iter().map(|parcel| parcel.id).collect()).collect();
    assert_eq!(batches, [vec![1, 2, 4, 3], vec![5, 6, 7]]);
    world.finish();
}

/// Refuses one event for as long as it takes; says how long, in requests and in time.
fn refused_until_given_up(weight: Weight) -> (u32, Duration) {
    let mut world = World::new(Limits { batch_max: 4, ..LIMITS }, 3);
    world.record(Some(session(1)), weight);
    world.record(Some(session(1)), Weight::Must);
    world.record(Some(session(2)), Weight::Must);
    world.read();
    world.send();
    assert_eq!(world.flights[0].parcels.len(), 3, "nobody knows yet which one is meant");
    let began = world.now;
    world.end(0, Outcome::Refused, false);
    let mut refusals = 0;
    let mut given_up = Vec::new();
    while given_up.is_empty() {
        world.now = world.teller.deadline().unwrap().max(world.now);
        world.send();
        while let Some(request) = world.flights.first() {
            assert_eq!(request.parcels.len(), 1, "what was refused travels alone");
            let bad = request.parcels[0].id == 1;
            refusals += u32::from(bad);
            world.end(0, if bad { Outcome::Refused } else { Outcome::Taken }, !bad);
        }
        given_up = world.teller.poll_given_up();
        assert!(refusals < 10_000, "it is never given up");
    }
    assert_eq!(given_up, ["event-1".into()]);
    assert_eq!(world.teller.counts().given_up, 1);
    assert_eq!(world.heard, [3], "its session waits meanwhile, and others do not");
    let took = world.now - began;
    while world.done.len() < 3 {
        world.send();
        world.end(0, Outcome::Taken, true);
    }
    assert_eq!(world.heard, [3, 2], "then its session goes on");
    (refusals, took)
}

#[test]
fn an_event_that_the_receiver_does_not_want_is_given_up_in_the_end() {
    let (refusals, took) = refused_until_given_up(Weight::Must);
    assert!(refusals >= REFUSALS_MAX && took >= REFUSED_FOR, "{refusals} refusals in {took:?}");
    let (refusals, took) = refused_until_given_up(Weight::Other);
    assert_eq!(refusals, REFUSALS_MAX);
    assert!(took < REFUSED_FOR, "{took:?}");
}

#[test]
fn what_must_be_told_is_told_for_ever() {
    let mut world = World::new(LIMITS, 5);
    world.record(Some(session(1)), Weight::Must);
    world.record(Some(session(1)), Weight::Must);
    world.read();
    let began = world.now;
    let mut tries = 0;
    // A week of failures.
    while world.now - began < Duration::from_secs(7 * 86_400) {
        world.send();
        tries += world.flights.len();
        while !world.flights.is_empty() {
            world.end(0, Outcome::Failed { back_off: None }, false);
        }
        let next = world.teller.deadline().unwrap();
        assert!(next - world.now <= Duration::from_secs(61), "it waits for more than a minute");
        world.now = next.max(world.now);
    }
    // The mean wait is half a minute.
    assert!((10_000..60_000).contains(&tries), "{tries} requests in a week");
    world.finish();
}

#[test]
fn a_receiver_that_asks_for_time_is_left_alone_for_it() {
    let mut world = World::new(Limits { batch_max: 1, ..LIMITS }, 5);
    for number in 0..20 {
        world.record(Some(session(number)), Weight::Must);
        world.read();
    }
    world.send();
    world.end(0, Outcome::Failed { back_off: Some(Duration::from_secs(30)) }, false);
    while !world.flights.is_empty() {
        world.end(0, Outcome::Failed { back_off: None }, false);
    }
    world.now += Duration::from_millis(29_900);
    world.send();
    assert_eq!(world.flights.len(), 0);
    assert!(world.teller.deadline().is_some_and(|at| at <= world.now + Duration::from_millis(100)));
    world.now += Duration::from_millis(100);
    world.send();
    assert_eq!(world.flights.len(), 1, "one that shows whether it is back");
    world.finish();
}

#[test]
fn the_rate_holds() {
    let mut world = World::new(Limits { rate: 100, concurrency: 1_000, batch_max: 1, ..LIMITS }, 5);
    let began = world.now;
    let mut told = 0;
    for number in 0..u32::MAX {
        if world.now - began >= Duration::from_secs(10) {
            break;
        }
        world.record(Some(session(number.into())), Weight::Must);
        world.read();
        world.send();
        while !world.flights.is_empty() {
            told += 1;
            world.end(0, Outcome::Taken, true);
        }
        world.now += Duration::from_millis(1);
    }
    assert!((1_000..=1_012).contains(&told), "{told} events in 10 s at 100 a second");
}
