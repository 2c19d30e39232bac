//! A stream as it is on one shard.

use std::time::Instant;

use crate::media::Frame;
use crate::names::StreamKey;
use crate::stream::{Log, Package, Settings, StreamSample, Subscriber};

/// What every newcomer needs before media.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    /// `onMetaData`, byte for byte.
    pub metadata: Option<Frame>,
    /// Decoder configuration of each audio track.
    pub audio: Vec<Frame>,
    /// Decoder configuration of each video track.
    pub video: Vec<Frame>,
    /// Moves whenever any of the above changes.
    pub generation: u32,
}

/// One stream on one shard: homed here or relayed from its home.
pub struct Live(());

impl Live {
    /// A stream without a publisher yet.
    #[must_use]
    pub fn new(_key: StreamKey, _settings: &Settings, _now: Instant) -> Self {
        todo!("H4")
    }

    /// Its name.
    #[must_use]
    pub fn key(&self) -> &StreamKey {
        todo!("H4")
    }

    /// A publisher (or a relay from its home shard) begins. Timestamps continue where the previous one ended.
    pub fn publisher_joined(&mut self, _now: Instant) {
        todo!("H4")
    }

    /// The publisher is gone; the resume window begins.
    pub fn publisher_left(&mut self, _now: Instant) {
        todo!("H4")
    }

    /// True while somebody publishes.
    #[must_use]
    pub fn is_published(&self) -> bool {
        todo!("H4")
    }

    /// When the resume window ends, if it runs.
    #[must_use]
    pub fn resume_deadline(&self) -> Option<Instant> {
        todo!("H4")
    }

    /// Takes one frame: keeps headers, packages it once, appends, trims. Returns the frame as it went out
    /// (timestamps rebased), for the relays.
    pub fn push(&mut self, _now: Instant, _frame: Frame, _package: &dyn Package) -> Frame {
        todo!("H4")
    }

    /// What a newcomer needs first.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        todo!("H4")
    }

    /// The packaged bytes.
    #[must_use]
    pub fn log(&self) -> &Log {
        todo!("H4")
    }

    /// Adds a player.
    pub fn subscribe(&mut self, _who: Subscriber) {
        todo!("H4")
    }

    /// Removes a player; constant time.
    pub fn unsubscribe(&mut self, _who: Subscriber) {
        todo!("H4")
    }

    /// The players on this shard.
    #[must_use]
    pub fn subscribers(&self) -> &[Subscriber] {
        todo!("H4")
    }

    /// How far the publisher's media time runs ahead of the wall clock since it joined.
    #[must_use]
    pub fn lead(&self, _now: Instant) -> std::time::Duration {
        todo!("H4")
    }

    /// Numbers for the API.
    #[must_use]
    pub fn sample(&self, _now: Instant) -> StreamSample {
        todo!("H4")
    }
}
