//! Paging: a limit, and a cursor that says where the next page begins.

use sha2::{Digest as _, Sha256};

use crate::api::{Problem, query};

/// Rows on a page when nobody asks for another number.
pub const LIMIT_DEFAULT: usize = 100;
/// The most rows on a page; more is taken for this.
pub const LIMIT_MAX: usize = 1_000;
/// Rows looked at before control may do something else.
pub const SLICE: usize = 5_000;
/// Bytes of the check at the end of a cursor.
const CHECK_BYTES: usize = 8;

/// Reads `limit=`.
///
/// # Errors
/// 400 for anything but a positive whole number.
pub fn limit(text: Option<String>) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(LIMIT_DEFAULT) };
    let wrong = || Problem::parameter("limit", format!("write a whole number from 1 to {LIMIT_MAX}"));
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    // Digits that are no number any more are a very large number.
    match text.parse::<usize>().unwrap_or(usize::MAX) {
        0 => Err(wrong()),
        limit => Ok(limit.min(LIMIT_MAX)),
    }
}

/// A cursor after `key` in the list that `list` names. It is opaque, and works for that list and those filters
/// only; it outlives a restart.
#[must_use]
pub fn cursor(list: &str, key: &[u8]) -> String {
    use std::fmt::Write as _;
    key.iter().chain(&check(list, key)).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What [`cursor`] was made of.
///
/// # Errors
/// 400 for a text that it did not make for this list.
pub fn read_cursor(list: &str, text: &str) -> Result<Vec<u8>, Problem> {
    let wrong = || Problem::parameter("cursor", "this is not a cursor of this list with these filters");
    let digits: Option<Vec<u8>> = text
        .bytes()
        .map(|byte| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        })
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0).ok_or_else(wrong)?;
    let mut bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let key_len = bytes.len().checked_sub(CHECK_BYTES).ok_or_else(wrong)?;
    let given = bytes.split_off(key_len);
    if given == check(list, &bytes) { Ok(bytes) } else { Err(wrong()) }
}

/// The address of the next page: the same query with another cursor.
#[must_use]
pub fn next_link(path: &str, query: Option<&str>, cursor: &str) -> String {
    let mut link = format!("{path}?");
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        if pair.split('=').next().and_then(|name| query::decode(name, true)).as_deref() != Some("cursor") {
            link.push_str(pair);
            link.push('&');
        }
    }
    link + "cursor=" + cursor
}

fn check(list: &str, key: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hash = Sha256::new();
    hash.update(b"sluicegate page\0");
    hash.update(list.as_bytes());
    hash.update(b"\0");
    hash.update(key);
    let mut out = [0; CHECK_BYTES];
    for (to, from) in out.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ap_05_limits_are_whole_positive_and_clamped() {
        let read = |text: &str| limit(Some(text.to_owned()));
        assert_eq!(limit(None), Ok(LIMIT_DEFAULT));
        assert_eq!(read("1"), Ok(1));
        assert_eq!(read("1000000000"), Ok(LIMIT_MAX));
        assert_eq!(read("99999999999999999999999999"), Ok(LIMIT_MAX));
        for bad in ["0", "-1", "", "ten", "1.5", "+1", " 1", "0x10"] {
            assert_eq!(read(bad).unwrap_err().field.as_deref(), Some("limit"), "{bad:?}");
        }
    }

    #[test]
    fn ap_05_a_cursor_works_for_its_list_only() {
        let made = cursor("sessions app=live", &[1, 2, 3]);
        assert_eq!(read_cursor("sessions app=live", &made), Ok(vec![1, 2, 3]));
        assert!(read_cursor("sessions app=other", &made).is_err());
        for at in 0..made.len() {
            let mut forged = made.clone().into_bytes();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            assert!(read_cursor("sessions app=live", std::str::from_utf8(&forged).unwrap()).is_err());
        }
        for garbage in ["", "zz", "abc", "00", &"0".repeat(64), "\u{1f980}"] {
            assert!(read_cursor("sessions app=live", garbage).is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn the_next_link_keeps_the_filters() {
        assert_eq!(next_link("/v1/sessions", None, "00"), "/v1/sessions?cursor=00");
        assert_eq!(
            next_link("/v1/sessions", Some("app=a%20b&cursor=11&limit=2"), "00"),
            "/v1/sessions?app=a%20b&limit=2&cursor=00"
        );
    }
}
