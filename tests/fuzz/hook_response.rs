//! What a back end answers: the first byte chooses the status, the rest is the body.

use sluicegate::admission::{Answer, Failure};
use sluicegate::hook::reply::{LABELS_MAX, REDIRECT_BYTES_MAX, Response, TEXT_BYTES_MAX, TTL_MAX, read};

/// Statuses of all sorts; most inputs are a 200.
const STATUSES: [u16; 12] = [200, 200, 200, 200, 200, 200, 204, 301, 403, 404, 429, 503];

/// Reads it, and holds what came of it to what any JSON reader sees.
pub fn run(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let status = STATUSES[usize::from(*first) % STATUSES.len()];
    let answer = read(&Response { status, encoding: None, body });
    assert_eq!(answer, read(&Response { status, encoding: None, body }), "the same bytes mean the same");
    let compressed = read(&Response { status, encoding: Some(b"gzip"), body });
    assert!(!matches!(compressed, Answer::Allow(_)));

    // An independent reader, which takes more: duplicates, depths, any type.
    let seen = serde_json::from_slice::<serde_json::Value>(body).ok();
    let allow = seen.as_ref().and_then(|seen| seen.get("allow")?.as_bool());
    match answer {
        Answer::Allow(terms) => {
            assert!(matches!(status, 200 | 204));
            assert!(body.is_empty() || allow == Some(true), "a yes that nobody said");
            assert!(terms.user.is_none_or(|user| !user.is_empty() && user.len() <= TEXT_BYTES_MAX));
            assert!(terms.labels.len() <= LABELS_MAX);
            assert!(terms.cache_for.is_none_or(|time| time <= TTL_MAX));
            assert!(terms.recheck_every.is_none_or(|time| time <= TTL_MAX && time.as_secs() >= 1));
        }
        Answer::Deny { text, redirect, cache_for } => {
            assert!((400..500).contains(&status) || allow == Some(false), "a no that nobody said");
            assert!(text.is_none_or(|text| text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)));
            assert!(redirect.is_none_or(|redirect| redirect.len() <= REDIRECT_BYTES_MAX));
            assert!(cache_for.is_none_or(|time| time <= TTL_MAX));
        }
        Answer::Failure(Failure::Status(of)) => assert_eq!(of, status),
        Answer::Failure(Failure::Malformed(_)) => assert!(matches!(status, 200 | 204) && !body.is_empty()),
        Answer::Failure(other) => panic!("{other:?} is not for bytes to say"),
    }
}
