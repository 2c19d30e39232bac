//! How large things were, by powers of two.

/// Counts of values, in buckets whose ends double: 2^`FIRST`, 2^(`FIRST`+1) and so on, [`BUCKETS`] of them, and one
/// for all that is larger. A value costs a count of leading zeros and two additions; nothing is allocated, and a copy is
/// a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram<const FIRST: u32> {
    /// The last one is of what is larger than all ends.
    counts: [u64; BUCKETS + 1],
    sum: u64,
}

/// Buckets with an end.
pub const BUCKETS: usize = 18;

impl<const FIRST: u32> Histogram<FIRST> {
    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        let bits = u64::BITS - value.saturating_sub(1).leading_zeros();
        let bucket = (bits.saturating_sub(FIRST) as usize).min(BUCKETS);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.wrapping_add(1);
        }
        self.sum = self.sum.wrapping_add(value);
    }

    /// Adds what another counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.wrapping_add(*more);
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// The end of each bucket and how many values were up to it.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut below = 0_u64;
        self.counts.iter().take(BUCKETS).zip(FIRST..).map(move |(count, power)| {
            below = below.wrapping_add(*count);
            (1_u64.checked_shl(power).unwrap_or(u64::MAX), below)
        })
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::<3>::default();
        for value in [0, 1, 8, 9, 16, 17, u64::MAX] {
            histogram.record(value);
        }
        let buckets: Vec<_> = histogram.buckets().take(4).collect();
        assert_eq!(buckets, [(8, 3), (16, 5), (32, 6), (64, 6)]);
        assert_eq!(histogram.buckets().last(), Some((1 << 20, 6)));
        assert_eq!(histogram.count(), 7);
        assert_eq!(histogram.sum(), 50);
        let mut both = histogram;
        both.add(&histogram);
        assert_eq!(both.buckets().next(), Some((8, 6)));
        assert_eq!(both.count(), 14);
    }
}
