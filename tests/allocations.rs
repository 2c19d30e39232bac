//! Fan-out allocates nothing: not per player, not per frame, not on the way.
#![allow(missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluicegate::media::{Frame, FrameFlags, Track};
use sluicegate::names::{Name, StreamKey};
use sluicegate::stream::{Cursor, Due, Live, Package, Settings};

/// The system's allocator, counting what the calling thread asks of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is being torn down is not one that is measured.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every call goes to the system's allocator with the arguments as they came; counting touches only
// a constant-initialised thread-local that neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `System` with this layout, because all of ours do.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`; `size` is the caller's to answer for.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

struct Plain;

impl Package for Plain {
    fn package(&self, frame: &Frame, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0; 12]);
        out.extend_from_slice(&frame.payload);
    }
}

static PAYLOAD: [u8; 40_000] = [7; 40_000];

fn frame(n: u64) -> Frame {
    let is_audio = n % 2 == 1;
    let flags = FrameFlags { keyframe: n.is_multiple_of(100), ..FrameFlags::default() };
    let track = if is_audio { Track::Audio } else { Track::Video };
    let len = match (flags.keyframe, is_audio) {
        (true, _) => 40_000,
        (false, true) => 300,
        (false, false) => 9_000,
    };
    Frame::new(track, n * 20, flags, Bytes::from_static(&PAYLOAD[..len]))
}

/// Bytes the kernel takes from one player in one call.
type Appetite = fn(usize) -> usize;

fn fan_out(appetite: Appetite, mask: fn(usize) -> (bool, bool)) -> u64 {
    const PLAYERS: usize = 1_000;
    const WARM: u64 = 1_000;
    const MEASURED: u64 = 300;
    let settings = Settings { overflows_max: 1_000_000, ..Settings::default() };
    let start = Instant::now();
    let part = |text| Name::app(text).unwrap();
    let mut live = Live::new(StreamKey::new(&part("v"), &part("a"), &part("s")), &settings, start);
    live.publisher_joined(start);
    live.push(start, frame(0), &Plain);
    let mut players: Vec<Cursor> = (0..PLAYERS).map(|_| Cursor::join(&live, start)).collect();
    for (n, player) in players.iter_mut().enumerate() {
        let (audio, video) = mask(n);
        player.set_tracks(audio, video);
    }
    let mut before = 0;
    let mut written = 0;
    for n in 1..WARM + MEASURED {
        if n == WARM {
            before = allocations();
        }
        let now = start + Duration::from_millis(n * 20);
        live.push(now, frame(n), &Plain);
        for (place, player) in players.iter_mut().enumerate() {
            let mut due = player.due(&live, &settings, now);
            if matches!(due, Due::Jumped { .. }) {
                due = player.due(&live, &settings, now);
            }
            let Due::Bytes(_) = due else { continue };
            let mut slices = [IoSlice::new(&[]); 16];
            let count = player.slices(&live, 1 << 20, &mut slices);
            let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
            let taken = offered.min(appetite(place));
            written += player.on_written(&live, taken as u64).frames;
        }
    }
    assert!(written > MEASURED * PLAYERS as u64 / 4, "{written} frames: nothing was measured");
    allocations() - before
}

#[test]
fn players_that_keep_up_cost_no_allocation() {
    assert_eq!(fan_out(|_| usize::MAX, |_| (true, true)), 0);
}

#[test]
fn partial_writes_cost_no_allocation() {
    assert_eq!(fan_out(|place| 9_000 + place * 17, |_| (true, true)), 0);
}

#[test]
fn players_without_sound_or_without_pictures_cost_no_allocation() {
    assert_eq!(fan_out(|_| usize::MAX, |place| (place % 2 == 0, place % 2 == 1)), 0);
}
