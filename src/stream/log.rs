//! Packaged bytes of one wire form, shared by all players of a stream on a shard.

use std::io::IoSlice;

/// An append-only byte log with an index of frames. Offsets count from the stream's beginning and never
/// repeat; the front is trimmed as the window moves on.
pub struct Log(());

impl Log {
    /// The offset one past the newest byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        todo!("H4")
    }

    /// The offset of the oldest byte still held.
    #[must_use]
    pub fn start(&self) -> u64 {
        todo!("H4")
    }

    /// Fills `out` with the bytes from `from` on, up to `max_bytes` and as many slices as `out` takes;
    /// returns how many slices were filled. No copy, no allocation.
    pub fn slices<'a>(&'a self, _from: u64, _max_bytes: usize, _out: &mut [IoSlice<'a>]) -> usize {
        todo!("H4")
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory(&self) -> usize {
        todo!("H4")
    }
}
