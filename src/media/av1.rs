//! AV1: `AV1CodecConfigurationRecord` (AV1 in ISO-BMFF §2.3.3) and the sequence header in it (AV1 §5.5).

use crate::media::VideoFormat;
use crate::media::bits::Bits;
use crate::media::format::frame_rate;

const OBU_SEQUENCE_HEADER: u8 = 1;

/// The picture format in an `av1C`.
pub(super) fn describe(config: &[u8]) -> Option<VideoFormat> {
    let ([0x81, _, _, _], mut rest) = config.split_first_chunk::<4>()? else { return None };
    while let Some((header, tail)) = rest.split_first() {
        let has_extension = header & 0x04 != 0;
        let has_size = header & 0x02 != 0;
        let tail = tail.get(usize::from(has_extension)..)?;
        let (body, tail) = if has_size {
            let (size, tail) = leb128(tail)?;
            tail.split_at_checked(size)?
        } else {
            (tail, &[][..])
        };
        if (header >> 3) & 0x0f == OBU_SEQUENCE_HEADER {
            return sequence_header(body);
        }
        rest = tail;
    }
    None
}

/// A little-endian number of seven bits a byte (AV1 §4.10.5).
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    let mut rest = bytes;
    for place in 0..8_u32 {
        let (byte, tail) = rest.split_first()?;
        rest = tail;
        value |= u64::from(byte & 0x7f).checked_shl(place.checked_mul(7)?)?;
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, rest));
        }
    }
    None
}

fn sequence_header(body: &[u8]) -> Option<VideoFormat> {
    let mut bits = Bits::new(body);
    bits.skip(3)?; // seq_profile
    bits.flag()?; // still_picture
    let mut rate = 0.0;
    if bits.flag()? {
        // reduced_still_picture_header
        bits.skip(5)?;
    } else {
        let mut delay_bits = None;
        if bits.flag()? {
            rate = timing_info(&mut bits)?;
            if bits.flag()? {
                delay_bits = Some(bits.u(5)?.checked_add(1)?);
                bits.skip(42)?; // num_units_in_decoding_tick, two lengths
            }
        }
        let has_display_delay = bits.flag()?;
        let points = bits.u(5)?;
        for _ in 0..=points {
            bits.skip(12)?; // operating_point_idc
            if bits.u(5)? > 7 {
                bits.flag()?; // seq_tier
            }
            if let Some(delay_bits) = delay_bits
                && bits.flag()?
            {
                bits.skip(usize::try_from(delay_bits).ok()?.checked_mul(2)?.checked_add(1)?)?;
            }
            if has_display_delay && bits.flag()? {
                bits.skip(4)?;
            }
        }
    }
    let width_bits = bits.u(4)?.checked_add(1)?;
    let height_bits = bits.u(4)?.checked_add(1)?;
    let width = bits.u(width_bits)?.checked_add(1)?;
    let height = bits.u(height_bits)?.checked_add(1)?;
    VideoFormat::sized(width, height, rate)
}

fn timing_info(bits: &mut Bits<'_>) -> Option<f64> {
    let ticks_per_unit = bits.u(32)?;
    let ticks_per_second = bits.u(32)?;
    if !bits.flag()? {
        return Some(0.0);
    }
    let units = u64::from(bits.ue()?).checked_add(1)?;
    Some(frame_rate(ticks_per_second, units.checked_mul(u64::from(ticks_per_unit))?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As an encoder wrote it.
    pub(in crate::media) fn real_config() -> Vec<u8> {
        vec![0x81, 0x04, 0x0c, 0x00, 0x0a, 0x0b, 0x00, 0x00, 0x00, 0x24, 0xc6, 0xab, 0xdf, 0x3f, 0xfe, 0x60, 0x10]
    }

    #[test]
    fn size_of_a_real_configuration() {
        let format = describe(&real_config()).unwrap();
        assert_eq!((format.width, format.height), (854, 480));
        assert!((format.frame_rate - 0.0).abs() < 0.01, "{format:?}");
    }

    #[test]
    fn md_02_lying_sizes_are_unknown() {
        let mut config = real_config();
        config[5] = 0x7f;
        assert_eq!(describe(&config), None, "longer than the record");
        let endless = [&[0x81, 4, 12, 0, 0x0a][..], &[0xff; 20]].concat();
        assert_eq!(describe(&endless), None, "a size that does not end");
        assert_eq!(describe(&[0x81, 4, 12, 0]), None, "no sequence header");
    }
}
