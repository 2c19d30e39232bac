//! One flag that the runtime's rings are to be made with and that the runtime has no setting for.
//!
//! A completion that arrives while its thread runs is announced by interrupting the core. On a virtual machine that is
//! an exit to the hypervisor on both sides, for every message of every connection, and it gains nothing: an executor
//! looks for completions between its tasks and makes a system call every few microseconds, where the kernel finishes
//! them in passing. `IORING_SETUP_COOP_TASKRUN` (Linux 5.19) asks for that. `build.rs` has the linker hand the
//! runtime's call of `io_uring_setup` to this file.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// True once a ring of this process was made with the flag. False means a kernel before 5.19, or a program that was
/// linked without `build.rs`: slower, and otherwise the same.
#[must_use]
pub fn is_cooperative() -> bool {
    COOPERATIVE.load(Ordering::Relaxed)
}

static COOPERATIVE: AtomicBool = AtomicBool::new(false);

/// Completions wait for the thread's next system call or interrupt.
const COOP_TASKRUN: u32 = 1 << 8;

/// `struct io_uring_params` up to the field that matters here, followed by what the kernel fills in.
#[repr(C)]
pub struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    rest: [u32; 27],
}

/// The `io_uring_setup` of the runtime's C library: a descriptor, or -1 with `errno`.
///
/// # Safety
/// `params` points at a `struct io_uring_params` that is ours for the length of the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap___sys_io_uring_setup(entries: libc::c_uint, params: *mut Params) -> libc::c_int {
    // SAFETY: the caller's promise.
    let params = unsafe { &mut *params };
    params.flags |= COOP_TASKRUN;
    let fd = setup(entries, params);
    if fd >= 0 {
        COOPERATIVE.store(true, Ordering::Relaxed);
        return fd;
    }
    if io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
        return fd;
    }
    // A kernel that does not know the flag.
    params.flags &= !COOP_TASKRUN;
    setup(entries, params)
}

fn setup(entries: libc::c_uint, params: &mut Params) -> libc::c_int {
    // SAFETY: the kernel reads and writes `size_of::<Params>()` bytes, which are borrowed for the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, std::ptr::from_mut(params)) };
    libc::c_int::try_from(fd).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::probe;

    #[test]
    fn the_runtime_makes_its_rings_with_the_flag_where_the_kernel_knows_it() {
        let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound)
            .ring_depth(8)
            .io_memory(probe::IO_MEMORY_BYTES)
            .make()
            .unwrap();
        assert_eq!(executor.run(async { 7 }), 7);
        assert_eq!(is_cooperative(), probe::kernel().unwrap() >= (5, 19));
    }
}
