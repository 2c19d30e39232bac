//! What a session costs in memory, and that counting and sampling cost none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

use sluicegate::session::{Reason, SessionKey, Table, What};

use crate::support::{facts, stream_key};

/// The system's allocator, counted for the thread that asks.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

fn count(calls: u64, bytes: usize, freed: usize) {
    // A thread that is ending may still free; it is nobody's measurement.
    let _ = CALLS.try_with(|cell| cell.set(cell.get() + calls));
    let _ = BYTES.try_with(|cell| cell.set(cell.get() + bytes.cast_signed() - freed.cast_signed()));
}

// SAFETY: every call is handed to the system's allocator unchanged; counting touches only thread-local cells
// that need no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size(), 0);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, 0, layout.size());
        // SAFETY: `memory` came from `alloc` above, which is the system's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size, layout.size());
        // SAFETY: as above, and `size` is the caller's promise.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SESSIONS: usize = 10_000;

#[test]
fn an_idle_session_takes_less_than_700_bytes() {
    let now = Instant::now();
    let key = stream_key();
    let before = BYTES.get();
    let mut table = Table::default();
    for count in 0..SESSIONS as u64 {
        table.open(now, facts(count, now, &key));
        while table.poll_change().is_some() {}
    }
    let each = usize::try_from(BYTES.get() - before).unwrap() / SESSIONS;
    println!("{each} bytes for each of {SESSIONS} idle sessions, facts included");
    assert!((1..700).contains(&each), "{each} bytes");
}

#[test]
fn counting_and_sampling_do_not_allocate() {
    let now = Instant::now();
    let key = stream_key();
    let mut table = Table::default();
    let mut samples = Vec::with_capacity(SESSIONS);
    // They come one by one, so that never more than one has changed before all of them do.
    let mut keys: Vec<SessionKey> = Vec::new();
    for count in 0..SESSIONS as u64 {
        keys.push(table.open(now, facts(count, now, &key)));
        samples.clear();
        table.sample_changed(&mut samples);
        while table.poll_change().is_some() {}
    }

    let before = CALLS.get();
    for round in 0..3 {
        for key in &keys {
            table.counters_mut(*key).unwrap().tx_bytes += 1_316;
            table.set_queue(*key, round);
            table.record(now, *key, if round % 2 == 0 { What::Started } else { What::Stalled });
            while table.poll_change().is_some() {}
        }
        samples.clear();
        table.sample_changed(&mut samples);
        assert_eq!(samples.len(), keys.len());
    }
    assert_eq!(CALLS.get() - before, 0);
}

#[test]
fn places_are_used_again() {
    let now = Instant::now();
    let key = stream_key();
    let mut table = Table::default();
    let round = |table: &mut Table, base: u64| {
        let keys: Vec<SessionKey> = (0..100).map(|count| table.open(now, facts(base + count, now, &key))).collect();
        for key in keys {
            table.close(now, key, Reason::ClientDone.into());
        }
        while table.poll_change().is_some() {}
        BYTES.get()
    };
    // The map of ids settles its own spare room in the first rounds.
    let settled = (0..10).map(|repeat| round(&mut table, repeat * 100)).max().unwrap();
    for repeat in 10..60 {
        let held = round(&mut table, repeat * 100);
        assert!(held <= settled, "{held} bytes are held after {repeat} rounds, {settled} after ten");
    }
}
