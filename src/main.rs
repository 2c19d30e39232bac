//! The server and its command line.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The allocator's option `purge_delay` (`mimalloc.h`; the binding does not name it).
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// How long memory that nobody uses stays with the process, in milliseconds; ten times that where whole pages of an arena
/// are concerned. Its own default gives a page back a tenth of a second after a burst of sessions, and has the kernel
/// clear two new megabytes for the next: at 5,000 starts a second that was a tenth of the shard's time.
const PURGE_DELAY_MS: std::ffi::c_long = 1_000;

fn main() -> ExitCode {
    // An operator's `MIMALLOC_PURGE_DELAY` goes first.
    // SAFETY: it sets a number in the allocator's table of options, out of range it does nothing, and no other thread runs
    // yet that could read it meanwhile.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) };
    sluicegate::launch::cli::main()
}
