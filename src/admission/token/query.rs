//! One parameter of a query.

use std::borrow::Cow;

use crate::admission::token::TOKEN_BYTES_MAX;

/// What a query says of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Nothing, or nothing behind the `=`.
    Absent,
    /// This, with `%XX` resolved once. A `+` is a `+`: encoders do not agree on it, and base64 has it.
    Is(Cow<'a, str>),
    /// Something that has no one reading: a bad escape, no UTF-8, two different values, or too long.
    Unreadable,
}

/// Looks a parameter up. RTMP peers send a query with the app and one with the stream, so it may be there twice; it
/// then says the same twice, or nothing.
#[must_use]
pub fn value<'a>(query: &'a str, name: &str) -> Value<'a> {
    let mut found: Option<&str> = None;
    for parameter in query.split('&') {
        let Some((key, value)) = parameter.split_once('=') else { continue };
        if key != name || value.is_empty() {
            continue;
        }
        match found {
            Some(before) if before != value => return Value::Unreadable,
            _ => found = Some(value),
        }
    }
    let Some(text) = found else { return Value::Absent };
    // An escape takes three characters for one.
    if text.len() > TOKEN_BYTES_MAX.saturating_mul(3) {
        return Value::Unreadable;
    }
    match decode(text) {
        Some(text) if text.len() <= TOKEN_BYTES_MAX => Value::Is(text),
        _ => Value::Unreadable,
    }
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    let digit = |byte: Option<u8>| u8::try_from(char::from(byte?).to_digit(16)?).ok();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = digit(bytes.next())?;
            out.push((high << 4) | digit(bytes.next())?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_by_its_whole_name() {
        let is = |text: &'static str| Value::Is(Cow::Borrowed(text));
        assert_eq!(value("a=1&key=x&b=2", "key"), is("x"));
        assert_eq!(value("key=a=b", "key"), is("a=b"));
        assert_eq!(value("monkey=x&key", "key"), Value::Absent);
        assert_eq!(value("key=", "key"), Value::Absent);
        assert_eq!(value("", "key"), Value::Absent);
        assert_eq!(value("key=a+b", "key"), is("a+b"));
    }

    #[test]
    fn escapes_are_resolved_once() {
        assert_eq!(value("key=%2541", "key"), Value::Is("%41".into()));
        assert_eq!(value("key=%C3%a9", "key"), Value::Is("é".into()));
        for bad in ["key=%", "key=%4", "key=%zz", "key=%ff", "key=%+1"] {
            assert_eq!(value(bad, "key"), Value::Unreadable, "{bad}");
        }
    }

    #[test]
    fn rt_51_two_values_are_no_value_and_the_same_twice_is_one() {
        assert_eq!(value("key=a&key=b", "key"), Value::Unreadable);
        assert_eq!(value("key=a&key=a", "key"), Value::Is("a".into()));
    }

    #[test]
    fn a_value_at_the_limit_and_one_past_it() {
        let at = format!("key={}", "a".repeat(TOKEN_BYTES_MAX));
        assert!(matches!(value(&at, "key"), Value::Is(_)));
        assert_eq!(value(&format!("{at}a"), "key"), Value::Unreadable);
    }
}
