//! What back ends have said, for as long as it may be used.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::Terms;
use crate::admission::token::Digest;

/// The longest that an answer holds, whatever it says itself.
pub const FRESH_MAX: Duration = Duration::from_hours(24);

/// Answers by what was asked, bounded: at the limit the one that ends first leaves.
pub struct Cache {
    max: usize,
    entries: HashMap<Digest, Entry>,
    /// The same by when they end.
    ends: BTreeSet<(Instant, Digest)>,
}

struct Entry {
    said: Said,
    /// Until when it is as good as asking.
    fresh_until: Instant,
    /// Until when it holds while the back end fails.
    stale_until: Instant,
}

/// A remembered answer.
#[derive(Clone, Debug)]
pub enum Said {
    /// They may.
    Allow(Arc<Terms>),
    /// They may not; with the words for the peer and the redirect.
    Deny(Option<Box<str>>, Option<Box<str>>),
}

/// Entries that [`Cache::expire`] forgets in one call.
const EXPIRED_PER_CALL: usize = 256;

impl Cache {
    /// An empty one; with 0, it stays empty.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, entries: HashMap::new(), ends: BTreeSet::new() }
    }

    /// Remembers an answer in place of what was known before: for `fresh`, at most a day, and for `stale` beyond in
    /// case the back end fails.
    pub fn insert(&mut self, now: Instant, asked: Digest, said: Said, fresh: Duration, stale: Duration) {
        self.remove(&asked);
        let fresh_until = now + fresh.min(FRESH_MAX);
        let stale_until = fresh_until + stale.min(FRESH_MAX);
        if stale_until <= now || self.max == 0 {
            return;
        }
        if self.entries.len() >= self.max
            && let Some((_, first)) = self.ends.pop_first()
        {
            self.entries.remove(&first);
        }
        self.ends.insert((stale_until, asked));
        self.entries.insert(asked, Entry { said, fresh_until, stale_until });
    }

    /// Forgets one.
    pub fn remove(&mut self, asked: &Digest) {
        if let Some(entry) = self.entries.remove(asked) {
            self.ends.remove(&(entry.stale_until, *asked));
        }
    }

    /// An answer that is as good as asking.
    #[must_use]
    pub fn fresh(&self, now: Instant, asked: &Digest) -> Option<&Said> {
        self.entries.get(asked).filter(|entry| now < entry.fresh_until).map(|entry| &entry.said)
    }

    /// An allow that is good enough while the back end fails.
    #[must_use]
    pub fn stale(&self, now: Instant, asked: &Digest) -> Option<&Arc<Terms>> {
        match &self.entries.get(asked).filter(|entry| now < entry.stale_until)?.said {
            Said::Allow(terms) => Some(terms),
            Said::Deny(..) => None,
        }
    }

    /// Forgets what has ended; bounded work per call.
    pub fn expire(&mut self, now: Instant) {
        for _ in 0..EXPIRED_PER_CALL {
            match self.ends.first() {
                Some((at, _)) if *at <= now => {
                    if let Some((_, asked)) = self.ends.pop_first() {
                        self.entries.remove(&asked);
                    }
                }
                _ => break,
            }
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// How many are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
