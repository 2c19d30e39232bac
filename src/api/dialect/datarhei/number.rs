//! Numbers as Core writes them: whole ones without a fraction, all others with exactly three decimals.

use std::fmt::Write as _;

/// Appends `value`. What is no number is written as zero.
pub fn write(out: &mut Vec<u8>, value: f64) {
    let mut text = String::new();
    let value = if value.is_finite() { value } else { 0.0 };
    // Rust rounds the exact decimal expansion, and halves to even, as Go does.
    let _ = if value.fract() == 0.0 { write!(text, "{value:.0}") } else { write!(text, "{value:.3}") };
    out.extend_from_slice(if text == "-0" { "0" } else { &text }.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        write(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn check_08_number_format() {
        for (value, written) in [
            (0.0, "0"),
            (-0.0, "0"),
            (8.0, "8"),
            (100.0, "100"),
            (1.5, "1.500"),
            (7.8125, "7.812"),
            (7.8135, "7.814"),
            (0.0625, "0.062"),
            (0.1875, "0.188"),
            (2.0004, "2.000"),
            (0.9996, "1.000"),
            (2.0, "2"),
            (40.008, "40.008"),
            (f64::NAN, "0"),
        ] {
            assert_eq!(text(value), written);
        }
    }

    proptest! {
        #[test]
        fn check_08_number_format_of_any_number(value in 0.0..1e12_f64) {
            let written = text(value);
            let (whole, fraction) = written.split_once('.').unwrap_or((&written, ""));
            prop_assert!(whole.bytes().all(|byte| byte.is_ascii_digit()));
            prop_assert_eq!(fraction.len(), if value.fract() == 0.0 { 0 } else { 3 });
            let back: f64 = written.parse().unwrap();
            prop_assert!((back - value).abs() <= 0.0005 + value * f64::EPSILON);
        }

        #[test]
        fn check_08_halves_go_to_even(eighths in 0_u32..1_000_000) {
            // A multiple of 1/16 has at most four decimals, so thousandths of it are exact or halves.
            let value = f64::from(eighths) / 16.0;
            let tenthousandths = u64::from(eighths) * 625;
            let (thousandths, rest) = (tenthousandths / 10, tenthousandths % 10);
            let rounded = match rest {
                0..=4 => thousandths,
                5 => thousandths + thousandths % 2,
                _ => thousandths + 1,
            };
            let expected = if tenthousandths % 10_000 == 0 {
                format!("{}", rounded / 1_000)
            } else {
                format!("{}.{:03}", rounded / 1_000, rounded % 1_000)
            };
            prop_assert_eq!(text(value), expected);
        }
    }
}
