//! Where connections come from: how many each source has, how fast they come, how often it was turned away.
//!
//! One table for the process, because a source does not know which shard the kernel gives its connections to. Shards
//! never wait for each other here: counts and rates are atomics in a table of fixed size, and what cannot be had at
//! once is done without (`docs/decisions/0008-one-table-of-sources.md`).

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::admission::rate::Rate;
use crate::session::{CloseReason, Reason};

/// What each source may do; 0 is off everywhere but in `table`.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one source.
    pub connections_per_ip: usize,
    /// Of those, strangers: not admitted to publish or play.
    pub unauthenticated_per_ip: usize,
    /// Connections of one source a second; twice as many at once.
    pub accept_rate_per_ip: u32,
    /// Refusals of one source a minute before it is not asked about any more; twice as many at once.
    pub auth_failures_per_ip: u32,
    /// Sources known at once. The one not seen for longest is forgotten first, unless it has connections.
    pub table: usize,
    /// Strangers of all sources together.
    pub unauthenticated: usize,
}

/// How long a source that was turned away too often is refused without being asked about.
pub const REFUSED_FOR: Duration = Duration::from_mins(1);

/// A connection's place in the table, to be given back once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

/// The place of a connection whose source the table has no room for: it counts among the strangers of all sources and
/// for no source.
const NOWHERE: Place = Place(u32::MAX);

/// A connection that was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// To be given back.
    pub place: Place,
    /// There are more strangers now than there may be: one has to go.
    pub is_crowded: bool,
}

/// See the module.
pub struct Sources {
    limits: Limits,
    accept_rate: Option<Rate>,
    failure_rate: Option<Rate>,
    epoch: Instant,
    /// Peers choose their addresses, so the hash is the seeded one of std.
    hasher: RandomState,
    buckets: Box<[Bucket]>,
    strangers: AtomicUsize,
    forgotten: AtomicU64,
}

/// Sources whose hashes are near each other. A source is in its bucket or not known.
struct Bucket {
    /// Somebody puts a source in. Tried, never waited for.
    is_taken: AtomicBool,
    entries: [Entry; WAYS],
}

/// One source.
struct Entry {
    /// Who, or 0.
    owner: AtomicU64,
    /// Connections, strangers, those who are using the entry right now, and whether it changes hands: see the
    /// constants.
    counts: AtomicU64,
    /// The state of the accept rate.
    accepts: AtomicU64,
    /// The state of the failure rate.
    failures: AtomicU64,
    /// Until when it is refused, in microseconds since the epoch.
    refused_until: AtomicU64,
    /// When it was last seen, likewise.
    seen: AtomicU64,
}

/// Entries of a bucket.
const WAYS: usize = 8;
/// One connection, in `counts`.
const ONE: u64 = 1;
/// One stranger.
const STRANGER: u64 = 1 << 26;
/// One user who must not find the entry in other hands.
const HOLD: u64 = 1 << 52;
/// The entry changes hands: nobody may count in it.
const CHANGING: u64 = 1 << 63;
/// What a count may reach.
const COUNT_MAX: u64 = STRANGER - 1;
/// How often a lost race is run again before the connection goes without being counted for its source. A race is a few
/// instructions long.
const ATTEMPTS: u32 = 64;

impl Sources {
    /// A table without sources. `epoch` is any time before the first call. It takes about 50 bytes for each source, which
    /// the kernel gives as they come.
    #[must_use]
    pub fn new(limits: Limits, epoch: Instant) -> Self {
        let buckets = limits.table.max(WAYS).div_ceil(WAYS);
        // SAFETY: a bucket is made of atomic integers and booleans, for all of which zero is a valid value.
        let buckets = unsafe { Box::<[Bucket]>::new_zeroed_slice(buckets).assume_init() };
        Self {
            limits,
            accept_rate: Rate::new(
                limits.accept_rate_per_ip,
                Duration::from_secs(1),
                limits.accept_rate_per_ip.saturating_mul(2),
            ),
            failure_rate: Rate::new(
                limits.auth_failures_per_ip,
                Duration::from_mins(1),
                limits.auth_failures_per_ip.saturating_mul(2),
            ),
            epoch,
            hasher: RandomState::new(),
            buckets,
            strangers: AtomicUsize::new(0),
            forgotten: AtomicU64::new(0),
        }
    }

    /// A connection was accepted: counts it as a stranger, or says why not. Nothing is counted for one that is refused,
    /// except that it came.
    ///
    /// # Errors
    /// The limit of its source that it would exceed.
    pub fn enter(&self, now: Instant, remote: SocketAddr) -> Result<Entered, CloseReason> {
        let limits = &self.limits;
        let is_counted =
            limits.connections_per_ip > 0 || limits.unauthenticated_per_ip > 0 || self.accept_rate.is_some();
        let mut place = NOWHERE;
        if is_counted && let Some((at, entry)) = self.hold(now, source_of(remote)) {
            let refusal = if !self.is_in_time(entry, now) {
                Some(CloseReason::with(Reason::LimitExceeded, "accept_rate_per_ip"))
            } else if !entry.enter(limits) {
                Some(CloseReason::with(Reason::ConcurrencyLimit, "ip"))
            } else {
                None
            };
            if let Some(refusal) = refusal {
                entry.release();
                return Err(refusal);
            }
            place = at;
        }
        let before = self.strangers.fetch_add(1, Ordering::AcqRel);
        Ok(Entered { place, is_crowded: limits.unauthenticated > 0 && before >= limits.unauthenticated })
    }

    /// A connection was admitted to publish or play, or is a stranger again.
    pub fn step(&self, place: Place, is_admitted: bool) {
        let entry = self.entry(place);
        if is_admitted {
            self.strangers.fetch_sub(1, Ordering::AcqRel);
            if let Some(entry) = entry {
                entry.counts.fetch_sub(STRANGER, Ordering::AcqRel);
            }
        } else {
            self.strangers.fetch_add(1, Ordering::AcqRel);
            if let Some(entry) = entry {
                entry.counts.fetch_add(STRANGER, Ordering::AcqRel);
            }
        }
    }

    /// A connection is closed.
    pub fn leave(&self, place: Place, is_admitted: bool) {
        if !is_admitted {
            self.step(place, true);
        }
        if let Some(entry) = self.entry(place) {
            entry.counts.fetch_sub(ONE, Ordering::AcqRel);
        }
    }

    /// A source was refused for what it is or said. One that collects too many is refused for [`REFUSED_FOR`] without
    /// anybody being asked.
    pub fn note_failure(&self, now: Instant, remote: SocketAddr) {
        let Some(rate) = self.failure_rate else { return };
        let Some((_, entry)) = self.hold(now, source_of(remote)) else { return };
        let now_us = self.micros(now);
        if !take(rate, &entry.failures, now_us) {
            let until = now_us.saturating_add(u64::try_from(REFUSED_FOR.as_micros()).unwrap_or(u64::MAX));
            entry.refused_until.fetch_max(until, Ordering::AcqRel);
        }
        entry.release();
    }

    /// True while a source is refused because it was turned away too often.
    #[must_use]
    pub fn is_refused(&self, now: Instant, remote: SocketAddr) -> bool {
        if self.failure_rate.is_none() {
            return false;
        }
        let key = source_of(remote);
        self.bucket(key).1.find(key).is_some_and(|(_, entry)| {
            let until = entry.refused_until.load(Ordering::Acquire);
            // Had it changed hands meanwhile, the answer would be another's.
            until > self.micros(now) && entry.owner.load(Ordering::Acquire) == key
        })
    }

    /// Connections of all sources that are not admitted.
    #[must_use]
    pub fn strangers(&self) -> usize {
        self.strangers.load(Ordering::Relaxed)
    }

    /// Sources that were forgotten to make room for others.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    fn is_in_time(&self, entry: &Entry, now: Instant) -> bool {
        self.accept_rate.is_none_or(|rate| take(rate, &entry.accepts, self.micros(now)))
    }

    fn entry(&self, place: Place) -> Option<&Entry> {
        let index = place.0 as usize;
        self.buckets.get(index / WAYS)?.entries.get(index % WAYS)
    }

    fn bucket(&self, key: u64) -> (usize, &Bucket) {
        let wide = u128::from(self.hasher.hash_one(key)) * self.buckets.len() as u128;
        let index = usize::try_from(wide >> 64).unwrap_or(0);
        (index, &self.buckets[index])
    }

    /// The entry of the source `key`, whom it makes room for where it is not known; it does not change hands before it is
    /// released. `None` when there is none: every neighbour has connections, or others are just as busy in a bucket that is
    /// full.
    fn hold(&self, now: Instant, key: u64) -> Option<(Place, &Entry)> {
        let now_us = self.micros(now);
        let (index, bucket) = self.bucket(key);
        for _ in 0..ATTEMPTS {
            if let Some((way, entry)) = bucket.find_or_take(key) {
                if entry.hold() {
                    // What is held does not change hands; whether it had before is to be seen now.
                    if entry.owner.load(Ordering::Acquire) == key {
                        entry.seen.fetch_max(now_us, Ordering::Relaxed);
                        return Some((place(index, way), entry));
                    }
                    entry.release();
                }
            } else if !bucket.is_taken.swap(true, Ordering::AcqRel) {
                let made = if bucket.find(key).is_none() { self.replace(bucket, key, now_us) } else { Made::Later };
                bucket.is_taken.store(false, Ordering::Release);
                match made {
                    Made::At(way) => return bucket.entries.get(way).map(|entry| (place(index, way), entry)),
                    Made::Nowhere => return None,
                    Made::Later => {}
                }
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Gives the entry of the source not seen for longest to `key`, and holds it.
    fn replace(&self, bucket: &Bucket, key: u64, now_us: u64) -> Made {
        let idle = bucket.entries.iter().enumerate().filter(|(_, entry)| entry.counts.load(Ordering::Acquire) == 0);
        let oldest = idle.min_by_key(|(_, entry)| entry.seen.load(Ordering::Relaxed));
        let Some((way, entry)) = oldest else { return Made::Nowhere };
        if entry.counts.compare_exchange(0, CHANGING, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return Made::Later;
        }
        self.forgotten.fetch_add(1, Ordering::Relaxed);
        for cell in [&entry.accepts, &entry.failures, &entry.refused_until] {
            cell.store(0, Ordering::Release);
        }
        entry.seen.store(now_us, Ordering::Release);
        entry.owner.store(key, Ordering::Release);
        entry.counts.store(HOLD, Ordering::Release);
        Made::At(way)
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }
}

/// What became of making room.
enum Made {
    At(usize),
    /// Every neighbour has connections.
    Nowhere,
    /// Somebody was quicker: look again.
    Later,
}

impl Bucket {
    fn find(&self, key: u64) -> Option<(usize, &Entry)> {
        self.entries.iter().enumerate().find(|(_, entry)| entry.owner.load(Ordering::Acquire) == key)
    }

    /// The entry of `key`, to whom the first one that never was anybody's is given where it has none. `None` when all are
    /// others'.
    ///
    /// One instruction gives it, so there is no moment in which another shard could find the source neither known nor
    /// unknown. Entries are given in their order and never given back, only from one source to another when all are
    /// somebody's: two shards that bring the same source meet at the same entry.
    fn find_or_take(&self, key: u64) -> Option<(usize, &Entry)> {
        self.entries.iter().enumerate().find(|(_, entry)| {
            let owner = match entry.owner.load(Ordering::Acquire) {
                0 => entry.owner.compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire).err().unwrap_or(key),
                owner => owner,
            };
            owner == key
        })
    }
}

impl Entry {
    /// Keeps the entry from changing hands, unless it does so already.
    fn hold(&self) -> bool {
        self.counts.fetch_update(Ordering::AcqRel, Ordering::Acquire, |it| (it < CHANGING).then(|| it + HOLD)).is_ok()
    }

    /// Ends one hold.
    fn release(&self) {
        self.counts.fetch_sub(HOLD, Ordering::AcqRel);
    }

    /// Counts one connection of a stranger in place of one hold, if the limits allow one more. Who is refused was never
    /// counted, so nobody is refused because of them.
    fn enter(&self, limits: &Limits) -> bool {
        let has_room = |count: u64, max: usize| count < if max > 0 { COUNT_MAX.min(max as u64) } else { COUNT_MAX };
        let step = |counts: u64| {
            let is_free = has_room(connections(counts), limits.connections_per_ip)
                && has_room(strangers(counts), limits.unauthenticated_per_ip);
            is_free.then(|| counts - HOLD + ONE + STRANGER)
        };
        self.counts.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).is_ok()
    }
}

fn take(rate: Rate, cell: &AtomicU64, now_us: u64) -> bool {
    cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| rate.take(state, now_us)).is_ok()
}

fn connections(counts: u64) -> u64 {
    counts % STRANGER
}

fn strangers(counts: u64) -> u64 {
    counts % HOLD / STRANGER
}

fn place(bucket: usize, way: usize) -> Place {
    u32::try_from(bucket * WAYS + way).map_or(NOWHERE, Place)
}

/// An IPv4 address, or an IPv6 /64, which is what one customer has. The prefix 0 (with `::1` in it) stands as the
/// highest, which belongs to multicast and connects to nobody; 0 is nobody. No customer has an address in the prefixes
/// that stand for IPv4.
fn source_of(remote: SocketAddr) -> u64 {
    match remote.ip().to_canonical() {
        IpAddr::V4(v4) => 1 << 32 | u64::from(v4.to_bits()),
        IpAddr::V6(v6) => match u64::try_from(v6.to_bits() >> 64).unwrap_or(0) {
            0 => u64::MAX,
            prefix => prefix,
        },
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
