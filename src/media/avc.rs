//! H.264: `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §5.3.3.1) and as much of the sequence parameter
//! set (H.264 §7.3.2.1.1) as lies before the picture size and rate.

use crate::media::VideoFormat;
use crate::media::bits::{Bits, unescape};
use crate::media::format::frame_rate;

/// The picture format in an `avcC`.
pub(super) fn describe(config: &[u8]) -> Option<VideoFormat> {
    let (head, rest) = config.split_first_chunk::<6>()?;
    let [1, _, _, _, _, counts] = head else { return None };
    let sets = counts & 0x1f;
    if sets == 0 {
        return None;
    }
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let nal = rest.get(..usize::from(u16::from_be_bytes(*len)))?;
    let (header, sps) = nal.split_first()?;
    (header & 0x1f == 7).then(|| parameter_set(&unescape(sps)))?
}

fn parameter_set(sps: &[u8]) -> Option<VideoFormat> {
    let mut bits = Bits::new(sps);
    let profile = bits.u(8)?;
    bits.skip(16)?; // constraint flags, level
    bits.ue()?; // seq_parameter_set_id
    let mut chroma_format = 1;
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        chroma_format = bits.ue()?;
        let is_separate = chroma_format == 3 && bits.flag()?;
        bits.ue()?; // bit_depth_luma_minus8
        bits.ue()?; // bit_depth_chroma_minus8
        bits.flag()?; // qpprime_y_zero_transform_bypass_flag
        if bits.flag()? {
            scaling_matrix(&mut bits, if chroma_format == 3 { 12 } else { 8 })?;
        }
        if is_separate {
            // Three pictures of one colour each are cropped by the pixel.
            chroma_format = 0;
        }
    }
    bits.ue()?; // log2_max_frame_num_minus4
    match bits.ue()? {
        0 => {
            bits.ue()?; // log2_max_pic_order_cnt_lsb_minus4
        }
        1 => {
            bits.flag()?; // delta_pic_order_always_zero_flag
            bits.se()?; // offset_for_non_ref_pic
            bits.se()?; // offset_for_top_to_bottom_field
            let count = bits.ue()?;
            if count > 255 {
                return None;
            }
            for _ in 0..count {
                bits.se()?;
            }
        }
        _ => {}
    }
    bits.ue()?; // max_num_ref_frames
    bits.flag()?; // gaps_in_frame_num_value_allowed_flag
    let width_mbs = bits.ue()?.checked_add(1)?;
    let height_units = bits.ue()?.checked_add(1)?;
    let is_frames_only = bits.flag()?;
    if !is_frames_only {
        bits.flag()?; // mb_adaptive_frame_field_flag
    }
    bits.flag()?; // direct_8x8_inference_flag
    let fields = if is_frames_only { 1_u32 } else { 2 };
    let (unit_x, unit_y) = match chroma_format {
        1 => (2_u32, 2_u32),
        2 => (2, 1),
        _ => (1, 1),
    };
    let mut width = width_mbs.checked_mul(16)?;
    let mut height = height_units.checked_mul(16)?.checked_mul(fields)?;
    if bits.flag()? {
        let [left, right, top, bottom] = [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?];
        width = width.checked_sub(left.checked_add(right)?.checked_mul(unit_x)?)?;
        height = height.checked_sub(top.checked_add(bottom)?.checked_mul(unit_y)?.checked_mul(fields)?)?;
    }
    VideoFormat::sized(width, height, usability_frame_rate(&mut bits).unwrap_or(0.0))
}

fn scaling_matrix(bits: &mut Bits<'_>, lists: usize) -> Option<()> {
    for list in 0..lists {
        if !bits.flag()? {
            continue;
        }
        let (mut last, mut next) = (8_i64, 8_i64);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = last.checked_add(bits.se()?)?.rem_euclid(256);
            }
            if next != 0 {
                last = next;
            }
        }
    }
    Some(())
}

/// The picture rate in the video usability information (H.264 annex E.1.1), if there is one.
fn usability_frame_rate(bits: &mut Bits<'_>) -> Option<f64> {
    const EXTENDED_SAR: u32 = 255;
    if !bits.flag()? {
        return None;
    }
    if bits.flag()? && bits.u(8)? == EXTENDED_SAR {
        bits.skip(32)?;
    }
    if bits.flag()? {
        bits.flag()?; // overscan_appropriate_flag
    }
    if bits.flag()? {
        bits.skip(4)?; // video_format, video_full_range_flag
        if bits.flag()? {
            bits.skip(24)?;
        }
    }
    if bits.flag()? {
        bits.ue()?; // chroma_sample_loc_type_top_field
        bits.ue()?; // chroma_sample_loc_type_bottom_field
    }
    if !bits.flag()? {
        return None;
    }
    let ticks_per_field = bits.u(32)?;
    let ticks_per_second = bits.u(32)?;
    Some(frame_rate(ticks_per_second, u64::from(ticks_per_field).checked_mul(2)?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As an encoder wrote it.
    pub(in crate::media) fn real_config() -> Vec<u8> {
        vec![
            0x01, 0x64, 0x00, 0x1f, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbf,
            0xac, 0x04, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x0c, 0x83, 0xc6, 0x0c, 0x65, 0x80, 0x01, 0x00,
            0x06, 0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0, 0xfd, 0xf8, 0xf8, 0x00,
        ]
    }

    #[test]
    fn size_of_a_real_configuration() {
        let format = describe(&real_config()).unwrap();
        assert_eq!((format.width, format.height), (1280, 718));
        assert!((format.frame_rate - 25.0).abs() < 0.01, "{format:?}");
    }

    #[test]
    fn md_02_lying_lengths_are_unknown() {
        let mut config = real_config();
        config[5] = 0xe0;
        assert_eq!(describe(&config), None, "no parameter set");
        config[5] = 0xe1;
        config[6] = 0xff;
        assert_eq!(describe(&config), None, "a parameter set longer than the record");
        config[6] = 0;
        config[8] = 0x68;
        assert_eq!(describe(&config), None, "a picture parameter set in its place");
    }
}
