//! Who must not come back yet.

use std::net::IpAddr;
use std::time::Instant;

use crate::admission::Request;
use crate::names::{Kind, StreamKey};

/// One ban: an address in one role on one stream, until an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Whose.
    pub address: IpAddr,
    /// In which role.
    pub kind: Kind,
    /// On which stream.
    pub key: StreamKey,
    /// Until when.
    pub until: Instant,
}

/// The bans in force, bounded; looked up in constant time.
#[derive(Default)]
pub struct Bans(());

impl Bans {
    /// Bans that hold at most `max` entries.
    #[must_use]
    pub fn new(_max: usize) -> Self {
        todo!("H3")
    }

    /// Adds or extends one.
    pub fn insert(&mut self, _now: Instant, _ban: Ban) {
        todo!("H3")
    }

    /// Lifts one.
    pub fn remove(&mut self, _address: IpAddr, _kind: Kind, _key: &StreamKey) {
        todo!("H3")
    }

    /// True while `request` is banned.
    #[must_use]
    pub fn is_banned(&self, _now: Instant, _request: &Request) -> bool {
        todo!("H3")
    }

    /// Forgets what has ended; bounded work per call.
    pub fn expire(&mut self, _now: Instant) {
        todo!("H3")
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        todo!("H3")
    }

    /// True without bans.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
