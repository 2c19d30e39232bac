//! An engine tied to session, stream and admission; one file per protocol.
//!
//! Adapters know nothing of sockets: bytes come in as slices and go out through a [`Wire`]. What they share on a
//! shard is the [`Core`].

pub mod core;
pub mod guard;
pub mod rtmp;
pub mod settings;
pub mod streams;

pub use core::{Core, Outgoing};
pub use guard::Guard;
pub use rtmp::{Offered, Rtmp};
pub use settings::Settings;
pub use streams::{StreamSlot, Streams};

use std::io::IoSlice;

/// Where an adapter's bytes go: one write that does not block.
pub trait Wire {
    /// Offers `slices` in order.
    fn send(&mut self, slices: &[IoSlice<'_>]) -> Sent;
}

/// What became of the bytes offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// So many were taken; fewer than offered means that the peer is full.
    Bytes(usize),
    /// None were taken: the peer is full.
    Blocked,
    /// The peer is gone.
    Gone,
}

/// Where a connection stands after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Everything due is out.
    Idle,
    /// The peer is full; more is due.
    Blocked,
    /// The turn is over and more is due: others first.
    More,
    /// The peer is gone.
    Gone,
    /// The rule for slow players says: close.
    GiveUp,
}
