//! The server and its command line.

use std::alloc::{GlobalAlloc, Layout};
use std::process::ExitCode;
use std::ptr;

use mimalloc::MiMalloc;
use sluicegate::io::pages;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// mimalloc, but for whole pages. Only the runtime asks for these, for buffers that it registers with its rings. mimalloc
/// would cut them from a huge page where it has one (an operator allows them, or it is older than `main`), and the kernel
/// charges each ring for all of a huge page, two megabytes: the three rings of two shards would have locked 12 MiB for
/// 384 KiB of buffers, where an ordinary user may lock 8.
struct Allocator;

/// What whole pages are aligned to.
const PAGE_BYTES: usize = 4_096;

// SAFETY: `is_paged` depends on the alignment alone, which is the same for a block's whole life, so a block goes back to
// where it came from. Those of mimalloc satisfy the contract by its own word. A fresh anonymous mapping is as long as it was
// asked for, zeroed, and aligned to a page, of which there is none smaller than `PAGE_BYTES`.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_paged(layout) {
            return pages::map(layout.size());
        }
        // SAFETY: the caller's promises are those that it wants.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_paged(layout) {
            // SAFETY: the block is a mapping of this size, and the caller has done with it.
            return unsafe { pages::unmap(block, layout.size()) };
        }
        // SAFETY: the block is one of its own; the caller's promises are those that it wants.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_paged(layout) {
            return pages::map(layout.size());
        }
        // SAFETY: the caller's promises are those that it wants.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if is_paged(layout) {
            let new = pages::map(bytes);
            if !new.is_null() {
                // SAFETY: both are as long as the shorter of the two, and a fresh mapping overlaps nothing.
                unsafe { ptr::copy_nonoverlapping(block, new, layout.size().min(bytes)) };
                // SAFETY: the caller gives the block up for the new one.
                unsafe { self.dealloc(block, layout) };
            }
            return new;
        }
        // SAFETY: the block is one of its own; the caller's promises are those that it wants.
        unsafe { MiMalloc.realloc(block, layout, bytes) }
    }
}

fn is_paged(layout: Layout) -> bool {
    layout.align() == PAGE_BYTES
}

fn main() -> ExitCode {
    // Who sets the allocator's own variable for it has decided: an operator's word goes first.
    if std::env::var_os("MIMALLOC_ALLOW_THP").is_none() {
        pages::without_huge_pages();
    }
    sluicegate::launch::cli::main()
}
