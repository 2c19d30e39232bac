//! How many were there at once.
//!
//! A line is swept over time: it stops where somebody comes or goes, and says how many were there since it stopped
//! last. It holds the ends of those who are there, and nothing of who has left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::ledger::history::life::{SKEW_MS, Span};

/// The line.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    ends: BinaryHeap<Reverse<u64>>,
    at: u64,
}

impl Sweep {
    /// Somebody is there for `span`. Those who come must be told in the order of their coming; who comes late is
    /// counted from where the line is. `level` hears for how long how many were there.
    pub(super) fn arrive(&mut self, span: Span, level: &mut impl FnMut(Span, u64)) {
        let from = span.from.max(self.at);
        if span.to <= from {
            return;
        }
        self.advance(from, level);
        self.ends.push(Reverse(span.to));
    }

    /// Everybody has come.
    pub(super) fn finish(&mut self, level: &mut impl FnMut(Span, u64)) {
        self.advance(u64::MAX, level);
    }

    fn advance(&mut self, to: u64, level: &mut impl FnMut(Span, u64)) {
        while let Some(Reverse(end)) = self.ends.peek().copied().filter(|Reverse(end)| *end <= to) {
            self.say(end, level);
            self.ends.pop();
        }
        self.say(to, level);
    }

    fn say(&mut self, to: u64, level: &mut impl FnMut(Span, u64)) {
        if to > self.at && !self.ends.is_empty() {
            level(Span { from: self.at, to }, self.ends.len() as u64);
        }
        self.at = self.at.max(to);
    }
}

/// Puts those who come into the order of their coming: the order of ids is a little different.
#[derive(Debug, Default)]
pub(super) struct Arrivals(BinaryHeap<Reverse<(u64, u64, u32)>>);

impl Arrivals {
    /// Somebody whose id is of `id_ms` and who belongs to `group` is there for `span`; `arrived` hears of those
    /// before whom nobody can come any more.
    pub(super) fn push(&mut self, id_ms: u64, span: Span, group: u32, arrived: &mut impl FnMut(Span, u32)) {
        self.0.push(Reverse((span.from, span.to, group)));
        self.release(id_ms.saturating_sub(SKEW_MS), arrived);
    }

    /// Nobody else comes.
    pub(super) fn finish(&mut self, arrived: &mut impl FnMut(Span, u32)) {
        self.release(u64::MAX, arrived);
    }

    fn release(&mut self, before: u64, arrived: &mut impl FnMut(Span, u32)) {
        while let Some(Reverse((from, to, group))) = self.0.peek().copied() {
            if from >= before {
                return;
            }
            self.0.pop();
            arrived(Span { from, to }, group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(spans: &[(u64, u64)]) -> Vec<(u64, u64, u64)> {
        let (mut sweep, mut said) = (Sweep::default(), Vec::new());
        let mut level = |span: Span, count| said.push((span.from, span.to, count));
        for (from, to) in spans {
            sweep.arrive(Span { from: *from, to: *to }, &mut level);
        }
        sweep.finish(&mut level);
        said
    }

    #[test]
    fn who_leaves_when_another_comes_was_not_there_with_them() {
        assert_eq!(levels(&[(10, 20), (20, 30)]), [(10, 20, 1), (20, 30, 1)]);
        assert_eq!(levels(&[(10, 30), (20, 30), (20, 25)]), [(10, 20, 1), (20, 25, 3), (25, 30, 2)]);
        assert_eq!(levels(&[(10, 20), (40, 50)]), [(10, 20, 1), (40, 50, 1)]);
    }

    #[test]
    fn who_comes_late_counts_from_then() {
        assert_eq!(levels(&[(20, 30), (10, 25)]), [(20, 25, 2), (25, 30, 1)]);
        assert_eq!(levels(&[(20, 30), (10, 15)]), [(20, 30, 1)]);
    }

    #[test]
    fn those_who_come_are_put_in_order() {
        let (mut arrivals, mut order) = (Arrivals::default(), Vec::new());
        let mut arrived = |span: Span, _| order.push(span.from);
        for (id_ms, from) in [(100_000, 90_000), (100_001, 20_000), (1_000_000, 999_000), (2_000_000, 1_100_000)] {
            arrivals.push(id_ms, Span { from, to: from + 1 }, 0, &mut arrived);
        }
        arrivals.finish(&mut arrived);
        assert_eq!(order, [20_000, 90_000, 999_000, 1_100_000]);
    }
}
