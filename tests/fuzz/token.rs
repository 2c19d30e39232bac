//! A query with tokens in it, as a stranger would send it.

use std::sync::LazyLock;

use sluicegate::admission::Settings;
use sluicegate::admission::pattern::names_stream;
use sluicegate::admission::settings::{JwtRule, KeyRule, SignedRule, Then};
use sluicegate::admission::token::query::{Value, value};
use sluicegate::admission::token::{Bearer, Judgement, Tokens, base64};
use sluicegate::admission::{AppPattern, redirect};
use sluicegate::names::{Kind, Name, StreamKey};
use sluicegate::stdx::units::Secret;

/// What the corpus is made with.
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// The message of the corpus' JWT and the signature of its URL: what is accepted holds one of these or the key.
const GOOD: [&str; 3] = [SECRET, "erf42ZHtZ8QODgYkSZ-XHAhyc5SnIYs8pTbPoOszDqs", include_str!("good_jwt")];

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let secrets = || vec![Secret::new(SECRET.into())];
    let settings = Settings {
        keys: vec![KeyRule {
            keys: secrets(),
            parameter: "key".into(),
            user: String::new(),
            apps: Vec::new(),
            kinds: Vec::new(),
            then: Then::Allow,
        }],
        signed: vec![SignedRule {
            secrets: secrets(),
            ends_session: true,
            apps: Vec::new(),
            kinds: Vec::new(),
            then: Then::Allow,
        }],
        jwt: vec![JwtRule { secrets: secrets(), ..JwtRule::default() }],
        ..Settings::default()
    };
    Tokens::new(&settings).expect("settings that hold")
});

/// Judges the query, and takes its parts for everything else that is read from a peer or a back end.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let name = |text| Name::app(text).expect("a name");
    let key = StreamKey::new(&name("default"), &name("live"), &name("camera"));
    let address = std::net::IpAddr::from([192, 0, 2, 1]);
    let bearer = Bearer { kind: Kind::Play, key: &key, address, query: &text, unix_ms: 1_795_176_000_000 };
    let judgement = TOKENS.judge(&bearer);
    assert_eq!(judgement, TOKENS.judge(&bearer), "the same question, another answer");
    if let Judgement::Valid(valid) = &judgement {
        let plain = unescaped(&text);
        assert!(GOOD.iter().any(|good| plain.contains(good.trim())), "let in without a token: {plain}");
        assert!(valid.ends_unix_ms.is_none_or(|ends| ends > bearer.unix_ms));
    }
    for part in text.split(['&', '=', '.']) {
        if let Some(bytes) = base64::decode(part) {
            assert_eq!(base64::encode(&bytes), part, "two texts for one value");
        }
        if let Ok(pattern) = AppPattern::parse(part) {
            assert_eq!(AppPattern::parse(&pattern.to_string()), Ok(pattern));
        }
        let _ = names_stream(part, &key);
        assert!(!redirect::is_allowed(part, &[], address) || part.contains("192.0.2.1") || part.contains("c000:201"));
    }
    // What is found stands in the query.
    if let Value::Is(found) = value(&text, "token") {
        assert!(unescaped(&text).contains(&unescaped(&found)));
    }
}

/// Every escape resolved that is one, and the two alphabets of base64 made one.
fn unescaped(text: &str) -> String {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let hex = hex.filter(|hex| bytes[at] == b'%' && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if let Some(hex) = hex {
            out.push(u8::from_str_radix(hex, 16).expect("two digits"));
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).replace('+', "-").replace('/', "_")
}
