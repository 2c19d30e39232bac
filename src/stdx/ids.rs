//! A source of random tails for identifiers that are unique rather than secret.

/// `SplitMix64`: small, fast, and reproducible from its seed, which is what tests and simulations want.
#[derive(Clone, Debug)]
pub struct SplitMix(u64);

impl SplitMix {
    /// The generator of `seed`; the same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound` (0 when `bound` is 0). The bias is below 2^-32 for the small bounds
    /// that tests use.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }

    /// Ten bytes: the random part of a UUIDv7.
    pub fn ten_bytes(&mut self) -> [u8; 10] {
        let mut out = [0; 10];
        let [a, b] = [self.next_u64().to_le_bytes(), self.next_u64().to_le_bytes()];
        for (to, from) in out.iter_mut().zip(a.into_iter().chain(b)) {
            *to = from;
        }
        out
    }
}
