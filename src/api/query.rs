//! Query strings, read strictly: each parameter is known, appears once, and decodes.

use crate::api::Problem;
use crate::control::Filter;
use crate::control::filter::FILTER_FIELDS;
use crate::ledger::Day;

/// The parameters of one request that nobody has taken yet.
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Decodes `query` and refuses what is not in `known` or is there twice.
    ///
    /// # Errors
    /// 400 naming the parameter, with the nearest known one.
    pub fn parse(query: Option<&str>, known: &[&[&str]]) -> Result<Self, Problem> {
        let mut found: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, true)
                .ok_or_else(|| Problem::parameter(shorten(name), "the name has a broken percent escape"))?;
            if !known.iter().any(|names| names.contains(&name.as_str())) {
                return Err(Problem::parameter(
                    shorten(&name),
                    unknown(&name, known.iter().copied().flatten().copied()),
                ));
            }
            let value = decode(value, true).ok_or_else(|| {
                Problem::parameter(name.clone(), "the value has a broken percent escape or is not UTF-8")
            })?;
            if found.iter().any(|(other, _)| *other == name) {
                return Err(Problem::parameter(name, "the parameter is given twice; join alternatives with commas"));
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    /// Parameters that came by another way than a query string, each once.
    #[must_use]
    pub fn of(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// The value of `name`, once.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Makes a filter of its fields.
    ///
    /// # Errors
    /// 400 naming the field.
    pub fn take_filter(&mut self) -> Result<Filter, Problem> {
        let mut filter = Filter::default();
        for field in FILTER_FIELDS {
            let Some(value) = self.take(field) else { continue };
            filter.add(field, &value)?;
        }
        Ok(filter)
    }

    /// `true` or `false`, or present without a value, which is true.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn take_flag(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some("" | "true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(Problem::parameter(name, "write true or false")),
        }
    }
}

/// Milliseconds since the Unix epoch of a time of RFC 3339, or of a date's first moment in UTC. A blank before an offset
/// is the `+` that a query string made of it.
#[must_use]
pub fn time(text: &str) -> Option<u64> {
    /// Nothing that anybody writes is longer; what is cut off would be less than a millisecond.
    const BYTES_MAX: usize = 40;
    if text.len() > BYTES_MAX || !text.is_ascii() {
        return None;
    }
    let digits = |text: &str, most: u64| -> Option<u64> {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten().filter(|number| *number <= most)
    };
    let clock = |text: &str| -> Option<u64> {
        let (hours, minutes) = text.split_once(':')?;
        Some(digits(hours, 23)? * 60 + digits(minutes, 59)?)
    };
    let Some((date, rest)) = text.split_once('T') else { return Some(Day::parse(text)?.begins_unix_ms()) };
    let local = |clock_text: &str| -> Option<u64> {
        let (minutes, seconds) = clock_text.rsplit_once(':')?;
        let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
        if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let millis = fraction.bytes().chain([b'0'; 3]).take(3).fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'));
        Some(Day::parse(date)?.begins_unix_ms() + clock(minutes)? * 60_000 + digits(seconds, 59)? * 1_000 + millis)
    };
    if let Some(utc) = rest.strip_suffix('Z') {
        return local(utc);
    }
    let (here, offset) = rest.split_at(rest.rfind(['+', '-', ' '])?);
    let (sign, offset) = offset.split_at(1);
    let offset_ms = clock(offset)? * 60_000;
    if sign == "-" { local(here)?.checked_add(offset_ms) } else { local(here)?.checked_sub(offset_ms) }
}

/// Undoes percent escapes; `plus` also reads `+` as a blank, as in query strings. `None` for a broken escape or
/// for bytes that are not UTF-8.
#[must_use]
pub fn decode(text: &str, plus: bool) -> Option<String> {
    decode_bytes(text.as_bytes(), plus).and_then(|bytes| String::from_utf8(bytes).ok())
}

/// [`decode`] for bytes of any kind.
#[must_use]
pub fn decode_bytes(text: &[u8], plus: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        out.push(match byte {
            b'%' => {
                let high = char::from(*rest.next()?).to_digit(16)?;
                let low = char::from(*rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus => b' ',
            other => other,
        });
    }
    Some(out)
}

/// Escapes what may not stand in a value of a query string.
#[must_use]
pub fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b',' | b':' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// The sentence for a name nobody knows, with the nearest one that somebody does.
#[must_use]
pub fn unknown<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let short = shorten(name);
    let known: Vec<&str> = known.into_iter().collect();
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&short, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 2);
    match nearest {
        Some((_, nearest)) => format!("`{short}` is not known here; did you mean `{nearest}`?"),
        None if known.is_empty() => format!("`{short}` is not known here; there are no parameters"),
        None => format!("`{short}` is not known here; there are: {}", known.join(", ")),
    }
}

/// What a stranger wrote, short enough to repeat to them.
#[must_use]
pub fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_parameters_are_refused_with_the_nearest_known() {
        let problem = Params::parse(Some("ap=live"), &[&["app", "limit"]]).err().unwrap();
        assert_eq!(problem.field.as_deref(), Some("ap"));
        assert!(problem.detail.contains("`app`"), "{}", problem.detail);
        assert!(Params::parse(Some("app=a&app=b"), &[&["app"]]).is_err());
        assert!(Params::parse(Some("app=%zz"), &[&["app"]]).is_err());
        assert!(Params::parse(Some("app=%ff"), &[&["app"]]).is_err());
        assert!(Params::parse(Some("app=%f"), &[&["app"]]).is_err());
        let mut params = Params::parse(Some("app=a%2Cb+c&"), &[&["app"]]).unwrap();
        assert_eq!(params.take("app").as_deref(), Some("a,b c"));
    }

    #[test]
    fn times_are_dates_or_moments_with_an_offset() {
        const DAY: u64 = 1_795_132_800_000;
        for (text, ms) in [
            ("2026-11-20", DAY),
            ("2026-11-20T00:00:00Z", DAY),
            ("2026-11-20T17:30:05.25Z", DAY + 63_005_250),
            ("2026-11-20T17:30:05.123456789Z", DAY + 63_005_123),
            ("2026-11-20T01:00:00+01:00", DAY),
            ("2026-11-20T01:00:00 01:00", DAY),
            ("2026-11-19T18:30:00-05:30", DAY),
            ("1970-01-01T00:00:00Z", 0),
        ] {
            assert_eq!(time(text), Some(ms), "{text}");
        }
        for bad in [
            "",
            "T",
            "2026-11-20T",
            "2026-11-20T1:00:00Z",
            "2026-11-20T24:00:00Z",
            "2026-11-20T00:60:00Z",
            "2026-11-20T00:00:60Z",
            "2026-11-20T00:00:00",
            "2026-11-20T00:00:00.Z",
            "2026-11-20T00:00:00.-1Z",
            "2026-11-20T00:00:00+1",
            "2026-11-20T00:00:00+01:00Z",
            "2026-11-31",
            "20261120",
            "1969-12-31",
            "1970-01-01T00:00:00+01:00",
            "1795132800",
            "-1",
            "\u{0662}026-11-20",
            &"2026-11-20T00:00:00.0".repeat(100),
        ] {
            assert_eq!(time(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn encoded_text_decodes_to_itself() {
        for text in ["a b&c=d", "ключ", "100%", "a/b,c", "+"] {
            assert_eq!(decode(&encode(text), true).as_deref(), Some(text));
        }
    }
}
