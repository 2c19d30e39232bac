//! What streams obey.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::stdx::units;

/// `[stream]`: caches and queues. One stream on one shard holds at most
/// `gop_bytes + queue_bytes` and one block (64 KiB) of packaged media, whatever the number of players.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Largest group of pictures kept for newcomers. Beyond it the cache is dropped until the next keyframe.
    #[serde(with = "units::bytes")]
    pub gop_bytes: u64,
    /// Longest group of pictures kept.
    #[serde(with = "units::duration")]
    pub gop_duration: Duration,
    /// How far a player may lag behind, in bytes. More hides longer network hiccups and costs memory per stream.
    #[serde(with = "units::bytes")]
    pub queue_bytes: u64,
    /// How far a player may lag behind, in time.
    #[serde(with = "units::duration")]
    pub queue_time: Duration,
    /// A player whose cursor falls out of the window this many times within `overflow_window` is closed.
    pub overflows_max: u32,
    /// See `overflows_max`.
    #[serde(with = "units::duration")]
    pub overflow_window: Duration,
    /// How long a stream outlives its publisher: a publisher back within it keeps its viewers.
    #[serde(with = "units::duration")]
    pub resume_window: Duration,
    /// Frames that may wait between two shards for one stream.
    pub relay_frames: usize,
    /// Bytes that may wait between two shards for one stream.
    #[serde(with = "units::bytes")]
    pub relay_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            gop_bytes: 16 << 20,
            gop_duration: Duration::from_secs(20),
            queue_bytes: 4 << 20,
            queue_time: Duration::from_secs(5),
            overflows_max: 3,
            overflow_window: Duration::from_mins(1),
            resume_window: Duration::from_secs(10),
            relay_frames: 4_096,
            relay_bytes: 16 << 20,
        }
    }
}
