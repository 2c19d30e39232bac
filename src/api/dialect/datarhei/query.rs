//! Query strings as Core reads them: with Go's rules, and `collectors` decoded once more.

use std::collections::BTreeSet;

use crate::api::query::decode_bytes;

/// The names asked for, in the order in which they are answered: bytewise, each once. Nothing asked for asks for
/// the empty name. Bytes rather than text: nothing says that they are UTF-8.
#[must_use]
pub fn collectors(query: Option<&str>) -> BTreeSet<Vec<u8>> {
    let once = first(query, "collectors").unwrap_or_default();
    let twice = decode_bytes(&once, true).unwrap_or_default();
    twice.split(|byte| *byte == b',').map(<[u8]>::to_vec).collect()
}

/// True when the parameter is there, with whatever value.
#[must_use]
pub fn is_present(query: Option<&str>, name: &str) -> bool {
    first(query, name).is_some()
}

/// The first value of a parameter. Pairs with a semicolon or a broken escape are passed over, as Go does.
fn first(query: Option<&str>, name: &str) -> Option<Vec<u8>> {
    query?.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode_bytes(key.as_bytes(), true)?, decode_bytes(value.as_bytes(), true)?);
        (key == name.as_bytes()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_are_split_as_core_splits_them() {
        for (query, names) in [
            (None, vec![""]),
            (Some(""), vec![""]),
            (Some("collectors="), vec![""]),
            (Some("collectors"), vec![""]),
            (Some("collectors=hls,rtmp"), vec!["hls", "rtmp"]),
            (Some("collectors=rtmp%2Chls"), vec!["hls", "rtmp"]),
            (Some("collectors=rtmp%252Chls"), vec!["hls", "rtmp"]),
            (Some("collectors=hls%25zz"), vec![""]),
            (Some("collectors=hls%zz"), vec![""]),
            (Some("collectors=hls%zz&collectors=rtmp"), vec!["rtmp"]),
            (Some("collectors=hls, rtmp"), vec![" rtmp", "hls"]),
            (Some("collectors=hls,%20rtmp"), vec![" rtmp", "hls"]),
            (Some("collectors=hls,+rtmp"), vec![" rtmp", "hls"]),
            (Some("collectors=hls,"), vec!["", "hls"]),
            (Some("collectors=hls,hls"), vec!["hls"]),
            (Some("collectors=hls&collectors=rtmp"), vec!["hls"]),
            (Some("a=b&collectors=hls"), vec!["hls"]),
        ] {
            let found: Vec<_> = collectors(query).into_iter().collect();
            assert_eq!(found, names.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>(), "{query:?}");
        }
        assert!(is_present(Some("pretty"), "pretty"));
        assert!(is_present(Some("a=1&pretty=0"), "pretty"));
        assert!(!is_present(Some("a=pretty"), "pretty"));
    }
}
