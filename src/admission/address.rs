//! The address rules, compiled: which rule is the first that matches a peer.
//!
//! Networks are nested or apart, never half over one another. So all of them together cut the addresses into ranges,
//! each with the list of rules whose networks cover it. A look-up finds the range by two binary searches, one over
//! every 64th boundary, which stays in the cache, and one within 64 neighbours; then it walks the list, which for a
//! block list is one rule.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::admission::AppPattern;
use crate::admission::pattern::is_among;
use crate::admission::settings::{AddressRule, Effect};
use crate::names::{Kind, StreamKey};

/// The rules of `[[admission.rules]]`, ready to be asked.
pub struct AddressRules {
    rules: Vec<Conditions>,
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    /// Lists of rules in their order; a range holds an index into these.
    lists: Vec<Box<[u32]>>,
}

/// What a rule says beside its networks.
struct Conditions {
    effect: Effect,
    listener: Option<SocketAddr>,
    apps: Vec<AppPattern>,
    kinds: Vec<Kind>,
}

impl Conditions {
    fn is_met(&self, kind: Kind, key: &StreamKey, local: SocketAddr) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && is_among(&self.apps, key)
            && self.listener.is_none_or(|at| {
                at.port() == local.port()
                    && (at.ip().is_unspecified() || at.ip().to_canonical() == local.ip().to_canonical())
            })
    }

    fn is_always_met(&self) -> bool {
        self.kinds.is_empty() && self.apps.is_empty() && self.listener.is_none()
    }
}

impl AddressRules {
    /// Compiles rules: time in proportion to their networks, about 10 bytes for an IPv4 and 25 for an IPv6 network.
    #[must_use]
    pub fn new(rules: &[AddressRule]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (rule, entry) in (0_u32..).zip(rules) {
            if entry.networks.is_empty() {
                v4.push(Network { first: 0, last: u128::from(u32::MAX), rule });
                v6.push(Network { first: 0, last: u128::MAX, rule });
            }
            for network in &entry.networks {
                match canonical(*network) {
                    IpNet::V4(network) => v4.push(Network {
                        first: u128::from(network.network().to_bits()),
                        last: u128::from(network.broadcast().to_bits()),
                        rule,
                    }),
                    IpNet::V6(network) => v6.push(Network {
                        first: network.network().to_bits(),
                        last: network.broadcast().to_bits(),
                        rule,
                    }),
                }
            }
        }
        let rules: Vec<Conditions> = rules
            .iter()
            .map(|rule| Conditions {
                effect: rule.effect,
                listener: rule.listener,
                apps: rule.apps.clone(),
                kinds: rule.kinds.clone(),
            })
            .collect();
        let mut lists = Lists::new(&rules);
        // The boundary behind the last address is none.
        let v4 = cut(v4, &mut lists).into_iter().filter_map(|(at, list)| Some((u32::try_from(at).ok()?, list)));
        let v4 = Ranges::new(v4);
        let v6 = Ranges::new(cut(v6, &mut lists).into_iter());
        let lists = lists.all;
        Self { rules, v4, v6, lists }
    }

    /// What the first rule that matches says. An IPv4 address written as IPv6 is the IPv4 address.
    #[must_use]
    pub fn effect(&self, kind: Kind, key: &StreamKey, remote: IpAddr, local: SocketAddr) -> Option<Effect> {
        if self.rules.is_empty() {
            return None;
        }
        let list = match remote.to_canonical() {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        }?;
        let mut rules = self.lists.get(list as usize)?.iter().filter_map(|rule| self.rules.get(*rule as usize));
        rules.find(|rule| rule.is_met(kind, key, local)).map(|rule| rule.effect)
    }
}

/// `::ffff:192.0.2.0/120` is `192.0.2.0/24`, because peers are looked up by their canonical address.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.network().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    mapped
        .and_then(|(address, prefix)| ipnet::Ipv4Net::new(address, prefix).ok())
        .map_or(network, |network| IpNet::V4(network.trunc()))
}

#[derive(Clone, Copy)]
struct Network {
    first: u128,
    last: u128,
    rule: u32,
}

/// Lists of rules, each held once.
struct Lists<'a> {
    rules: &'a [Conditions],
    all: Vec<Box<[u32]>>,
    known: HashMap<Box<[u32]>, u32>,
}

impl<'a> Lists<'a> {
    /// The empty list is number 0.
    fn new(rules: &'a [Conditions]) -> Self {
        let mut lists = Self { rules, all: Vec::new(), known: HashMap::new() };
        lists.intern(Vec::new());
        lists
    }

    /// The list with one rule more. What stands behind a rule that always holds is never reached and left out.
    fn with(&mut self, list: u32, rule: u32) -> u32 {
        let Some(before) = self.all.get(list as usize) else { return list };
        let mut after = before.to_vec();
        let Err(place) = after.binary_search(&rule) else { return list };
        after.insert(place, rule);
        let always = |rule: &u32| self.rules.get(*rule as usize).is_some_and(Conditions::is_always_met);
        if let Some(last) = after.iter().position(always) {
            after.truncate(last.saturating_add(1));
        }
        self.intern(after)
    }

    fn intern(&mut self, list: Vec<u32>) -> u32 {
        let list = list.into_boxed_slice();
        if let Some(number) = self.known.get(&list) {
            return *number;
        }
        let number = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.all.push(list.clone());
        self.known.insert(list, number);
        number
    }
}

/// The boundaries of all networks in order, each with the list that holds from there on.
fn cut(mut networks: Vec<Network>, lists: &mut Lists<'_>) -> Vec<(u128, u32)> {
    // An outer network comes before those within it.
    networks.sort_unstable_by_key(|network| (network.first, std::cmp::Reverse(network.last), network.rule));
    let mut cuts: Vec<(u128, u32)> = vec![(0, 0)];
    let mut open: Vec<(u128, u32)> = Vec::new();
    for network in networks {
        close(&mut open, &mut cuts, Some(network.first));
        let outer = open.last().map_or(0, |(_, list)| *list);
        let list = lists.with(outer, network.rule);
        open.push((network.last, list));
        mark(&mut cuts, network.first, list);
    }
    close(&mut open, &mut cuts, None);
    cuts
}

/// Closes the networks that end before `before`; without it, all.
fn close(open: &mut Vec<(u128, u32)>, cuts: &mut Vec<(u128, u32)>, before: Option<u128>) {
    while let Some((last, _)) = open.pop_if(|(last, _)| before.is_none_or(|before| *last < before)) {
        let outer = open.last().map_or(0, |(_, list)| *list);
        if let Some(next) = last.checked_add(1) {
            mark(cuts, next, outer);
        }
    }
}

fn mark(cuts: &mut Vec<(u128, u32)>, at: u128, list: u32) {
    if let Some(same) = cuts.last_mut().filter(|(last, _)| *last == at) {
        same.1 = list;
    } else if cuts.last().is_none_or(|(_, last)| *last != list) {
        cuts.push((at, list));
    }
}

/// Boundaries and what holds from each on.
struct Ranges<K> {
    starts: Vec<K>,
    lists: Vec<u32>,
    /// Every 64th of `starts`.
    guide: Vec<K>,
}

const BLOCK: usize = 64;

impl<K: Ord + Copy> Ranges<K> {
    fn new(cuts: impl Iterator<Item = (K, u32)>) -> Self {
        let (starts, lists): (Vec<K>, Vec<u32>) = cuts.unzip();
        let guide = starts.iter().copied().step_by(BLOCK).collect();
        Self { starts, lists, guide }
    }

    fn find(&self, key: K) -> Option<u32> {
        let block = self.guide.partition_point(|start| *start <= key).checked_sub(1)?.saturating_mul(BLOCK);
        let end = block.saturating_add(BLOCK).min(self.starts.len());
        let within = self.starts.get(block..end)?.partition_point(|start| *start <= key).checked_sub(1)?;
        self.lists.get(block.saturating_add(within)).copied()
    }
}
