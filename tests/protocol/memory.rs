//! An idle connection holds next to nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use sluicegate::proto::rtmp::Settings;
use sluicegate::proto::rtmp::server::Server;

use crate::support::Peer;

thread_local! {
    static LIVE_BYTES: Cell<isize> = const { Cell::new(0) };
}

/// Counts what the current thread holds.
struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator; the counter beside it is a plain cell of
// the calling thread and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LIVE_BYTES.try_with(|bytes| bytes.set(bytes.get() + layout.size() as isize));
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = LIVE_BYTES.try_with(|bytes| bytes.set(bytes.get() - layout.size() as isize));
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The heap that `server` holds: what dropping it gives back.
fn heap_of(server: Server) -> isize {
    let before = LIVE_BYTES.get();
    drop(server);
    before - LIVE_BYTES.get()
}

/// What the owner does in its loop: it asks for events and output until there are none.
fn settle(peer: &mut Peer) {
    peer.events();
    loop {
        let output = peer.server.output();
        if output.is_empty() {
            break;
        }
        let sent = output.len();
        output.drain(..sent);
    }
}

#[test]
fn an_idle_player_holds_less_than_one_and_a_half_kib() {
    let (mut peer, _) = Peer::playing();
    settle(&mut peer);
    let size = size_of::<Server>();
    let heap = heap_of(peer.server);
    assert!(size as isize + heap <= 1536, "struct {size}, heap {heap}");
}

#[test]
fn rt_10_a_connection_in_its_handshake_holds_what_it_sent() {
    let peer = Peer::new(Settings::default());
    let size = size_of::<Server>();
    let heap = heap_of(peer.server);
    assert!(size as isize + heap <= 1536, "struct {size}, heap {heap}");
}

#[test]
fn settings_are_shared_between_connections() {
    let settings = Arc::new(Settings::default());
    let now = std::time::Instant::now();
    let _servers: Vec<_> = (0..10).map(|_| Server::new(&settings, now)).collect();
    assert_eq!(Arc::strong_count(&settings), 11);
}
