//! Asking for memory before it is needed.

/// Begins to bring `value` into the cache and does not wait for it. A loop over many objects of a few hundred bytes each
/// otherwise waits for each of them when it gets there. Does nothing where the processor has no such instruction that
/// stable Rust knows.
#[inline]
pub fn fetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE_BYTES: usize = 64;
        let start = std::ptr::from_ref(value).cast::<i8>();
        for offset in (0..size_of::<T>()).step_by(LINE_BYTES) {
            // SAFETY: a prefetch reads nothing that the program sees and faults nowhere; the address lies within `value`.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
