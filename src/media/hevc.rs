//! H.265: `HEVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §8.3.3.1) and the head of the sequence parameter
//! set (H.265 §7.3.2.2.1).

use crate::media::VideoFormat;
use crate::media::bits::{Bits, unescape};

const NAL_TYPE_SPS: u8 = 33;

/// The picture format in an `hvcC`.
pub(super) fn describe(config: &[u8]) -> Option<VideoFormat> {
    let (head, mut rest) = config.split_first_chunk::<23>()?;
    let [.., arrays] = head;
    for _ in 0..*arrays {
        let (array, units) = rest.split_first_chunk::<3>()?;
        let [kind, high, low] = *array;
        rest = units;
        for _ in 0..u16::from_be_bytes([high, low]) {
            let (len, units) = rest.split_first_chunk::<2>()?;
            let (nal, units) = units.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            if kind & 0x3f == NAL_TYPE_SPS {
                return parameter_set(&unescape(nal));
            }
            rest = units;
        }
    }
    None
}

fn parameter_set(nal: &[u8]) -> Option<VideoFormat> {
    let mut bits = Bits::new(nal);
    bits.skip(16)?; // NAL unit header
    bits.skip(4)?; // sps_video_parameter_set_id
    let sub_layers = bits.u(3)?;
    bits.flag()?; // sps_temporal_id_nesting_flag
    profile_tier_level(&mut bits, sub_layers)?;
    bits.ue()?; // sps_seq_parameter_set_id
    let chroma_format = bits.ue()?;
    let is_separate = chroma_format == 3 && bits.flag()?;
    let (unit_x, unit_y) = match chroma_format {
        1 if !is_separate => (2_u32, 2_u32),
        2 => (2, 1),
        _ => (1, 1),
    };
    let mut width = bits.ue()?;
    let mut height = bits.ue()?;
    if bits.flag()? {
        let [left, right, top, bottom] = [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?];
        width = width.checked_sub(left.checked_add(right)?.checked_mul(unit_x)?)?;
        height = height.checked_sub(top.checked_add(bottom)?.checked_mul(unit_y)?)?;
    }
    // The rate is behind everything else in the set; the measured one serves.
    VideoFormat::sized(width, height, 0.0)
}

/// Passes over `profile_tier_level(1, sub_layers)` (H.265 §7.3.3).
fn profile_tier_level(bits: &mut Bits<'_>, sub_layers: u32) -> Option<()> {
    bits.skip(96)?;
    let mut sizes = [0_usize; 8];
    for size in sizes.iter_mut().take(usize::try_from(sub_layers).ok()?) {
        let profile = if bits.flag()? { 88_usize } else { 0 };
        let level = if bits.flag()? { 8 } else { 0 };
        *size = profile.saturating_add(level);
    }
    if sub_layers > 0 {
        let padding = 8_u32.checked_sub(sub_layers)?.checked_mul(2)?;
        bits.skip(usize::try_from(padding).ok()?)?;
    }
    for size in sizes {
        bits.skip(size)?;
    }
    Some(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As an encoder wrote it.
    pub(in crate::media) fn real_config() -> Vec<u8> {
        vec![
            0x01, 0x01, 0x60, 0x00, 0x00, 0x00, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00, 0x78, 0xf0, 0x00, 0xfc, 0xfd, 0xf8,
            0xf8, 0x00, 0x00, 0x0f, 0x03, 0x20, 0x00, 0x01, 0x00, 0x18, 0x40, 0x01, 0x0c, 0x01, 0xff, 0xff, 0x01, 0x60,
            0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x78, 0x95, 0x98, 0x09, 0x21, 0x00,
            0x01, 0x00, 0x2a, 0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00,
            0x03, 0x00, 0x78, 0xa0, 0x03, 0xc0, 0x80, 0x10, 0xe5, 0x96, 0x56, 0x69, 0x24, 0xca, 0xf0, 0x16, 0x80, 0x80,
            0x00, 0x00, 0x03, 0x00, 0x80, 0x00, 0x00, 0x0f, 0x04, 0x22, 0x00, 0x01, 0x00, 0x07, 0x44, 0x01, 0xc1, 0x72,
            0xb4, 0x62, 0x40,
        ]
    }

    #[test]
    fn size_of_a_real_configuration() {
        let format = describe(&real_config()).unwrap();
        assert_eq!((format.width, format.height), (1920, 1080));
        assert!((format.frame_rate - 0.0).abs() < 0.01, "{format:?}");
    }

    #[test]
    fn md_02_lying_lengths_are_unknown() {
        let mut config = real_config();
        config[26] = 0xff;
        assert_eq!(describe(&config), None, "a unit longer than the record");
        let mut config = real_config();
        config[22] = 0;
        assert_eq!(describe(&config), None, "no arrays");
        let many = [&real_config()[..22], &[255], &[0x21, 0xff, 0xff][..], &[0; 10]].concat();
        assert_eq!(describe(&many), None, "65,535 units that are not there");
    }
}
