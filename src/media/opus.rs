//! Opus: the identification header (RFC 7845 §5.1).

use crate::media::AudioFormat;

/// The sound format in an `OpusHead`. The rate it names is that of the original recording; Opus itself
/// always plays at 48 kHz (RFC 7845 §4.2).
pub(super) fn describe(config: &[u8]) -> Option<AudioFormat> {
    let [_version, channels, ..] = config.strip_prefix(b"OpusHead")? else { return None };
    Some(AudioFormat { sample_rate: 48_000, channels: u32::from(*channels) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_of_a_head() {
        let head = b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0";
        assert_eq!(describe(head), Some(AudioFormat { sample_rate: 48_000, channels: 2 }));
        assert_eq!(describe(b"OpusHead\x01"), None);
        assert_eq!(describe(b"OpusTags\x01\x02"), None);
    }
}
