//! What flows: one publisher, many subscribers, on one shard.
//!
//! A [`Live`] stream keeps the metadata and sequence headers, and one [`Log`]: the packaged bytes of the
//! newest group of pictures and of the window that slow players may lag behind in. The log is the GOP
//! cache and the send queue of every player at once; a player owns only a [`Cursor`] into it.
//! Streams know nothing of sessions and nothing of engines: how a frame becomes bytes is a [`Package`].

pub mod cursor;
pub mod live;
pub mod log;
mod meter;
pub mod relay;
pub mod sample;
pub mod settings;
mod timeline;

pub use cursor::{Cursor, Due, Written};
pub use live::{Headers, Live};
pub use log::Log;
pub use relay::{RelayItem, RelayReceiver, RelaySender, relay};
pub use sample::StreamSample;
pub use settings::Settings;

use crate::media::Frame;

/// Turns frames into the bytes of one wire form. Called once per frame and shard, not per player.
pub trait Package {
    /// Appends the whole wire form of `frame` to `out`.
    fn package(&self, frame: &Frame, out: &mut Vec<u8>);
}

/// Who a subscriber is: the owner's key for its connection on this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber(pub usize);
