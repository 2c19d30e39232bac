//! A key set, as whoever answers for its URL would send it.

use sluicegate::admission::Settings;
use sluicegate::admission::settings::JwtRule;
use sluicegate::admission::token::jwt::{JWKS_BYTES_MAX, JWKS_KEYS_MAX};
use sluicegate::admission::token::{Bearer, Judgement, Tokens};
use sluicegate::names::{Kind, Name, StreamKey};

/// Takes the set, and lets its keys judge a token that none of them has signed.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let rule = JwtRule { jwks_file: "keys.json".into(), ..JwtRule::default() };
    let mut tokens = Tokens::new(&Settings { jwt: vec![rule], ..Settings::default() }).expect("settings that hold");
    if let Ok(keys) = tokens.set_jwks(0, "keys.json", &text) {
        assert!((1..=JWKS_KEYS_MAX).contains(&keys) && text.len() <= JWKS_BYTES_MAX);
    }
    let name = |text| Name::app(text).expect("a name");
    let key = StreamKey::new(&name("default"), &name("live"), &name("camera"));
    let address = std::net::IpAddr::from([192, 0, 2, 1]);
    for alg in ["eyJhbGciOiJSUzI1NiJ9", "eyJhbGciOiJFUzI1NiJ9", "eyJhbGciOiJFZERTQSJ9", "eyJhbGciOiJIUzI1NiJ9"] {
        let query = format!("token={alg}.eyJleHAiOjE4MDAwMDAwMDB9.{}", "A".repeat(86));
        let bearer = Bearer { kind: Kind::Play, key: &key, address, query: &query, unix_ms: 1_795_176_000_000 };
        assert!(matches!(tokens.judge(&bearer), Judgement::Invalid(_)), "{alg}");
    }
}
