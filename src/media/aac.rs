//! AAC: `AudioSpecificConfig` (ISO/IEC 14496-3 §1.6.2.1).

use crate::media::AudioFormat;
use crate::media::bits::Bits;

/// Samples a second, by index (ISO/IEC 14496-3 table 1.18).
const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

const OBJECT_SBR: u32 = 5;
const OBJECT_PS: u32 = 29;

/// The sound format in an `AudioSpecificConfig`.
pub(super) fn describe(config: &[u8]) -> Option<AudioFormat> {
    let mut bits = Bits::new(config);
    let object = object_type(&mut bits)?;
    let mut sample_rate = rate(&mut bits)?;
    let mut channels = match bits.u(4)? {
        count @ 1..=6 => count,
        11 => 7,
        7 | 12 | 14 => 8,
        13 => 24,
        // 0: described elsewhere. The others mean nothing yet.
        _ => 0,
    };
    if object == OBJECT_SBR || object == OBJECT_PS {
        // What comes out of the decoder is what counts.
        sample_rate = rate(&mut bits)?;
        if object == OBJECT_PS && channels == 1 {
            channels = 2;
        }
    }
    Some(AudioFormat { sample_rate, channels })
}

fn object_type(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.u(5)? {
        31 => bits.u(6)?.checked_add(32),
        object => Some(object),
    }
}

/// 0 for an index that means nothing.
fn rate(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.u(4)? {
        15 => bits.u(24),
        index => Some(RATES.get(usize::try_from(index).ok()?).copied().unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_real_configurations() {
        let format = |sample_rate, channels| Some(AudioFormat { sample_rate, channels });
        assert_eq!(describe(&[0x12, 0x10]), format(44_100, 2));
        assert_eq!(describe(&[0x11, 0x90, 0x56, 0xe5, 0x00]), format(48_000, 2));
        assert_eq!(describe(&[0x11, 0xb0]), format(48_000, 6));
        // HE-AAC with its extension said first: 24 kHz core, 48 kHz out.
        assert_eq!(describe(&[0x2b, 0x11, 0x88, 0x00]), format(48_000, 2));
    }

    #[test]
    fn md_02_zero_sample_rate_is_unknown() {
        // The rate written out as 24 bits of nothing; an index without meaning.
        assert_eq!(describe(&[0x17, 0x80, 0, 0, 0x10]), Some(AudioFormat { sample_rate: 0, channels: 2 }));
        assert_eq!(describe(&[0x16, 0x90]), Some(AudioFormat { sample_rate: 0, channels: 2 }));
        assert_eq!(describe(&[]), None);
    }
}
