//! Anonymous memory of whole pages, of which no part is ever a huge page: whoever registers a part of one with a ring is
//! charged for all of it, two megabytes.

use std::{io, ptr};

/// Has the kernel give this process memory by the page from now on, never by the huge page.
///
/// A huge page is cleared when the first byte of it is touched: a tenth of a millisecond of a shard's time, and several where
/// the machine is itself a guest whose host has to find the memory. A table of control's that grew at 5,000 starts a second
/// held up everybody's answer for 100 ms. What fewer misses in the translation of addresses save is below what can be
/// measured in a fan-out to 4,000.
pub fn without_huge_pages() {
    // A kernel without huge pages refuses, and does not need it.
    // SAFETY: the call takes numbers and touches no memory.
    let _ = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// A zeroed mapping of its own; null where there is no room. [`unmap`] gives it back.
#[must_use]
pub fn map(bytes: usize) -> *mut u8 {
    let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping wherever there is room touches no memory that anybody has.
    let block = unsafe { libc::mmap(ptr::null_mut(), bytes, rights, kind, -1, 0) };
    if block == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    // A kernel without huge pages does not know the advice and does not need it.
    // SAFETY: the range is the mapping just made, and the advice changes no byte of it.
    let _ = unsafe { libc::madvise(block, bytes, libc::MADV_NOHUGEPAGE) };
    block.cast()
}

/// Gives a mapping back.
///
/// # Safety
/// `block` came from [`map`] with the same length, and nobody uses it any more.
pub unsafe fn unmap(block: *mut u8, bytes: usize) {
    // SAFETY: by the caller's word the range is a mapping of ours that is done with.
    unsafe { libc::munmap(block.cast(), bytes) };
}

/// A mapping that is given back when it is dropped.
pub struct Pages {
    address: *mut u8,
    bytes: usize,
}

impl Pages {
    /// So many bytes of it.
    ///
    /// # Errors
    /// Those of `mmap(2)`.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let address = map(bytes);
        if address.is_null() { Err(io::Error::last_os_error()) } else { Ok(Self { address, bytes }) }
    }

    /// Where it is, for the kernel.
    #[must_use]
    pub fn iovec(&self) -> libc::iovec {
        libc::iovec { iov_base: self.address.cast(), iov_len: self.bytes }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing else holds a pointer to it: rings pin pages, not addresses.
        unsafe { unmap(self.address, self.bytes) };
    }
}
