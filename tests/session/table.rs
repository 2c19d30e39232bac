//! The table: what is reported, in which order, and what a stale key can do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sluicegate::session::{CloseReason, Counters, Reason, SessionKey, State, Table, What};

use crate::support::{drain, drain_what, facts, stream_key};

const DONE: CloseReason = CloseReason::new(Reason::ClientDone);

/// A table with one session, its first report read.
fn with_one(now: Instant) -> (Table, SessionKey) {
    let mut table = Table::default();
    let key = table.open(now, facts(1, now, &stream_key()));
    assert_eq!(drain_what(&mut table), [What::Opened]);
    (table, key)
}

#[test]
fn a_life_is_reported_in_order_with_numbers_without_gaps() {
    let now = Instant::now();
    let mut table = Table::default();
    let key = table.open(now, facts(1, now, &stream_key()));
    let id = table.facts(key).unwrap().id;
    let middle = [
        What::Authorized,
        What::Started,
        What::Altered,
        What::Overflowed { dropped_frames: 7 },
        What::Stalled,
        What::Recovered,
        What::Updated(Counters::default()),
    ];
    let mut at = now;
    for what in middle {
        at += Duration::from_millis(10);
        assert!(table.record(at, key, what), "{what:?}");
    }
    table.counters_mut(key).unwrap().tx_bytes = 4_096;
    table.close(at + Duration::from_millis(10), key, DONE);

    let changes = drain(&mut table);
    let whats: Vec<What> = changes.iter().map(|change| change.what).collect();
    let totals = Counters { tx_bytes: 4_096, ..Counters::default() };
    assert_eq!(whats, [&[What::Opened], &middle[..], &[What::Closed(DONE, totals)]].concat());
    for (count, change) in (0_u32..).zip(&changes) {
        assert_eq!(change.seq, count + 1);
        assert_eq!(change.at, now + Duration::from_millis(10) * count);
        assert_eq!(change.facts.id, id);
    }
    assert_eq!(table.illegal(), 0);
}

#[test]
fn i9_a_session_closes_exactly_once_from_any_state() {
    let steps: [(State, &[What]); 3] = [
        (State::Establishing, &[]),
        (State::Running, &[What::Started]),
        (State::Stalling, &[What::Started, What::Stalled]),
    ];
    for (state, steps) in steps {
        let now = Instant::now();
        let (mut table, key) = with_one(now);
        for step in steps {
            assert!(table.record(now, key, *step));
        }
        assert_eq!(table.state(key), Some(state));
        drain(&mut table);
        table.close(now, key, DONE);
        table.close(now, key, Reason::Kicked.into());
        assert!(table.record(now, key, What::Closed(Reason::Drain.into(), Counters::default())), "a harmless repeat");
        assert_eq!(drain_what(&mut table), [What::Closed(DONE, Counters::default())], "{state:?}");
        assert!(table.is_empty());
        assert_eq!(table.illegal(), 0, "closing twice is harmless");
    }
}

#[test]
fn a_repeat_reports_nothing_and_is_no_defect() {
    let now = Instant::now();
    let (mut table, key) = with_one(now);
    assert!(table.record(now, key, What::Started));
    assert!(table.record(now, key, What::Started));
    assert!(table.record(now, key, What::Stalled));
    assert!(table.record(now, key, What::Stalled));
    assert_eq!(drain_what(&mut table), [What::Started, What::Stalled]);
    assert_eq!(table.illegal(), 0);
}

#[test]
fn an_illegal_trigger_reports_nothing_and_is_counted() {
    let now = Instant::now();
    let (mut table, key) = with_one(now);
    assert!(!table.record(now, key, What::Opened));
    assert!(!table.record(now, key, What::Stalled));
    assert!(!table.record(now, key, What::Overflowed { dropped_frames: 1 }));
    assert_eq!(table.illegal(), 3);
    assert_eq!(table.state(key), Some(State::Establishing));
    table.close(now, key, DONE);
    assert!(!table.record(now, key, What::Started), "nothing starts after the end");
    assert_eq!(table.illegal(), 4);
    let changes = drain(&mut table);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].seq, 2, "what was refused leaves no gap");
}

#[test]
fn a_verdict_that_comes_after_the_end_is_harmless() {
    let now = Instant::now();
    let (mut table, key) = with_one(now);
    table.close(now, key, DONE);
    drain(&mut table);
    assert!(table.record(now, key, What::Authorized));
    assert!(table.record(now, key, What::Denied(Reason::AuthDenied.into())));
    assert_eq!(drain_what(&mut table), []);
    assert_eq!(table.illegal(), 0);
}

#[test]
fn after_a_refusal_only_the_end_follows() {
    let now = Instant::now();
    let denied = What::Denied(Reason::AuthDenied.into());
    let (mut table, key) = with_one(now);
    assert!(table.record(now, key, denied));
    assert!(table.record(now, key, denied), "a second refusal is a repeat");
    assert!(!table.record(now, key, What::Started));
    table.close(now, key, Reason::AuthDenied.into());
    assert_eq!(drain_what(&mut table), [denied, What::Closed(Reason::AuthDenied.into(), Counters::default())]);
    assert_eq!(table.illegal(), 1);
}

#[test]
fn a_stale_key_refers_to_nothing_even_when_its_place_is_used_again() {
    let now = Instant::now();
    let key = stream_key();
    let mut table = Table::default();
    let old = table.open(now, facts(1, now, &key));
    table.close(now, old, DONE);
    let new = table.open(now, facts(2, now, &key));
    drain(&mut table);
    table.sample_changed(&mut Vec::new());

    assert_ne!(old, new);
    assert!(table.counters_mut(old).is_none());
    assert!(table.counters(old).is_none());
    assert!(table.facts(old).is_none());
    assert!(table.state(old).is_none());
    assert!(table.queue_bytes(old).is_none());
    table.set_queue(old, 1_000);
    table.close(now, old, Reason::Kicked.into());
    assert!(!table.record(now, old, What::Started));

    assert_eq!(drain_what(&mut table), []);
    assert_eq!(table.state(new), Some(State::Establishing));
    assert_eq!(table.queue_bytes(new), Some(0));
    let mut samples = Vec::new();
    table.sample_changed(&mut samples);
    assert_eq!(samples, [], "and marks nothing as changed");
}

#[test]
fn a_session_is_found_by_its_id_while_it_is_open() {
    let now = Instant::now();
    let (mut table, key) = with_one(now);
    let id = table.facts(key).unwrap().id;
    assert_eq!(table.find(id), Some(key));
    assert_eq!(table.len(), 1);
    table.close(now, key, DONE);
    assert_eq!(table.find(id), None);
    assert_eq!(table.len(), 0);
}

#[test]
fn an_id_opened_twice_is_counted_and_each_session_still_ends_once() {
    let now = Instant::now();
    let (mut table, first) = with_one(now);
    let id = table.facts(first).unwrap().id;
    let second = table.open(now, facts(1, now, &stream_key()));
    assert_eq!(table.illegal(), 1);
    assert_eq!(table.find(id), Some(second));
    table.close(now, first, DONE);
    assert_eq!(table.find(id), Some(second), "the end of one does not hide the other");
    table.close(now, second, DONE);
    assert_eq!(table.find(id), None);
    let closed = drain_what(&mut table).into_iter().filter(|what| matches!(what, What::Closed(..)));
    assert_eq!(closed.count(), 2);
}

#[test]
fn a_sample_is_taken_of_what_changed_and_of_nothing_else() {
    let now = Instant::now();
    let key = stream_key();
    let mut table = Table::default();
    let keys: Vec<SessionKey> = (0..100).map(|count| table.open(now, facts(count, now, &key))).collect();
    let id = |table: &Table, count: usize| table.facts(keys[count]).unwrap().id;
    let mut samples = Vec::new();
    table.sample_changed(&mut samples);
    assert_eq!(samples.len(), 100, "a new session is a change");
    samples.clear();
    table.sample_changed(&mut samples);
    assert_eq!(samples, [], "once");

    table.counters_mut(keys[3]).unwrap().tx_frames += 1;
    table.counters_mut(keys[3]).unwrap().tx_bytes += 10;
    table.set_queue(keys[5], 500);
    table.set_queue(keys[6], 0);
    table.record(now, keys[7], What::Started);
    table.record(now, keys[8], What::Authorized);
    table.counters_mut(keys[9]).unwrap().tx_bytes += 10;
    let (three, five, seven) = (id(&table, 3), id(&table, 5), id(&table, 7));
    table.close(now, keys[9], DONE);
    table.sample_changed(&mut samples);
    let by_id: HashMap<_, _> = samples.iter().map(|sample| (sample.id, *sample)).collect();
    assert_eq!((samples.len(), by_id.len()), (3, 3), "each once, and nothing of what closed");
    assert_eq!(by_id[&three].counters, Counters { tx_frames: 1, tx_bytes: 10, ..Counters::default() });
    assert_eq!((by_id[&five].queue_bytes, by_id[&five].counters.queue_peak_bytes), (500, 500));
    assert_eq!(by_id[&seven].state, State::Running);
}

#[test]
fn the_queue_keeps_its_peak() {
    let now = Instant::now();
    let (mut table, key) = with_one(now);
    for bytes in [100, 900, 300] {
        table.set_queue(key, bytes);
    }
    assert_eq!(table.queue_bytes(key), Some(300));
    assert_eq!(table.counters(key).unwrap().queue_peak_bytes, 900);
}
