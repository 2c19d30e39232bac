//! FLAC: the stream information block (RFC 9639 §8.2).

use crate::media::AudioFormat;
use crate::media::bits::Bits;

/// The sound format in a FLAC header: the marker, which some leave out, and the first metadata block.
pub(super) fn describe(config: &[u8]) -> Option<AudioFormat> {
    let block = config.strip_prefix(b"fLaC").unwrap_or(config);
    let mut bits = Bits::new(block);
    bits.flag()?; // last block or not
    if bits.u(7)? != 0 {
        return None;
    }
    bits.skip(24)?; // length
    bits.skip(80)?; // block and frame sizes
    let sample_rate = bits.u(20)?;
    let channels = bits.u(3)?.checked_add(1)?;
    Some(AudioFormat { sample_rate, channels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_channels_of_a_stream_information_block() {
        // 48,000 Hz in 20 bits, two channels, 16 bits a sample.
        let block = [&[0x80, 0, 0, 34][..], &[0x10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0], &[0x0b, 0xb8, 0x02, 0xf0]].concat();
        let expected = Some(AudioFormat { sample_rate: 48_000, channels: 2 });
        assert_eq!(describe(&block), expected);
        assert_eq!(describe(&[b"fLaC", &block[..]].concat()), expected);
        assert_eq!(describe(&[0x84, 0, 0, 34]), None);
    }
}
