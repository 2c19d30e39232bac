//! Connections that nobody has admitted yet, by how long they have been strangers.

use std::collections::VecDeque;

/// The strangers of a shard. A connection that is admitted or closes is not looked for in the queue: its number no
/// longer fits, and the queue lets it go when it comes to the front or when it has grown for nothing.
#[derive(Default)]
pub struct Strangers {
    queue: VecDeque<(usize, u64)>,
    count: usize,
    numbers: u64,
}

/// Entries that may be outdated beside those that are not.
const OUTDATED_MAX: usize = 1_024;

impl Strangers {
    /// The connection at `key` is a stranger from now on; returns its number, which is never 0. `holds` tells whether
    /// the connection at a key still has a number.
    pub fn add(&mut self, key: usize, holds: impl Fn(usize, u64) -> bool) -> u64 {
        if self.queue.len() > self.count * 2 + OUTDATED_MAX {
            self.queue.retain(|(key, number)| holds(*key, *number));
        }
        self.count += 1;
        self.numbers += 1;
        self.queue.push_back((key, self.numbers));
        self.numbers
    }

    /// One of them is admitted or has closed.
    pub fn remove(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// Takes the one that has been a stranger for longest.
    pub fn take_oldest(&mut self, holds: impl Fn(usize, u64) -> bool) -> Option<usize> {
        while let Some((key, number)) = self.queue.pop_front() {
            if holds(key, number) {
                return Some(key);
            }
        }
        None
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn limits_unauthenticated_takes_the_one_that_has_waited_longest() {
        let mut strangers = Strangers::default();
        let mut numbers = HashMap::new();
        for key in [7, 3, 5] {
            let number = strangers.add(key, |_, _| true);
            numbers.insert(key, number);
        }
        // 7 is admitted, and comes back as the newest.
        strangers.remove();
        numbers.insert(7, strangers.add(7, |_, _| true));
        assert_eq!(strangers.count(), 3);
        let holds = |key: usize, number| numbers.get(&key) == Some(&number);
        let mut order = Vec::new();
        while let Some(key) = strangers.take_oldest(holds) {
            order.push(key);
        }
        assert_eq!(order, [3, 5, 7]);
    }

    #[test]
    fn connections_that_come_and_go_leave_nothing_behind() {
        let mut strangers = Strangers::default();
        for key in 0..100_000 {
            strangers.add(key, |_, _| false);
            strangers.remove();
        }
        assert!(strangers.queue.len() <= OUTDATED_MAX + 1, "{}", strangers.queue.len());
        assert_eq!(strangers.count(), 0);
    }
}
