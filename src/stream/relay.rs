//! The crossing of media between two shards: one queue per stream and pair of shards, bounded in frames
//! and bytes. Full means: drop up to the next keyframe, and count.

use crate::media::Frame;
use crate::stream::Settings;

/// What crosses.
#[derive(Clone, Debug)]
pub enum RelayItem {
    /// A frame.
    Frame(Frame),
    /// The publisher came.
    Online,
    /// The publisher left; the receiving shard starts its own resume window.
    Offline,
}

/// The home shard's end.
pub struct RelaySender(());
/// The other shard's end.
pub struct RelayReceiver(());

/// A new relay.
#[must_use]
pub fn relay(_settings: &Settings) -> (RelaySender, RelayReceiver) {
    todo!("H4")
}

impl RelaySender {
    /// Hands over one item. Online and Offline are never dropped. Returns false when it was dropped by the rule.
    pub fn send(&mut self, _item: RelayItem) -> bool {
        todo!("H4")
    }

    /// Frames dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        todo!("H4")
    }

    /// True when the other end is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        todo!("H4")
    }
}

impl RelayReceiver {
    /// The next item.
    pub fn recv(&mut self) -> Option<RelayItem> {
        todo!("H4")
    }

    /// True when the home shard's end is gone and nothing is left.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        todo!("H4")
    }
}
