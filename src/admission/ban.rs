//! Who must not come back yet.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use crate::admission::{Request, Settings};
use crate::names::{Kind, StreamKey};

/// One ban: who, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Whom.
    pub whom: Whom,
    /// Until when.
    pub until: Instant,
}

/// Whom a ban concerns: an address, everywhere or in one role, on every stream or on one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Whom {
    /// Whose.
    pub address: IpAddr,
    /// In which role; `None` in any.
    pub kind: Option<Kind>,
    /// On which stream; `None` on any.
    pub key: Option<StreamKey>,
}

impl Whom {
    /// The peer at `address` in one role on one stream.
    #[must_use]
    pub fn exactly(address: IpAddr, kind: Kind, key: StreamKey) -> Self {
        Self { address, kind: Some(kind), key: Some(key) }
    }

    /// The same with its address written in the one way that is compared.
    fn canonical(self) -> Self {
        Self { address: self.address.to_canonical(), ..self }
    }
}

/// The bans in force, bounded; looked up in constant time.
///
/// An address is one address however it is written: `::ffff:192.0.2.1` is banned as `192.0.2.1`, which is how a
/// dual-stack listener and an IPv4 listener see the same peer.
pub struct Bans {
    max: usize,
    /// By whom it concerns. The names in the key come from peers, so the hash is the seeded one of std.
    until: HashMap<Whom, Place>,
    /// The same bans by when they end.
    ends: BTreeMap<Place, Whom>,
    inserted: u64,
}

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
        let whom = ban.whom.canonical();
        match self.until.get(&whom) {
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
        self.ends.insert(place, whom.clone());
        self.until.insert(whom, place);
    }

    /// Lifts one; true if there was one. A ban of a peer everywhere is not lifted by lifting it on one stream.
    pub fn remove(&mut self, whom: &Whom) -> bool {
        let place = self.until.remove(&whom.clone().canonical());
        if let Some(place) = place {
            self.ends.remove(&place);
        }
        place.is_some()
    }

    /// The bans held, those that end first first.
    pub fn iter(&self) -> impl Iterator<Item = (&Whom, Instant)> {
        self.ends.iter().map(|((until, _), whom)| (whom, *until))
    }

    /// True while `request` is banned.
    #[must_use]
    pub fn is_banned(&self, now: Instant, request: &Request) -> bool {
        if self.until.is_empty() {
            return false;
        }
        // Cloning a key counts a reference; nothing is copied.
        let mut whom = Whom::exactly(request.remote.ip().to_canonical(), request.kind, request.key.clone());
        let is_held = |whom: &Whom| self.until.get(whom).is_some_and(|(until, _)| now < *until);
        if is_held(&whom) {
            return true;
        }
        whom.kind = None;
        if is_held(&whom) {
            return true;
        }
        whom.key = None;
        if is_held(&whom) {
            return true;
        }
        whom.kind = Some(request.kind);
        is_held(&whom)
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
