//! Picture size and sound format, read from decoder configurations. For display only: what cannot be
//! read is unknown, and the stream is relayed all the same.

use crate::media::{aac, av1, avc, flac, hevc, opus};

/// What pictures look like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VideoFormat {
    /// In pixels; 0 while unknown.
    pub width: u32,
    /// In pixels; 0 while unknown.
    pub height: u32,
    /// Pictures a second as the configuration says, which is not always what comes; 0 while unknown.
    pub frame_rate: f64,
}

/// What sound is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AudioFormat {
    /// In Hz; 0 while unknown.
    pub sample_rate: u32,
    /// 0 while unknown.
    pub channels: u32,
}

/// The format in a configuration record of the codec with these four characters.
#[must_use]
pub fn describe_video(codec: [u8; 4], config: &[u8]) -> Option<VideoFormat> {
    match &codec {
        b"avc1" => avc::describe(config),
        b"hvc1" => hevc::describe(config),
        b"av01" => av1::describe(config),
        // `vpcC` has no picture size; it is in the keyframes.
        _ => None,
    }
}

/// The format in a configuration record of the codec with these four characters.
#[must_use]
pub fn describe_audio(codec: [u8; 4], config: &[u8]) -> Option<AudioFormat> {
    match &codec {
        b"mp4a" => aac::describe(config),
        b"Opus" => opus::describe(config),
        b"fLaC" => flac::describe(config),
        _ => None,
    }
}

impl VideoFormat {
    /// A size that a picture can have; the extremes are what damaged configurations say.
    pub(super) fn sized(width: u32, height: u32, frame_rate: f64) -> Option<Self> {
        let is_size = |pixels| (1..65_535).contains(&pixels);
        (is_size(width) && is_size(height)).then_some(Self { width, height, frame_rate })
    }
}

/// `ticks` a second divided by those of a picture, if that is a rate that pictures can have.
pub(super) fn frame_rate(ticks_per_second: u32, ticks_per_picture: u64) -> f64 {
    let Some(ticks_per_picture) = u32::try_from(ticks_per_picture).ok().filter(|ticks| *ticks > 0) else { return 0.0 };
    let rate = f64::from(ticks_per_second) / f64::from(ticks_per_picture);
    if rate <= 1_000.0 { rate } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VIDEO: [[u8; 4]; 6] = [*b"avc1", *b"hvc1", *b"av01", *b"vp09", *b"vvc1", *b"v002"];
    const AUDIO: [[u8; 4]; 5] = [*b"mp4a", *b"Opus", *b"fLaC", *b"ac-3", *b"a011"];

    /// Real configurations and what they say, to be cut short and damaged below.
    fn real() -> Vec<([u8; 4], Vec<u8>)> {
        vec![
            (*b"avc1", avc::tests::real_config()),
            (*b"hvc1", hevc::tests::real_config()),
            (*b"av01", av1::tests::real_config()),
        ]
    }

    #[test]
    fn md_02_truncated_configuration_is_unknown() {
        for (codec, config) in real() {
            assert!(describe_video(codec, &config).is_some());
            for len in 0..config.len() {
                // Some tails are not needed; none may panic, and the head is always needed.
                let format = describe_video(codec, &config[..len]);
                assert!(len > 8 || format.is_none(), "{len} bytes");
            }
        }
        assert_eq!(describe_audio(*b"mp4a", &[0x12]), None);
    }

    #[test]
    fn md_02_impossible_sizes_are_unknown() {
        for (width, height) in [(0, 1), (1, 0), (65_535, 1), (1, 65_535), (u32::MAX, u32::MAX)] {
            assert_eq!(VideoFormat::sized(width, height, 0.0), None);
        }
        assert!(VideoFormat::sized(7_680, 4_320, 0.0).is_some());
        assert!(frame_rate(90_000, 0).abs() < f64::EPSILON);
        assert!((frame_rate(50, 2) - 25.0).abs() < f64::EPSILON);
    }

    proptest! {
        #[test]
        fn md_02_any_bytes_are_read_without_panic(config in prop::collection::vec(any::<u8>(), 0..200)) {
            for codec in VIDEO {
                if let Some(format) = describe_video(codec, &config) {
                    prop_assert!(format.width > 0 && format.height > 0 && format.frame_rate.is_finite());
                }
            }
            for codec in AUDIO {
                let _ = describe_audio(codec, &config);
            }
        }

        #[test]
        fn md_02_damaged_configurations_are_read_without_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            for (codec, mut config) in real() {
                let at = at.index(config.len());
                config[at] = byte;
                let _ = describe_video(codec, &config);
            }
        }
    }
}
