//! Who must not come back yet.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use crate::admission::{Request, Settings};
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
///
/// An address is one address however it is written: `::ffff:192.0.2.1` is banned as `192.0.2.1`, which is how a
/// dual-stack listener and an IPv4 listener see the same peer.
pub struct Bans {
    max: usize,
    /// By whom it concerns. The names in the key come from peers, so the hash is the seeded one of std.
    until: HashMap<Subject, Place>,
    /// The same bans by when they end.
    ends: BTreeMap<Place, Subject>,
    inserted: u64,
}

/// Whom a ban concerns.
type Subject = (IpAddr, Kind, StreamKey);

/// When a ban ends, and the count of insertions that tells apart those which end together.
type Place = (Instant, u64);

/// Bans that [`Bans::expire`] forgets in one call. A tick may be late by this many and no more; what it leaves
/// is no longer in force, only not yet forgotten.
const EXPIRED_PER_CALL: usize = 256;

impl Default for Bans {
    fn default() -> Self {
        Self::new(Settings::default().bans_max)
    }
}

impl Bans {
    /// Bans that hold at most `max` entries; with 0, none.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, until: HashMap::new(), ends: BTreeMap::new(), inserted: 0 }
    }

    /// Adds or extends one; a ban that is in force is never shortened by another. At the limit the ban that
    /// ends first leaves: the newcomer is an order just given, and enters.
    pub fn insert(&mut self, now: Instant, ban: Ban) {
        if ban.until <= now || self.max == 0 {
            return;
        }
        let subject = (ban.address.to_canonical(), ban.kind, ban.key);
        match self.until.get(&subject) {
            Some((until, _)) if *until >= ban.until => return,
            Some(place) => {
                self.ends.remove(place);
            }
            None => {
                if self.until.len() >= self.max
                    && let Some((_, first)) = self.ends.pop_first()
                {
                    self.until.remove(&first);
                }
            }
        }
        let place = (ban.until, self.inserted);
        self.inserted += 1;
        self.ends.insert(place, subject.clone());
        self.until.insert(subject, place);
    }

    /// Lifts one.
    pub fn remove(&mut self, address: IpAddr, kind: Kind, key: &StreamKey) {
        if let Some(place) = self.until.remove(&(address.to_canonical(), kind, key.clone())) {
            self.ends.remove(&place);
        }
    }

    /// True while `request` is banned.
    #[must_use]
    pub fn is_banned(&self, now: Instant, request: &Request) -> bool {
        // Cloning a key counts a reference; nothing is copied.
        let subject = (request.remote.ip().to_canonical(), request.kind, request.key.clone());
        self.until.get(&subject).is_some_and(|(until, _)| now < *until)
    }

    /// Forgets what has ended; bounded work per call.
    pub fn expire(&mut self, now: Instant) {
        for _ in 0..EXPIRED_PER_CALL {
            match self.ends.first_entry() {
                Some(first) if first.key().0 <= now => {
                    self.until.remove(&first.remove());
                }
                _ => break,
            }
        }
    }

    /// How many are held, those included that have ended and are not yet forgotten.
    #[must_use]
    pub fn len(&self) -> usize {
        self.until.len()
    }

    /// True without bans.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
