//! A player's place in a log.

use std::time::Instant;

use crate::stream::{Live, Settings};

/// What a player is owed right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing new.
    Nothing,
    /// Bytes are waiting.
    Bytes(u64),
    /// The cursor fell out of the window and jumped to the next keyframe; `dropped_frames` were skipped.
    /// When `headers_changed`, the stream's headers must be sent again before the log's bytes.
    Jumped {
        /// Frames skipped.
        dropped_frames: u64,
        /// The configuration changed in what was skipped.
        headers_changed: bool,
    },
    /// It keeps happening: close as `slow_consumer`.
    GiveUp,
}

/// What a write completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Frames that are now out whole.
    pub frames: u64,
    /// Their media payload bytes, packaging left out.
    pub media_bytes: u64,
}

/// A place in a log. A few dozen bytes; all there is of a player's queue.
#[derive(Clone, Debug)]
pub struct Cursor(());

impl Cursor {
    /// A newcomer's cursor: at the newest group of pictures if the cache holds one, else waiting for the
    /// next keyframe (or, on a stream without video, for the next frame).
    #[must_use]
    pub fn join(_live: &Live, _now: Instant) -> Self {
        todo!("H4")
    }

    /// What is owed. Applies the overflow rule.
    pub fn due(&mut self, _live: &Live, _settings: &Settings, _now: Instant) -> Due {
        todo!("H4")
    }

    /// Records that the kernel took `bytes` of what `Log::slices` offered from [`offset`](Self::offset).
    pub fn on_written(&mut self, _live: &Live, _bytes: u64) -> Written {
        todo!("H4")
    }

    /// What is left of a frame that is half out; 0 at a frame's boundary.
    #[must_use]
    pub fn frame_remainder(&self, _live: &Live) -> u64 {
        todo!("H4")
    }

    /// The timestamp of the frame at the cursor, if there is one.
    #[must_use]
    pub fn timestamp_ms(&self, _live: &Live) -> Option<u64> {
        todo!("H4")
    }

    /// Fills `out` with what is due, at most `max_bytes`; returns how many slices were filled.
    pub fn slices<'a>(&'a self, _live: &'a Live, _max_bytes: usize, _out: &mut [std::io::IoSlice<'a>]) -> usize {
        todo!("H4")
    }

    /// Stops or goes on.
    pub fn pause(&mut self, _paused: bool) {
        todo!("H4")
    }

    /// Audio or none.
    pub fn set_audio(&mut self, _wanted: bool) {
        todo!("H4")
    }

    /// Video or none.
    pub fn set_video(&mut self, _wanted: bool) {
        todo!("H4")
    }

    /// Where the next byte comes from.
    #[must_use]
    pub fn offset(&self) -> u64 {
        todo!("H4")
    }
}
