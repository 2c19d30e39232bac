//! Reads bits, most significant first, and the variable-length numbers that codecs write with them.
//! Everything ends in `None` at the end of the bytes; no number is longer than 32 bits.

/// A place between two bits.
#[derive(Clone, Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    /// The bits of `bytes` from the first on.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// One bit.
    pub(super) fn flag(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at >> 3)?;
        let bit = 7_usize.saturating_sub(self.at & 7);
        self.at = self.at.checked_add(1)?;
        Some((byte >> bit) & 1 == 1)
    }

    /// A number of `count` bits; `None` for more than 32.
    pub(super) fn u(&mut self, count: u32) -> Option<u32> {
        if count > 32 {
            return None;
        }
        let mut value = 0_u64;
        for _ in 0..count {
            value = (value << 1) | u64::from(self.flag()?);
        }
        u32::try_from(value).ok()
    }

    /// Passes over `count` bits.
    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        let at = self.at.checked_add(count)?;
        (at <= self.bytes.len().saturating_mul(8)).then(|| self.at = at)
    }

    /// An unsigned exp-Golomb number (H.264 §9.1, and AV1's `uvlc`); `None` when it has more than 32 bits.
    pub(super) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0_u32;
        while !self.flag()? {
            zeros = zeros.saturating_add(1);
            if zeros > 31 {
                return None;
            }
        }
        let tail = self.u(zeros)?;
        (1_u32.checked_shl(zeros)?).checked_sub(1)?.checked_add(tail)
    }

    /// A signed exp-Golomb number (H.264 §9.1.1).
    pub(super) fn se(&mut self) -> Option<i64> {
        let number = i64::from(self.ue()?);
        let half = number.checked_add(1)?.checked_div(2)?;
        if number & 1 == 1 { Some(half) } else { half.checked_neg() }
    }
}

/// The payload of a NAL unit with its emulation prevention bytes taken out (H.264 §7.4.1.1). Reads no
/// more than a parameter set can need.
pub(super) fn unescape(nal: &[u8]) -> Vec<u8> {
    const LEN_MAX: usize = 4_096;
    let mut out = Vec::with_capacity(nal.len().min(LEN_MAX));
    let mut zeros = 0_u32;
    for byte in nal.iter().take(LEN_MAX) {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros.saturating_add(1) } else { 0 };
        out.push(*byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_numbers() {
        // 1, 010, 011, 00100: 0 1 2 3
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0000]);
        assert_eq!([bits.ue(), bits.ue(), bits.ue(), bits.ue()], [Some(0), Some(1), Some(2), Some(3)]);
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0000]);
        assert_eq!([bits.se(), bits.se(), bits.se(), bits.se()], [Some(0), Some(1), Some(-1), Some(2)]);
    }

    #[test]
    fn md_02_exp_golomb_of_2_to_the_32_is_refused() {
        // 32 zeros would begin a number of 33 bits; 31 zeros begin the largest that fits.
        assert_eq!(Bits::new(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff]).ue(), None);
        assert_eq!(Bits::new(&[0; 1_000]).ue(), None);
        assert_eq!(Bits::new(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe]).ue(), Some(u32::MAX - 1));
        assert_eq!(Bits::new(&[0]).ue(), None);
        assert_eq!(Bits::new(&[]).flag(), None);
    }

    #[test]
    fn emulation_prevention_is_taken_out() {
        assert_eq!(unescape(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3]), [0, 0, 1, 0, 0, 0, 0]);
    }
}
