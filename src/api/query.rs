//! Query strings, read strictly: each parameter is known, appears once, and decodes.

use crate::api::Problem;
use crate::control::Filter;
use crate::control::filter::FILTER_FIELDS;

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
    fn encoded_text_decodes_to_itself() {
        for text in ["a b&c=d", "ключ", "100%", "a/b,c", "+"] {
            assert_eq!(decode(&encode(text), true).as_deref(), Some(text));
        }
    }
}
