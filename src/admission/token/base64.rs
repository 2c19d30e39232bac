//! Base64 for URLs (RFC 4648 §5), strictly: one text for one value.

/// Decodes text without padding. A character outside the alphabet, a length that no bytes have, or bits left over
/// that are not zero are refused.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len().div_ceil(4).saturating_mul(3));
    let (mut held, mut bits) = (0_u32, 0_u32);
    for byte in text.bytes() {
        held = (held << 6) | u32::from(value(byte)?);
        bits = bits.saturating_add(6);
        if bits >= 8 {
            bits = bits.saturating_sub(8);
            out.push(u8::try_from((held >> bits) & 0xff).ok()?);
            held &= (1_u32 << bits).saturating_sub(1);
        }
    }
    // Two, four or no bits are left of whole bytes; six are one character too many.
    (bits < 6 && held == 0).then_some(out)
}

/// Encodes without padding.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letter = |value: u32| ALPHABET.get((value & 63) as usize).map_or('A', |byte| char::from(*byte));
    let mut out = String::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    let (mut held, mut bits) = (0_u32, 0_u32);
    for byte in bytes {
        held = ((held & 0xff) << 8) | u32::from(*byte);
        bits = bits.saturating_add(8);
        while bits >= 6 {
            bits = bits.saturating_sub(6);
            out.push(letter(held >> bits));
        }
    }
    if bits > 0 {
        out.push(letter(held << 6_u32.saturating_sub(bits)));
    }
    out
}

fn value(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => byte.checked_sub(b'A'),
        b'a'..=b'z' => byte.checked_sub(b'a')?.checked_add(26),
        b'0'..=b'9' => byte.checked_sub(b'0')?.checked_add(52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

/// Decodes hexadecimal in either case.
#[must_use]
pub fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_4648_vectors_hold_in_both_directions() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(decode(text).as_deref(), Some(plain.as_bytes()), "{text}");
            assert_eq!(encode(plain.as_bytes()), text);
        }
        assert_eq!(decode("-_8"), Some(vec![0xfb, 0xff]));
    }

    #[test]
    fn a_value_has_one_spelling() {
        for bad in ["Zg==", "Zh", "Zm9", "Z", "Zm9vY", "Zm 8", "Zm+v", "Zm/v", "Zmé"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        assert_eq!(decode_hex("00fF"), Some(vec![0, 255]));
        for bad in ["0", "0g", "+1", "é1"] {
            assert_eq!(decode_hex(bad), None, "{bad}");
        }
    }
}
