//! Sums over a range of time, by whatever they are asked for.
//!
//! Every row in the range is read once. What is held meanwhile is bounded: groups, their hours or days, the sets that
//! tell users and addresses apart, and the ends of those who were there at once.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};
use std::ops::ControlFlow;

use crate::ledger::history::life::{Life, Span};
use crate::ledger::history::row::{NARROW, Sight};
use crate::ledger::history::sweep::{Arrivals, Sweep};
use crate::ledger::history::walk::{Direction, Trouble};
use crate::ledger::history::{Error, Filter, Reader};

/// The most groups; more is refused.
pub const GROUPS_MAX: usize = 50_000;
/// The most hours or days over all groups; more is refused.
pub const CELLS_MAX: usize = 20_000;
/// The most users and addresses, counted once for each group and hour or day, that are told apart; with more, nobody
/// says how many there were.
pub const UNIQUES_MAX: usize = 1_000_000;

/// By what sessions are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// Whose they were.
    User,
    /// On which stream, in full.
    Stream,
    /// In which application.
    App,
    /// On which virtual host.
    Vhost,
    /// From which address.
    Remote,
    /// What they were.
    Kind,
    /// How they were carried.
    Protocol,
    /// Why they ended.
    Reason,
}

/// Into what sums are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// Hours.
    Hour,
    /// Days of UTC: all have 24 hours.
    Day,
}

/// Which groups come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Those with the most sessions.
    #[default]
    Sessions,
    /// Those with the most bytes, both ways together.
    Bytes,
    /// Those that were watched longest.
    Watch,
    /// Those with the most sessions at once.
    Peak,
}

/// What is summed up.
#[derive(Clone, Debug)]
pub struct SummaryQuery {
    /// Which sessions, and in which time.
    pub filter: Filter,
    /// By what; several together make a group for each combination.
    pub group_by: Vec<Field>,
    /// Into what each group is split besides.
    pub every: Option<Every>,
    /// Which groups come first.
    pub order: Order,
    /// How many of them; the rest is summed up.
    pub limit: usize,
    /// Until when sessions that still run have lasted.
    pub now_ms: u64,
}

/// The sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Of all sessions.
    pub total: Group,
    /// Of each group; empty when nothing was grouped by.
    pub groups: Vec<Group>,
    /// Groups that are not there, and what they sum up to.
    pub other: Option<(usize, Sums)>,
    /// Sessions in it that still run, whose bytes are those of their last checkpoint.
    pub running: u64,
}

/// The sums of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// What its sessions have in common, in the order of `group_by`. A stream is three names: host, application, name.
    pub key: Vec<Option<String>>,
    /// Its sums.
    pub sums: Sums,
    /// The same for each hour or day in which anybody was there, by its first moment.
    pub times: Vec<(u64, Sums)>,
}

/// Sums. Bytes of a session that was there before or after the range, or in several hours, are spread evenly over its
/// time; all others, and all times, are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Sessions, each counted once: in the hour or day in which it opened, or in the first of the range.
    pub sessions: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// From opening to end, all sessions together.
    pub duration_ms: u64,
    /// From first media to end, of those that played.
    pub watch_ms: u64,
    /// The most that were there at once; `None` where sums were added up.
    pub peak: Option<u64>,
    /// Users that were there; `None` where there were too many to tell, or sums were added up.
    pub users: Option<u64>,
    /// Addresses that were there; as with users.
    pub addresses: Option<u64>,
}

impl Reader {
    /// Sums up.
    ///
    /// # Errors
    /// Too many groups, or too long, or a file that cannot be read.
    pub fn summary(&self, query: &SummaryQuery) -> Result<Summary, Error> {
        let mut gathered = Gathered::new(query);
        self.walk(&query.filter, Direction::Ascending, None, NARROW, &mut |sight, meant| {
            if meant {
                gathered.add(sight)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(gathered.finish())
    }
}

/// What is held while rows pass. The first group is all sessions.
struct Gathered<'a> {
    query: &'a SummaryQuery,
    range: Span,
    /// What is split: milliseconds of an hour or a day.
    step: Option<u64>,
    groups: Vec<Gathering>,
    index: HashMap<Box<[u8]>, u32>,
    key: Vec<u8>,
    arrivals: Arrivals,
    uniques: Uniques,
    cells: usize,
    running: u64,
}

#[derive(Default)]
struct Gathering {
    sums: Cell,
    times: BTreeMap<u64, Cell>,
    sweep: Sweep,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    sessions: u64,
    rx_bytes: u64,
    tx_bytes: u64,
    duration_ms: u64,
    watch_ms: u64,
    peak: u64,
    users: u64,
    addresses: u64,
}

impl<'a> Gathered<'a> {
    fn new(query: &'a SummaryQuery) -> Self {
        let range = Span { from: query.filter.from_ms.unwrap_or(0), to: query.filter.to_ms.unwrap_or(u64::MAX) };
        Self {
            query,
            range,
            step: query.every.map(Every::ms),
            groups: vec![Gathering::default()],
            index: HashMap::new(),
            key: Vec::new(),
            arrivals: Arrivals::default(),
            uniques: Uniques::default(),
            cells: 0,
            running: 0,
        }
    }

    fn add(&mut self, sight: &Sight<'_>) -> Result<(), Trouble> {
        let life = sight.life()?;
        let there = life.whole(self.query.now_ms).at_least_a_moment().within(self.range);
        if there.ms() == 0 {
            // It runs, and the range lies in the future.
            return Ok(());
        }
        self.running += u64::from(life.is_open());
        let group = self.group(sight)?;
        let (rx, tx) = (sight.rx_bytes()?, sight.tx_bytes()?);
        let plays = sight.kind()? == crate::names::Kind::Play.as_str();
        let user = sight.user()?.map(|user| self.uniques.hash(b'u', user));
        let address = Some(self.uniques.hash(b'a', sight.remote_ip()?));
        for group in [Some(0), group].into_iter().flatten() {
            self.book(group, None, self.range, &life, (rx, tx, plays), (user, address), true)?;
            let Some(step) = self.step else { continue };
            let first = there.from / step;
            let last = there.to.saturating_sub(1).max(there.from) / step;
            for time in first..=last {
                let part = Span { from: time * step, to: (time + 1).saturating_mul(step) }.within(self.range);
                self.book(group, Some(time), part, &life, (rx, tx, plays), (user, address), time == first)?;
            }
        }
        let id_ms = u64::try_from(sight.id()? >> 80).unwrap_or(0);
        let (groups, step) = (&mut self.groups, self.step);
        self.arrivals.push(id_ms, there, group.unwrap_or(0), &mut |span, group| arrive(groups, step, span, group));
        Ok(())
    }

    /// Books what lies in `part` of one session on a group, or on one of its hours or days.
    #[allow(clippy::too_many_arguments)] // All of it is about one session; a struct would only rename them.
    fn book(
        &mut self,
        group: u32,
        time: Option<u64>,
        part: Span,
        life: &Life,
        (rx, tx, plays): (u64, u64, bool),
        (user, address): (Option<u128>, Option<u128>),
        is_first: bool,
    ) -> Result<(), Trouble> {
        let Some(gathering) = self.groups.get_mut(group as usize) else { return Ok(()) };
        let cell = match time {
            None => &mut gathering.sums,
            Some(time) => match gathering.times.entry(time) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(_) if self.cells >= CELLS_MAX => return Err(Trouble::Other(Error::TooManyTimes)),
                Entry::Vacant(place) => {
                    self.cells += 1;
                    place.insert(Cell::default())
                }
            },
        };
        let now = self.query.now_ms;
        let moved = life.counted();
        cell.sessions += u64::from(is_first);
        cell.rx_bytes += moved.share(part, rx);
        cell.tx_bytes += moved.share(part, tx);
        cell.duration_ms += life.whole(now).within(part).ms();
        cell.watch_ms += if plays { life.with_media(now).within(part).ms() } else { 0 };
        let place = (u128::from(group) << 64) | u128::from(time.map_or(u64::MAX, |time| time));
        cell.users += u64::from(user.is_some_and(|user| self.uniques.is_new(user, place)));
        cell.addresses += u64::from(address.is_some_and(|address| self.uniques.is_new(address, place)));
        Ok(())
    }

    /// The group of a row; `None` when nothing is grouped by.
    fn group(&mut self, sight: &Sight<'_>) -> Result<Option<u32>, Trouble> {
        if self.query.group_by.is_empty() {
            return Ok(None);
        }
        self.key.clear();
        for field in &self.query.group_by {
            match field {
                Field::User => push(&mut self.key, sight.user()?),
                Field::Stream => {
                    push(&mut self.key, Some(sight.vhost()?));
                    push(&mut self.key, Some(sight.app()?));
                    push(&mut self.key, Some(sight.stream()?));
                }
                Field::App => push(&mut self.key, Some(sight.app()?)),
                Field::Vhost => push(&mut self.key, Some(sight.vhost()?)),
                Field::Remote => push(&mut self.key, Some(sight.remote_ip()?)),
                Field::Kind => push(&mut self.key, Some(sight.kind()?)),
                Field::Protocol => push(&mut self.key, Some(sight.protocol()?)),
                Field::Reason => push(&mut self.key, sight.reason()?),
            }
        }
        if let Some(found) = self.index.get(self.key.as_slice()) {
            return Ok(Some(*found));
        }
        if self.groups.len() > GROUPS_MAX {
            return Err(Trouble::Other(Error::TooManyGroups));
        }
        let group = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        self.groups.push(Gathering::default());
        self.index.insert(self.key.as_slice().into(), group);
        Ok(Some(group))
    }

    fn finish(mut self) -> Summary {
        let (groups, step) = (&mut self.groups, self.step);
        self.arrivals.finish(&mut |span, group| arrive(groups, step, span, group));
        for gathering in groups {
            let Gathering { sums, times, sweep } = gathering;
            sweep.finish(&mut |span, level| raise(sums, times, step, span, level));
        }
        let known = !self.uniques.too_many;
        let step = step.unwrap_or(1);
        let mut keys: Vec<Vec<Option<String>>> = vec![Vec::new(); self.groups.len()];
        for (key, group) in self.index {
            if let Some(to) = keys.get_mut(group as usize) {
                *to = parts(&key);
            }
        }
        let mut all: Vec<Group> = keys
            .into_iter()
            .zip(self.groups)
            .map(|(key, gathering)| Group {
                key,
                sums: gathering.sums.sums(known),
                times: gathering.times.into_iter().map(|(time, cell)| (time * step, cell.sums(known))).collect(),
            })
            .collect();
        let total = all.swap_remove(0);
        let order = self.query.order;
        all.sort_unstable_by(|one, other| {
            other.sums.rank(order).cmp(&one.sums.rank(order)).then_with(|| one.key.cmp(&other.key))
        });
        let rest = all.split_off(all.len().min(self.query.limit));
        let other = (!rest.is_empty())
            .then(|| (rest.len(), rest.iter().fold(Sums::default(), |sum, group| sum.plus(&group.sums))));
        Summary { total, groups: all, other, running: self.running }
    }
}

/// Somebody has come: to all, and to their group.
fn arrive(groups: &mut [Gathering], step: Option<u64>, span: Span, group: u32) {
    let mut one = |at: usize| {
        if let Some(Gathering { sums, times, sweep }) = groups.get_mut(at) {
            sweep.arrive(span, &mut |span, level| raise(sums, times, step, span, level));
        }
    };
    one(0);
    if group != 0 {
        one(group as usize);
    }
}

/// So many were there for so long.
fn raise(sums: &mut Cell, times: &mut BTreeMap<u64, Cell>, step: Option<u64>, span: Span, level: u64) {
    sums.peak = sums.peak.max(level);
    let Some(step) = step else { return };
    for (_, cell) in times.range_mut(span.from / step..=(span.to - 1) / step) {
        cell.peak = cell.peak.max(level);
    }
}

impl Every {
    fn ms(self) -> u64 {
        match self {
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }
}

impl Cell {
    fn sums(self, known: bool) -> Sums {
        Sums {
            sessions: self.sessions,
            rx_bytes: self.rx_bytes,
            tx_bytes: self.tx_bytes,
            duration_ms: self.duration_ms,
            watch_ms: self.watch_ms,
            peak: Some(self.peak),
            users: known.then_some(self.users),
            addresses: known.then_some(self.addresses),
        }
    }
}

impl Sums {
    fn rank(&self, order: Order) -> u64 {
        match order {
            Order::Sessions => self.sessions,
            Order::Bytes => self.rx_bytes.saturating_add(self.tx_bytes),
            Order::Watch => self.watch_ms,
            Order::Peak => self.peak.unwrap_or(0),
        }
    }

    /// Both together. Who was there at once, and who was the same, cannot be added up.
    fn plus(self, other: &Self) -> Self {
        Self {
            sessions: self.sessions + other.sessions,
            rx_bytes: self.rx_bytes.saturating_add(other.rx_bytes),
            tx_bytes: self.tx_bytes.saturating_add(other.tx_bytes),
            duration_ms: self.duration_ms.saturating_add(other.duration_ms),
            watch_ms: self.watch_ms.saturating_add(other.watch_ms),
            peak: None,
            users: None,
            addresses: None,
        }
    }
}

/// Tells those who came again from those who came first.
#[derive(Default)]
struct Uniques {
    seeds: [RandomState; 2],
    seen: HashSet<u128, BuildHasherDefault<AsItIs>>,
    too_many: bool,
}

impl Uniques {
    /// 128 bits for a text: two texts that have the same are not met with in practice, nor made.
    fn hash(&self, what: u8, text: &str) -> u128 {
        let [high, low] = &self.seeds;
        (u128::from(high.hash_one((what, text))) << 64) | u128::from(low.hash_one((what, text)))
    }

    /// Whether `who` was not in `place` before.
    fn is_new(&mut self, who: u128, place: u128) -> bool {
        /// Odd, so that no two places are moved alike.
        const STRIDE: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        if self.too_many || !self.seen.insert(who.wrapping_add(place.wrapping_mul(STRIDE))) {
            return false;
        }
        if self.seen.len() > UNIQUES_MAX {
            self.too_many = true;
            self.seen = HashSet::default();
        }
        true
    }
}

/// The hash of a hash.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[allow(clippy::cast_possible_truncation)] // Half of a hash is one.
    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

/// Adds a name to a key, so that [`parts`] finds it again.
fn push(key: &mut Vec<u8>, name: Option<&str>) {
    let length = name.map_or(u32::MAX, |name| u32::try_from(name.len()).unwrap_or(0));
    key.extend_from_slice(&length.to_be_bytes());
    key.extend_from_slice(name.unwrap_or_default().as_bytes());
}

fn parts(mut key: &[u8]) -> Vec<Option<String>> {
    let mut found = Vec::new();
    while let Some((length, rest)) = key.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length);
        let (name, rest) = if length == u32::MAX {
            (None, rest)
        } else {
            let (name, rest) = rest.split_at(rest.len().min(length as usize));
            (Some(String::from_utf8_lossy(name).into_owned()), rest)
        };
        found.push(name);
        key = rest;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_as_it_was() {
        let mut key = Vec::new();
        for name in [Some("a"), None, Some(""), Some("ключ/\0")] {
            push(&mut key, name);
        }
        assert_eq!(parts(&key), [Some("a".into()), None, Some(String::new()), Some("ключ/\0".into())]);
    }

    #[test]
    fn with_too_many_to_tell_apart_nobody_is_counted_and_nothing_is_held() {
        let mut uniques = Uniques::default();
        for who in 0..=UNIQUES_MAX as u128 {
            uniques.is_new(who, 0);
        }
        assert!(uniques.too_many && uniques.seen.capacity() == 0);
        assert!(!uniques.is_new(5, 1));
    }

    #[test]
    fn the_same_in_two_places_counts_in_both() {
        let mut uniques = Uniques::default();
        let ann = uniques.hash(b'u', "ann");
        assert!(uniques.is_new(ann, 0) && uniques.is_new(ann, 1) && !uniques.is_new(ann, 0));
        assert!(uniques.is_new(uniques.hash(b'a', "ann"), 0));
    }
}
