//! Random lives against a model so simple that it can be trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use proptest::prelude::*;
use sluicegate::names::SessionId;
use sluicegate::session::{
    Change, CloseReason, Counters, Reason, SessionKey, SessionSample, State, Table, Transition, What, transition,
};

use crate::support::{facts, stream_key};

/// What can be done to a table. A session is meant by its place among all that were ever opened, so that
/// closed ones are addressed as often as open ones.
#[derive(Clone, Debug)]
enum Operation {
    Open,
    Record(prop::sample::Index, What),
    Close(prop::sample::Index, Reason),
    Send { whom: prop::sample::Index, bytes: u32, dropped: u8 },
    Queue(prop::sample::Index, u32),
    Sample,
    Drain,
}

fn operation() -> impl Strategy<Value = Operation> {
    use prop::sample::Index;
    let what = prop_oneof![
        1 => Just(What::Opened),
        1 => Just(What::Authorized),
        3 => Just(What::Started),
        1 => Just(What::Updated(Counters::default())),
        1 => Just(What::Altered),
        1 => (1..9_u64).prop_map(|dropped_frames| What::Overflowed { dropped_frames }),
        2 => Just(What::Stalled),
        2 => Just(What::Recovered),
        1 => Just(What::Denied(Reason::ReauthDenied.into())),
        1 => Just(What::Closed(Reason::ClientReset.into(), Counters::default())),
    ];
    prop_oneof![
        3 => Just(Operation::Open),
        6 => (any::<Index>(), what).prop_map(|(whom, what)| Operation::Record(whom, what)),
        2 => (any::<Index>(), prop::sample::select(Reason::ALL)).prop_map(|(whom, why)| Operation::Close(whom, why)),
        6 => (any::<Index>(), any::<u32>(), any::<u8>())
            .prop_map(|(whom, bytes, dropped)| Operation::Send { whom, bytes, dropped }),
        3 => (any::<Index>(), 0..4_u32).prop_map(|(whom, bytes)| Operation::Queue(whom, bytes)),
        1 => Just(Operation::Sample),
        1 => Just(Operation::Drain),
    ]
}

/// A session as the model sees it.
struct Modelled {
    id: SessionId,
    key: SessionKey,
    state: State,
    denied: bool,
    counters: Counters,
    queue_bytes: u64,
    /// What must have been reported, in order.
    reports: Vec<What>,
}

#[derive(Default)]
struct Model {
    sessions: Vec<Modelled>,
    changed: BTreeSet<usize>,
    illegal: u64,
}

impl Model {
    fn close(&mut self, at: usize, reason: CloseReason) {
        let session = &mut self.sessions[at];
        if session.state != State::Finished {
            session.state = State::Finished;
            session.reports.push(What::Closed(reason, session.counters));
            self.changed.remove(&at);
        }
    }

    /// Whether the table must accept it.
    fn record(&mut self, at: usize, what: What) -> bool {
        if let What::Closed(reason, _) = what {
            self.close(at, reason);
            return true;
        }
        let session = &mut self.sessions[at];
        let from = if session.denied { State::Finished } else { session.state };
        match transition(Some(from), what.trigger()) {
            Transition::To(state) => {
                session.state = state;
                session.reports.push(what);
                self.changed.insert(at);
                true
            }
            Transition::Stay => {
                session.denied |= matches!(what, What::Denied(_));
                session.reports.push(what);
                true
            }
            Transition::Repeat => true,
            Transition::Illegal => {
                self.illegal += 1;
                false
            }
        }
    }

    fn open(&self) -> impl Iterator<Item = &Modelled> {
        self.sessions.iter().filter(|session| session.state != State::Finished)
    }
}

/// The numbers of sessions added up: what collectors and summaries are made of.
fn sum<'a>(counters: impl Iterator<Item = &'a Counters>) -> (u64, u64, u64, u64) {
    counters.fold((0, 0, 0, 0), |(sent, frames, dropped, overflows), one| {
        (sent + one.tx_bytes, frames + one.tx_frames, dropped + one.dropped_frames, overflows + one.overflows)
    })
}

fn run(operations: Vec<Operation>) -> Result<(), TestCaseError> {
    let now = Instant::now();
    let stream = stream_key();
    let (mut table, mut model) = (Table::default(), Model::default());
    let mut reported: Vec<Change> = Vec::new();

    for operation in operations {
        let count = model.sessions.len();
        match operation {
            Operation::Open => {
                let facts = facts(count as u64, now, &stream);
                let id = facts.id;
                let key = table.open(now, facts);
                model.changed.insert(count);
                model.sessions.push(Modelled {
                    id,
                    key,
                    state: State::Establishing,
                    denied: false,
                    counters: Counters::default(),
                    queue_bytes: 0,
                    reports: vec![What::Opened],
                });
            }
            Operation::Record(whom, what) if count > 0 => {
                let at = whom.index(count);
                prop_assert_eq!(table.record(now, model.sessions[at].key, what), model.record(at, what));
            }
            Operation::Close(whom, reason) if count > 0 => {
                let at = whom.index(count);
                table.close(now, model.sessions[at].key, reason.into());
                model.close(at, reason.into());
            }
            Operation::Send { whom, bytes, dropped } if count > 0 => {
                let at = whom.index(count);
                let session = &mut model.sessions[at];
                let add = |counters: &mut Counters| {
                    counters.tx_bytes += u64::from(bytes);
                    counters.tx_frames += 1;
                    counters.dropped_frames += u64::from(dropped);
                    counters.overflows += u64::from(dropped > 0);
                };
                let found = table.counters_mut(session.key).map(add);
                prop_assert_eq!(found.is_some(), session.state != State::Finished);
                if found.is_some() {
                    add(&mut session.counters);
                    model.changed.insert(at);
                }
            }
            Operation::Queue(whom, bytes) if count > 0 => {
                let at = whom.index(count);
                let session = &mut model.sessions[at];
                let bytes = u64::from(bytes);
                table.set_queue(session.key, bytes);
                if session.state != State::Finished && session.queue_bytes != bytes {
                    session.queue_bytes = bytes;
                    session.counters.queue_peak_bytes = session.counters.queue_peak_bytes.max(bytes);
                    model.changed.insert(at);
                }
            }
            Operation::Sample => {
                let mut samples = Vec::new();
                table.sample_changed(&mut samples);
                samples.sort_by_key(|sample| sample.id);
                let expected: Vec<SessionSample> = std::mem::take(&mut model.changed)
                    .into_iter()
                    .map(|at| &model.sessions[at])
                    .map(|session| SessionSample {
                        id: session.id,
                        state: session.state,
                        counters: session.counters,
                        queue_bytes: session.queue_bytes,
                    })
                    .collect();
                prop_assert_eq!(samples, expected);
            }
            Operation::Drain => reported.extend(std::iter::from_fn(|| table.poll_change())),
            _ => {}
        }

        prop_assert_eq!(table.len(), model.open().count());
        prop_assert_eq!(table.illegal(), model.illegal);
        let open: BTreeSet<SessionId> = table.iter().map(|(_, facts)| facts.id).collect();
        prop_assert_eq!(open, model.open().map(|session| session.id).collect());
        // I10: whatever is summed up comes from the table, and the table says what was counted.
        let counted = sum(table.iter().map(|(key, _)| table.counters(key).unwrap()));
        prop_assert_eq!(counted, sum(model.open().map(|session| &session.counters)));
    }

    finish(table, model, reported, now)
}

/// Closes what is still open and looks at every life as a whole.
fn finish(mut table: Table, mut model: Model, mut reported: Vec<Change>, now: Instant) -> Result<(), TestCaseError> {
    for session in &model.sessions {
        let open = session.state != State::Finished;
        prop_assert_eq!(table.find(session.id), open.then_some(session.key));
        prop_assert_eq!(table.state(session.key), open.then_some(session.state));
    }
    // I9: whatever its state, every session that was opened ends, once.
    for at in 0..model.sessions.len() {
        table.close(now, model.sessions[at].key, Reason::Drain.into());
        model.close(at, Reason::Drain.into());
    }
    prop_assert!(table.is_empty());
    reported.extend(std::iter::from_fn(|| table.poll_change()));
    let mut by_session: BTreeMap<SessionId, Vec<What>> = BTreeMap::new();
    for change in &reported {
        let reports = by_session.entry(change.facts.id).or_default();
        reports.push(change.what);
        prop_assert_eq!(change.seq as usize, reports.len(), "numbers have no gap");
    }
    prop_assert_eq!(by_session.len(), model.sessions.len());
    for session in &model.sessions {
        let reports = &by_session[&session.id];
        prop_assert_eq!(reports, &session.reports);
        prop_assert_eq!(reports.iter().filter(|what| matches!(what, What::Opened)).count(), 1);
        prop_assert_eq!(reports.iter().filter(|what| matches!(what, What::Closed(..))).count(), 1);
        prop_assert!(matches!((reports.first(), reports.last()), (Some(What::Opened), Some(What::Closed(..)))));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i9_i10_the_table_agrees_with_the_model(operations in prop::collection::vec(operation(), 0..200)) {
        run(operations)?;
    }
}
