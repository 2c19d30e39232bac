//! Durations and sizes as people write them in a configuration: `"5s"`, `"40ms"`, `"16MiB"`.
//! A bare number has no unit and is refused, so that nobody has to guess.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Reads `"250ms"`, `"5s"`, `"10m"`, `"1h"`; `"0"` is zero in every unit.
///
/// # Errors
/// A sentence that says what a duration looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let number: u64 = number.parse().map_err(|_| duration_hint(text))?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" | "min" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        "" if number == 0 => Some(0),
        _ => return Err(duration_hint(text)),
    };
    // A hundred years is longer than any setting means, and keeps every later sum inside the clock.
    millis
        .filter(|ms| *ms <= 100 * 366 * 86_400_000)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is too long a time"))
}

/// Reads `"512B"`, `"64KiB"`, `"16MiB"`, `"1GiB"` and the decimal `kB`, `MB`, `GB`.
///
/// # Errors
/// A sentence that says what a size looks like.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let hint =
        || format!("`{text}` is not a size; write a whole number and a unit, as \"64KiB\", \"16MiB\" or \"500kB\"");
    let number: u64 = number.parse().map_err(|_| hint())?;
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "" if number == 0 => 1,
        _ => return Err(hint()),
    };
    number.checked_mul(factor).ok_or_else(|| format!("`{text}` is too large"))
}

fn duration_hint(text: &str) -> String {
    format!("`{text}` is not a duration; write a whole number and a unit, as \"40ms\", \"5s\", \"10m\" or \"1h\"")
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

/// A number of things in words: `1 session`, `2 sessions`.
#[must_use]
pub fn counted<N: Copy + PartialEq + From<u8> + fmt::Display>(count: N, one: &str) -> String {
    if count == N::from(1) { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// `#[serde(with = "units::duration")]` for a [`Duration`] field.
pub mod duration {
    use super::{Deserializer, Duration, Serializer, Text, parse_duration};

    /// Reads a duration with its unit.
    ///
    /// # Errors
    /// When the text is not one.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from.deserialize_str(Text("a duration with its unit, as \"5s\"", parse_duration))
    }

    /// Writes a duration with its unit.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{}ms", value.as_millis()))
    }
}

/// `#[serde(with = "units::bytes")]` for a `u64` field that holds a size in bytes.
pub mod bytes {
    use super::{Deserializer, Serializer, Text, parse_bytes};

    /// Reads a size with its unit.
    ///
    /// # Errors
    /// When the text is not one.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        from.deserialize_str(Text("a size with its unit, as \"16MiB\"", parse_bytes))
    }

    /// Writes a size with its unit.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{value}B"))
    }
}

/// Visits a string and parses it with `1`, expecting `0`.
struct Text<T>(&'static str, fn(&str) -> Result<T, String>);

impl<T> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }
}

/// A text that must not appear in output: it prints as `***`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for comparison or signing only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cf_02_units_must_be_written() {
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("40ms"), Ok(Duration::from_millis(40)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_bytes("16MiB"), Ok(16 << 20));
        assert_eq!(parse_bytes("500kB"), Ok(500_000));
        for bad in ["5", "s", "", "-1s", "1.5s", "5 parsecs", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
        for bad in ["5", "5K", "MiB", "-1B", "18446744073709551615GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret::new("hunter2".into());
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
    }
}
