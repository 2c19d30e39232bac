//! The one ordered bus: a bounded ring of recorded events that consumers read with cursors.

use std::sync::Arc;

use crate::event::Event;

/// An event with its place in the order.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Counts from 1 since the server's start, without gaps.
    pub number: u64,
    /// The event.
    pub event: Arc<Event>,
}

/// A consumer's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub u64);

/// The ring. A consumer that falls behind by more than its capacity is told how many it missed.
pub struct Bus(());

impl Bus {
    /// A ring of `capacity` events.
    #[must_use]
    pub fn new(_capacity: usize) -> Self {
        todo!("H3")
    }

    /// Records one.
    pub fn publish(&mut self, _event: Event) -> Recorded {
        todo!("H3")
    }

    /// A cursor at the newest event.
    #[must_use]
    pub fn subscribe(&self) -> Cursor {
        todo!("H3")
    }

    /// The next event at or after `cursor`, with the number of events missed before it.
    pub fn next(&self, _cursor: &mut Cursor) -> Option<(u64, Recorded)> {
        todo!("H3")
    }
}
