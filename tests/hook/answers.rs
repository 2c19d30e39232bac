//! What a response says: yes, no, or a failure with the rule that it broke.

use std::time::Duration;

use proptest::prelude::*;
use sluicegate::admission::{Answer, AtLimit, Failure, Terms};
use sluicegate::hook::reply::{DEPTH_MAX, Response, TTL_MAX, read};

fn answer(status: u16, body: &str) -> Answer {
    read(&Response { status, encoding: None, body: body.as_bytes() })
}

fn allowed(body: &str) -> Terms {
    match answer(200, body) {
        Answer::Allow(terms) => *terms,
        other => panic!("{body} is {other:?}"),
    }
}

fn malformed(body: impl AsRef<[u8]>) -> &'static str {
    let body = body.as_ref();
    match read(&Response { status: 200, encoding: None, body }) {
        Answer::Failure(Failure::Malformed(rule)) => rule,
        other => panic!("{} is {other:?}", String::from_utf8_lossy(body)),
    }
}

#[test]
fn hk_03_a_status_is_yes_or_no_or_a_failure() {
    let body = "{\"allow\":true}";
    assert!(matches!(answer(200, body), Answer::Allow(_)));
    assert!(matches!(answer(204, ""), Answer::Allow(_)));
    for no in [400, 401, 403, 404, 405, 410, 418, 451, 499] {
        // The status has the last word: a refusal whose body says yes is a refusal.
        assert_eq!(answer(no, body), Answer::Deny { text: None, redirect: None, cache_for: None }, "{no}");
    }
    for failure in [
        0, 100, 101, 103, 201, 202, 203, 206, 300, 301, 302, 303, 304, 307, 308, 408, 425, 429, 500, 502, 503, 504,
        599, 999,
    ] {
        assert_eq!(answer(failure, body), Answer::Failure(Failure::Status(failure)));
    }
}

#[test]
fn hk_03_a_refusal_may_say_why_and_need_not_make_sense() {
    let said = answer(403, "{\"text\":\"not today\",\"redirect\":\"rtmp://b.example/live\",\"cache_for_ms\":2000}");
    let expected = Answer::Deny {
        text: Some("not today".into()),
        redirect: Some("rtmp://b.example/live".into()),
        cache_for: Some(Duration::from_secs(2)),
    };
    assert_eq!(said, expected);
    assert_eq!(
        answer(
            200,
            "{\"allow\":false,\"text\":\"not today\",\"redirect\":\"rtmp://b.example/live\",\"cache_for_ms\":2000}"
        ),
        expected
    );
    for nonsense in ["", "<html>", "[]", "{\"text\":1}", "\u{feff}{}", "{\"text\":\"a\",\"text\":\"b\"}"] {
        assert_eq!(answer(403, nonsense), Answer::Deny { text: None, redirect: None, cache_for: None }, "{nonsense}");
    }
}

#[test]
fn hk_04_an_empty_answer_is_a_yes_without_terms() {
    assert_eq!(answer(200, ""), Answer::Allow(Box::default()));
    // Only an empty one: a document that does not say so, admits nobody.
    assert_eq!(malformed("{}"), "allow");
    assert_eq!(malformed("{\"alow\":true}"), "allow");
    assert_eq!(malformed("{\"allow\":null}"), "allow");
    assert_eq!(malformed(" "), "json");
}

#[test]
fn a_yes_has_terms() {
    let terms = allowed(
        "{\"allow\":true,\"user\":\"anna\",\"labels\":{\"plan\":\"gold\",\"b\":\"\"},\"app\":\"vip\",\"stream\":\"main/1\",\
         \"expires_unix_ms\":1795155521000,\"recheck_every_ms\":30000,\"cache_for_ms\":0,\"sessions_max\":2,\
         \"at_limit\":\"evict_oldest\",\"duration_max_ms\":60000,\"publish_bps_max\":6000000,\"text\":\"unused\",\"other\":[{}]}",
    );
    assert_eq!(terms.user.as_deref(), Some("anna"));
    let labels: Vec<(&str, &str)> = terms.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(labels, [("plan", "gold"), ("b", "")]);
    assert_eq!(terms.app.as_ref().map(|name| name.as_str()), Some("vip"));
    assert_eq!(terms.stream.as_ref().map(|name| name.as_str()), Some("main/1"));
    assert_eq!(terms.expires_unix_ms, Some(1_795_155_521_000));
    assert_eq!(terms.recheck_every, Some(Duration::from_secs(30)));
    assert_eq!(terms.cache_for, Some(Duration::ZERO));
    assert_eq!((terms.sessions_max, terms.at_limit), (Some(2), Some(AtLimit::EvictOldest)));
    assert_eq!((terms.duration_max, terms.publish_bps_max), (Some(Duration::from_secs(60)), Some(6_000_000)));
}

#[test]
fn what_is_null_is_left_out() {
    let nothing = "{\"allow\":true,\"user\":null,\"labels\":null,\"app\":null,\"stream\":null,\"expires_unix_ms\":null,\
                   \"recheck_every_ms\":null,\"cache_for_ms\":null,\"sessions_max\":null,\"at_limit\":null,\
                   \"duration_max_ms\":null,\"publish_bps_max\":null,\"text\":null,\"redirect\":null}";
    assert_eq!(allowed(nothing), Terms::default());
    assert_eq!(allowed("{\"allow\":true,\"user\":\"\"}").user, None);
}

#[test]
fn hk_06_what_is_no_document_is_a_failure() {
    let deep = |depth: usize, open: &str, close: &str| {
        format!("{{\"allow\":true,\"x\":{}{}}}", open.repeat(depth - 1), close.repeat(depth - 1))
    };
    for (body, rule) in [
        ("[]", "top_level"),
        ("[{\"allow\":true}]", "top_level"),
        ("1", "top_level"),
        ("-1", "top_level"),
        ("1.5", "top_level"),
        ("\"allow\"", "top_level"),
        ("true", "top_level"),
        ("null", "top_level"),
        ("{", "json"),
        ("{\"allow\":true", "json"),
        ("{\"allow\":true}}", "json"),
        ("{\"allow\":true} {\"allow\":true}", "json"),
        ("{\"allow\":true,}", "json"),
        ("{allow:true}", "json"),
        ("{'allow':true}", "json"),
        ("{\"allow\":TRUE}", "json"),
        ("{\"allow\":true,\"x\":NaN}", "json"),
        ("{\"allow\":true,\"x\":Infinity}", "json"),
        ("{\"allow\":true,\"x\":1e400}", "json"),
        ("{\"allow\":true,\"x\":-1e400}", "json"),
        ("{\"allow\":true,\"x\":01}", "json"),
        ("{\"allow\":true,\"x\":\"\\ud800\"}", "json"),
        ("{\"allow\":true,\"x\":\"\\udc00\\ud800\"}", "json"),
        ("{\"allow\":true,\"\\ud800\":1}", "json"),
        ("{\"allow\":true,\"x\":\"\n\"}", "json"),
        ("\u{feff}{\"allow\":true}", "json"),
        ("{\"allow\":true,\"allow\":true}", "duplicate_key"),
        ("{\"allow\":false,\"allow\":true}", "duplicate_key"),
        ("{\"allow\":true,\"\\u0061llow\":false}", "duplicate_key"),
        ("{\"allow\":true,\"x\":1,\"x\":1}", "duplicate_key"),
        ("{\"allow\":true,\"x\":[{\"y\":1,\"y\":2}]}", "duplicate_key"),
        ("{\"allow\":true,\"labels\":{\"a\":\"1\",\"a\":\"2\"}}", "duplicate_key"),
        ("OK", "json"),
        ("<html>", "json"),
    ] {
        assert_eq!(malformed(body), rule, "{body}");
    }
    assert_eq!(malformed(format!("{{\"allow\":true,\"x\":1{}}}", "0".repeat(400))), "json");
    assert_eq!(malformed(b"{\"allow\":true,\"x\":\"\xff\"}"), "json");
    assert_eq!(malformed(b"\xff\xfe{\0}\0"), "json");
    for (open, close) in [("[", "]"), ("{\"x\":[", "]}")] {
        assert_eq!(malformed(deep(10_000, open, close)), "depth");
    }
    assert_eq!(malformed("[".repeat(60_000)), "depth");
    assert_eq!(malformed(deep(DEPTH_MAX + 1, "[", "]")), "depth");
    allowed(&deep(DEPTH_MAX, "[", "]"));
    // Brackets in a text are no depth.
    allowed(&format!("{{\"allow\":true,\"x\":\"\\\"{}\"}}", "[".repeat(1_000)));
}

#[test]
fn hk_07_known_members_have_their_types() {
    for (member, rule) in [
        ("\"allow\":1", "allow"),
        ("\"allow\":\"true\"", "allow"),
        ("\"allow\":[true]", "allow"),
        ("\"user\":7", "user"),
        ("\"user\":{}", "user"),
        ("\"labels\":[]", "labels"),
        ("\"labels\":\"a\"", "labels"),
        ("\"labels\":{\"a\":1}", "labels"),
        ("\"labels\":{\"a\":null}", "labels"),
        ("\"labels\":{\"\":\"a\"}", "labels"),
        ("\"app\":true", "app"),
        ("\"stream\":0", "stream"),
        ("\"expires_unix_ms\":\"1795155521000\"", "expires_unix_ms"),
        ("\"expires_unix_ms\":1.5", "expires_unix_ms"),
        ("\"expires_unix_ms\":-1", "expires_unix_ms"),
        ("\"recheck_every_ms\":-1", "recheck_every_ms"),
        ("\"recheck_every_ms\":0", "recheck_every_ms"),
        ("\"recheck_every_ms\":999", "recheck_every_ms"),
        ("\"cache_for_ms\":-1", "cache_for_ms"),
        ("\"cache_for_ms\":1e3", "cache_for_ms"),
        ("\"sessions_max\":-1", "sessions_max"),
        ("\"sessions_max\":true", "sessions_max"),
        ("\"at_limit\":\"shrug\"", "at_limit"),
        ("\"at_limit\":1", "at_limit"),
        ("\"duration_max_ms\":-1", "duration_max_ms"),
        ("\"publish_bps_max\":-1", "publish_bps_max"),
        ("\"publish_bps_max\":18446744073709551616", "publish_bps_max"),
        ("\"text\":1", "text"),
        ("\"redirect\":1", "redirect"),
    ] {
        let allow = if member.starts_with("\"allow\"") { "" } else { "\"allow\":true," };
        assert_eq!(malformed(format!("{{{allow}{member}}}")), rule, "{member}");
    }
}

#[test]
fn hk_07_unknown_members_are_passed_over() {
    let terms =
        allowed("{\"v\":3,\"allow\":true,\"debug\":{\"a\":[1,2.5,-3,null,\"\\ud83d\\ude00\",{\"a\":{}}]},\"\":0}");
    assert_eq!(terms, Terms::default());
}

#[test]
fn hk_07_a_time_to_live_is_cut_to_a_day_and_a_past_expiry_is_passed_on() {
    let terms = allowed(
        "{\"allow\":true,\"cache_for_ms\":18446744073709551615,\"recheck_every_ms\":18446744073709551615,\
         \"expires_unix_ms\":1,\"sessions_max\":18446744073709551615}",
    );
    assert_eq!((terms.cache_for, terms.recheck_every), (Some(TTL_MAX), Some(TTL_MAX)));
    assert_eq!(TTL_MAX, Duration::from_secs(86_400));
    // Whoever holds the clock refuses it, as `token_expired`.
    assert_eq!(terms.expires_unix_ms, Some(1));
    assert_eq!(terms.sessions_max, Some(u32::MAX));
}

#[test]
fn hk_07_texts_have_lengths() {
    let user = |text: &str| format!("{{\"allow\":true,\"user\":{}}}", serde_json::to_string(text).unwrap());
    assert_eq!(allowed(&user(&"u".repeat(256))).user.map(|user| user.len()), Some(256));
    assert_eq!(malformed(user(&"u".repeat(257))), "user");
    assert_eq!(malformed(user("a\u{7}")), "user");
    let labels = |many: usize, name: usize, value: usize| {
        let pairs: Vec<String> = (0..many).map(|i| format!("\"{i:0name$}\":\"{}\"", "v".repeat(value))).collect();
        format!("{{\"allow\":true,\"labels\":{{{}}}}}", pairs.join(","))
    };
    assert_eq!(allowed(&labels(16, 64, 64)).labels.len(), 16);
    assert_eq!(malformed(labels(17, 2, 1)), "labels");
    assert_eq!(malformed(labels(1, 65, 1)), "labels");
    assert_eq!(malformed(labels(1, 1, 65)), "labels");
    // Words for people are cut, not refused, and lose what would reach into a terminal.
    let long = format!("{{\"allow\":false,\"text\":\"\\u001b[31m{}\"}}", "ä".repeat(200));
    let Answer::Deny { text: Some(text), .. } = answer(200, &long) else { panic!("{long} is no refusal") };
    assert!(text.len() <= 256 && text.starts_with("[31mä") && !text.contains('\u{1b}'), "{text}");
    for bad in ["a b", "a\\nb", &"x".repeat(1_025), "ä"] {
        assert_eq!(malformed(format!("{{\"allow\":false,\"redirect\":\"{bad}\"}}")), "redirect");
    }
}

#[test]
fn hk_08_a_new_name_passes_the_one_validator() {
    for bad in ["../etc", "a//b", "", " a", "a?b", "a%2fb", "a\\u202eb", "a\\u0000b", &"a".repeat(513)] {
        for field in ["app", "stream"] {
            assert_eq!(malformed(format!("{{\"allow\":true,\"{field}\":\"{bad}\"}}")), field, "{bad}");
        }
    }
    let long = "a".repeat(300);
    assert!(allowed(&format!("{{\"allow\":true,\"stream\":\"{long}\"}}")).stream.is_some());
    assert_eq!(malformed(format!("{{\"allow\":true,\"app\":\"{long}\"}}")), "app");
}

#[test]
fn hk_09_a_redirect_goes_with_a_refusal_only_and_is_left_to_admission() {
    let redirect = "\"redirect\":\"rtmp://elsewhere.example/live/cam\"";
    assert_eq!(allowed(&format!("{{\"allow\":true,{redirect}}}")), Terms::default());
    let Answer::Deny { redirect, .. } = answer(200, &format!("{{\"allow\":false,{redirect}}}")) else { panic!() };
    assert_eq!(redirect.as_deref(), Some("rtmp://elsewhere.example/live/cam"));
}

#[test]
fn hk_12_a_compressed_response_is_a_failure() {
    let with = |encoding: &'static str, status| {
        read(&Response { status, encoding: Some(encoding.as_bytes()), body: b"{\"allow\":true}" })
    };
    for encoding in ["gzip", "br", "deflate", "identity, gzip", "x"] {
        assert_eq!(with(encoding, 200), Answer::Failure(Failure::Malformed("compressed")), "{encoding}");
        assert!(matches!(with(encoding, 403), Answer::Deny { text: None, .. }), "{encoding}");
    }
    assert!(matches!(with("Identity", 200), Answer::Allow(_)));
}

proptest! {
    /// Whatever the bytes: a yes only where a strict reader sees an object that says so.
    #[test]
    fn hk_06_nothing_but_a_document_that_says_so_is_a_yes(body in "[\\[\\]{}:,\"a-z0-9\\\\ ]{0,40}") {
        if let Answer::Allow(_) = answer(200, &body) {
            let says = serde_json::from_str::<serde_json::Value>(&body).ok().and_then(|value| value.get("allow")?.as_bool());
            prop_assert!(body.is_empty() || says == Some(true), "{}", body);
        }
    }
}
