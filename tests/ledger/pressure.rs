//! What leaves first when records wait in memory.

use std::sync::{Arc, Mutex, MutexGuard};

use sluicegate::event::{Event, ServerEvent, ServerWhat, Weight};
use sluicegate::ledger::{Dropped, Settings, Tell};
use sluicegate::names::Kind;
use sluicegate::session::{Change, What};

use crate::support::*;

/// A ledger whose disk stands still, so that everything waits.
fn standing(gate: &Arc<Mutex<()>>, folder: &std::path::Path, queue_bytes: u64) -> Bed {
    let settings = Settings { queue_bytes, ..settings(folder) };
    let (mut opened, start) = open(&settings, NOON_MS);
    recover(&mut opened);
    let at_the_gate = Arc::clone(gate);
    let opened = opened.with_obstacle(Arc::new(move |_, _| {
        drop(at_the_gate.lock().unwrap());
        Ok(())
    }));
    Bed::started(opened, start, NOON_MS)
}

/// Lets the writer take one event and stand still with it.
fn stand_still<'a>(bed: &mut Bed, gate: &'a Mutex<()>) -> MutexGuard<'a, ()> {
    let closed = gate.lock().unwrap();
    let facts = bed.facts(1_000_000, Kind::Play, 0);
    bed.happens(&facts, 1, 0, What::Opened);
    std::thread::sleep(std::time::Duration::from_millis(30));
    closed
}

/// Fills the queue up to a share of its bound with what must be told.
fn fill(bed: &mut Bed, percent: u64) {
    let mut n = 0;
    while bed.status().queue_bytes * 100 < bed.status().queue_bytes_max * percent {
        n += 1;
        let event = Event::Server(ServerEvent { at: bed.start, what: ServerWhat::Ready });
        let event_id = format!("fill-{percent}-{n}");
        let tell =
            Tell { sink: SINK.into(), event_id, weight: Weight::Must, session: None, body: vec![0; 4_096].into() };
        bed.record(event, vec![tell]);
    }
}

fn update(bed: &mut Bed, n: u64, seq: u32) {
    let facts = bed.facts(n, Kind::Play, 0);
    let change = Change { facts, seq, at: bed.after(0), what: What::Updated(bytes(1, 1)) };
    let tell = tell_of(&change, Weight::Update);
    bed.record(Event::Session(change), vec![tell]);
}

#[test]
fn checkpoints_thin_out_above_half_and_stop_above_four_fifths() {
    let (folder, gate) = (folder(), Arc::new(Mutex::new(())));
    let mut bed = standing(&gate, folder.path(), 4 << 20);
    let closed = stand_still(&mut bed, &gate);
    let facts = bed.facts(1, Kind::Play, 0);
    let mut at = 0;
    // The seconds between checkpoints, and how many of thirteen in sixty seconds pass.
    for (percent, pass) in [(0, 13), (55, 6), (70, 2), (85, 0)] {
        fill(&mut bed, percent);
        at += 3_600_000;
        let before = bed.status().dropped.checkpoints;
        for second in (0..=60).step_by(5) {
            bed.ledger.checkpoint(bed.after(at + second * 1_000), vec![(facts.id, bytes(second, second))]);
        }
        let dropped = bed.status().dropped.checkpoints - before;
        let kept = 13 - dropped;
        assert!(kept.abs_diff(pass) <= 1, "{kept} of 13 at {percent} percent");
    }
    drop(closed);
    bed.settle();
    bed.stop();
}

#[test]
fn above_four_fifths_only_openings_and_ends_are_taken() {
    let (folder, gate) = (folder(), Arc::new(Mutex::new(())));
    let mut bed = standing(&gate, folder.path(), 4 << 20);
    let closed = stand_still(&mut bed, &gate);
    fill(&mut bed, 70);
    let ran = bed.facts(1, Kind::Play, 0);
    bed.happens(&ran, 1, 0, What::Opened);
    update(&mut bed, 1, 2);
    assert_eq!(bed.status().dropped, Dropped::default());
    fill(&mut bed, 82);
    update(&mut bed, 1, 3);
    let event = Event::Server(ServerEvent { at: bed.start, what: ServerWhat::Ready });
    let body = vec![1].into();
    bed.record(
        event,
        vec![Tell { sink: SINK.into(), event_id: "o".into(), weight: Weight::Other, session: None, body }],
    );
    bed.happens(&ran, 4, 9, What::Closed(done(), bytes(7, 8)));
    let expected = Dropped { updates: 1, tells_update: 1, tells_other: 1, ..Dropped::default() };
    assert_eq!(bed.status().dropped, expected);
    drop(closed);
    bed.settle();
    let found = rows(folder.path());
    let row = found.iter().find(|row| row.id == ran.id).unwrap();
    assert_eq!((row.seq, row.rx_bytes, row.tx_bytes), (4, 7, 8));
    bed.stop();
}

#[test]
fn a_full_queue_loses_checkpoints_then_updates_and_openings_last() {
    let (folder, gate) = (folder(), Arc::new(Mutex::new(())));
    let mut bed = standing(&gate, folder.path(), 1 << 20);
    let closed = stand_still(&mut bed, &gate);
    let samples: Vec<_> = (0..100).map(|n| (bed.facts(n, Kind::Play, 0).id, bytes(1, 1))).collect();
    bed.ledger.checkpoint(bed.after(0), samples);
    for n in 0..200 {
        update(&mut bed, n, 2);
    }
    fill(&mut bed, 79);
    assert_eq!(bed.status().dropped, Dropped::default());
    // Lives until the queue overflows.
    let mut opened = 0;
    let mut seen = Vec::new();
    while bed.status().dropped.opens == 0 {
        opened += 1;
        let facts = bed.facts(10_000 + opened, Kind::Play, 0);
        bed.happens(&facts, 1, 0, What::Opened);
        seen.push(bed.status().dropped);
        assert!(bed.status().queue_bytes <= bed.status().queue_bytes_max);
    }
    let first = seen.iter().find(|dropped| dropped.checkpoints > 0).unwrap();
    assert_eq!((first.checkpoints, first.opens, first.closes), (100, 0, 0), "the counters of what runs went first");
    let before = seen.iter().rev().find(|dropped| dropped.opens == 0).unwrap();
    assert_eq!((before.updates, before.tells_update), (200, 200), "then all updates");
    // The watermark passes what was dropped as soon as what came before it is settled.
    let number = bed.number;
    drop(closed);
    bed.wait_for(number);
    let dropped = bed.status().dropped;
    assert_eq!(rows(folder.path()).len() as u64, 1 + opened - dropped.opens, "{dropped:?}");
    bed.stop();
}

#[test]
fn the_end_of_a_session_whose_opening_was_dropped_is_on_record() {
    let (folder, gate) = (folder(), Arc::new(Mutex::new(())));
    let mut bed = standing(&gate, folder.path(), 256 << 10);
    let closed = stand_still(&mut bed, &gate);
    let first = bed.facts(1, Kind::Publish, 0);
    bed.happens(&first, 1, 0, What::Opened);
    let mut n = 1;
    while bed.status().dropped.opens == 0 {
        n += 1;
        let facts = bed.facts(n, Kind::Play, 0);
        bed.happens(&facts, 1, 0, What::Opened);
    }
    drop(closed);
    bed.settle();
    assert!(!rows(folder.path()).iter().any(|row| row.id == first.id), "the oldest opening was dropped");
    bed.happens(&first, 2, 10, What::Closed(done(), bytes(3, 4)));
    bed.settle();
    let found = rows(folder.path());
    let row = found.iter().find(|row| row.id == first.id).unwrap();
    assert_eq!((row.rx_bytes, row.reason.as_deref()), (3, Some("client_done")));
    bed.stop();
}
