//! Keys, signed URLs and JSON web tokens.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use sluicegate::admission::settings::{JwtRule, KeyRule, SignedRule, Then};
use sluicegate::admission::token::{base64, signed};
use sluicegate::admission::{Access, AppPattern, Decision, Gate, HookRule, Note, Settings, Verdict};
use sluicegate::names::Kind;
use sluicegate::session::{CloseReason, Reason};
use sluicegate::stdx::units::Secret;

use crate::room::{Room, SECOND, START_UNIX, allow, refused, terms_of, why};
use crate::support::{request, stream_key};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

fn secrets(texts: &[&str]) -> Vec<Secret> {
    texts.iter().map(|text| Secret::new((*text).into())).collect()
}

fn key_rule(keys: &[&str]) -> KeyRule {
    KeyRule {
        keys: secrets(keys),
        parameter: "key".into(),
        user: "studio".into(),
        apps: Vec::new(),
        kinds: Vec::new(),
        then: Then::Allow,
    }
}

fn signed_rule() -> SignedRule {
    SignedRule {
        secrets: secrets(&[SECRET, OTHER]),
        ends_session: true,
        apps: Vec::new(),
        kinds: Vec::new(),
        then: Then::Allow,
    }
}

fn jwt_rule() -> JwtRule {
    JwtRule { secrets: secrets(&[SECRET]), ..JwtRule::default() }
}

fn room(settings: Settings) -> Room {
    Room::new(&Settings { publish: Access::Deny, play: Access::Deny, ..settings }, Vec::new())
}

fn is_denied(verdict: &Verdict, detail: &'static str) -> bool {
    why(verdict) == refused(Reason::AuthDenied, detail)
}

#[test]
fn a_shard_asks_where_tokens_hold_and_only_there() {
    let mut rule = key_rule(&[SECRET]);
    rule.apps = vec![AppPattern::parse("live").unwrap()];
    rule.kinds = vec![Kind::Play];
    let settings = Settings { keys: vec![rule], ..Settings::default() };
    let policy = sluicegate::admission::Policy {
        gate: std::sync::Arc::new(Gate::new(&settings, &[])),
        bans: sluicegate::admission::Bans::default(),
    };
    let now = std::time::Instant::now();
    assert_eq!(policy.decide(now, &request(Kind::Play, "192.0.2.1", "cam")), Decision::Ask);
    assert!(matches!(policy.decide(now, &request(Kind::Publish, "192.0.2.1", "cam")), Decision::Deny(_)));
    let mut elsewhere = request(Kind::Play, "192.0.2.1", "cam");
    elsewhere.key = sluicegate::names::StreamKey::new(
        &sluicegate::names::Name::app("default").unwrap(),
        &sluicegate::names::Name::app("vod").unwrap(),
        &sluicegate::names::Name::stream("cam").unwrap(),
    );
    assert_eq!(policy.decide(now, &elsewhere), Decision::Allow, "the profile has the last word there");
}

#[test]
fn any_of_the_keys_opens_and_says_who_comes() {
    let mut room = room(Settings { keys: vec![key_rule(&[SECRET, OTHER])], ..Settings::default() });
    for key in [SECRET, OTHER] {
        let verdict = room.verdict(Kind::Publish, "cam", &format!("a=b&key={key}"));
        assert_eq!(verdict.unwrap().user.as_deref(), Some("studio"));
    }
    for wrong in ["key=x", "key=0123456789abcdef0123456789abcde", "key=0123456789abcdef0123456789abcdef0", "key=%zz"] {
        assert!(is_denied(&room.verdict(Kind::Publish, "cam", wrong), "key"), "{wrong}");
    }
    for none in ["", "keys=x", "key="] {
        assert!(is_denied(&room.verdict(Kind::Publish, "cam", none), "token_missing"), "{none}");
    }
    assert!(room.notes.contains(&Note::AuthFailed(refused(Reason::AuthDenied, "key"))), "the source can be throttled");
}

/// The example of the guide, made with openssl.
#[test]
fn the_guides_signed_url_opens() {
    let canonical = signed::canonical(Kind::Play, &stream_key("camera"), "1800000000", "", "");
    assert_eq!(canonical, "play\ndefault/live/camera\n1800000000\n\n");
    let sign = signed::sign(SECRET, &canonical);
    assert_eq!(sign, GUIDE_SIGN);
    let guide = include_str!("../../docs/guide/admission.md");
    assert!(guide.contains(GUIDE_SIGN) && guide.contains(SECRET), "the guide shows another example");
    let mut room = room(Settings { signed: vec![signed_rule()], ..Settings::default() });
    let verdict = room.verdict(Kind::Play, "camera", &format!("expires=1800000000&sign={sign}"));
    assert!(verdict.is_ok(), "{verdict:?}");
}

const GUIDE_SIGN: &str = "erf42ZHtZ8QODgYkSZ-XHAhyc5SnIYs8pTbPoOszDqs";

fn signed_query(secret: &str, kind: Kind, stream: &str, fields: (&str, &str, &str)) -> String {
    let (expires, user, ip) = fields;
    let sign = signed::sign(secret, &signed::canonical(kind, &stream_key(stream), expires, user, ip));
    let mut query = format!("sign={sign}");
    for (name, value) in [("expires", expires), ("user", user), ("ip", ip)] {
        if !value.is_empty() {
            query = format!("{query}&{name}={value}");
        }
    }
    query
}

#[test]
fn a_signed_url_opens_what_was_signed_and_nothing_else() {
    let mut room = room(Settings { signed: vec![signed_rule()], ..Settings::default() });
    let later = (START_UNIX + 60).to_string();
    for secret in [SECRET, OTHER] {
        let query = signed_query(secret, Kind::Play, "cam", (&later, "ann", "192.0.2.1"));
        let grant = room.verdict(Kind::Play, "cam", &query).unwrap();
        assert_eq!(grant.user.as_deref(), Some("ann"));
        assert_eq!(grant.expires_at, Some(room.now + SECOND * 90), "the tolerance is included");
    }
    let query = signed_query(SECRET, Kind::Play, "cam", (&later, "ann", "192.0.2.1"));
    assert!(is_denied(&room.verdict(Kind::Publish, "cam", &query), "signature"), "a URL to play is none to publish");
    assert!(is_denied(&room.verdict(Kind::Play, "cam2", &query), "signature"));
    for (from, to) in
        [("user=ann", "user=bob"), ("ip=192.0.2.1", "ip=192.0.2.2"), (&later, "9999999999"), ("&user=ann", "")]
    {
        assert!(is_denied(&room.verdict(Kind::Play, "cam", &query.replace(from, to)), "signature"), "{from}");
    }
    let elsewhere = room.peer_at(Kind::Play, "live/cam", &query, "192.0.2.9");
    assert_eq!(why(&room.verdict_on(&elsewhere)), refused(Reason::IpDenied, "signed"));
    let mapped = room.peer_at(Kind::Play, "live/cam", &query, "::ffff:192.0.2.1");
    assert!(room.verdict_on(&mapped).is_ok());
    let foreign = signed_query("another secret of 32 characters!", Kind::Play, "cam", (&later, "", ""));
    assert!(is_denied(&room.verdict(Kind::Play, "cam", &foreign), "signature"));
}

#[test]
fn a_signature_may_be_hexadecimal_or_padded_base64() {
    let mut room = room(Settings { signed: vec![signed_rule()], ..Settings::default() });
    let later = (START_UNIX + 60).to_string();
    let sign = signed::sign(SECRET, &signed::canonical(Kind::Play, &stream_key("cam"), &later, "", ""));
    let bytes = base64::decode(&sign).unwrap();
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap();
    let hex: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    let standard = sign.replace('-', "+").replace('_', "/");
    for sign in [hex.clone(), hex.to_uppercase(), format!("{sign}="), format!("{standard}%3D"), standard] {
        assert!(room.verdict(Kind::Play, "cam", &format!("expires={later}&sign={sign}")).is_ok(), "{sign}");
    }
    for bad in [&hex[2..], &sign[1..], "x", &"A".repeat(10_000)] {
        assert!(is_denied(&room.verdict(Kind::Play, "cam", &format!("expires={later}&sign={bad}")), "signature"));
    }
}

#[test]
fn fa_18_a_signed_url_expires_with_thirty_seconds_tolerance() {
    let mut room = room(Settings { signed: vec![signed_rule()], ..Settings::default() });
    let at = |seconds: u64| signed_query(SECRET, Kind::Play, "cam", (&(START_UNIX - seconds).to_string(), "", ""));
    assert!(room.verdict(Kind::Play, "cam", &at(29)).is_ok());
    assert_eq!(why(&room.verdict(Kind::Play, "cam", &at(30))), CloseReason::new(Reason::TokenExpired));
    for odd in ["", "-1", "1e9", "18446744073709551616", "0x7fffffff", "+1800000000", " 1800000000"] {
        let query = signed_query(SECRET, Kind::Play, "cam", (odd, "", ""));
        assert!(is_denied(&room.verdict(Kind::Play, "cam", &query), "signature"), "{odd}");
    }
}

#[test]
fn a_session_may_outlive_its_url_if_the_rule_says_so() {
    let rule = SignedRule { ends_session: false, ..signed_rule() };
    let mut room = room(Settings { signed: vec![rule], ..Settings::default() });
    let query = signed_query(SECRET, Kind::Play, "cam", (&(START_UNIX + 1).to_string(), "", ""));
    assert_eq!(room.verdict(Kind::Play, "cam", &query).unwrap().expires_at, None);
    room.wait(SECOND * 1_000);
    assert_eq!(room.ends, []);
}

fn jwt(claims: &Value) -> String {
    format!("token={}", encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap())
}

#[test]
fn a_token_says_who_comes_for_what_and_how_long() {
    let mut room = room(Settings { jwt: vec![jwt_rule()], ..Settings::default() });
    let claims = json!({"exp": START_UNIX + 60, "sub": "ann", "labels": {"plan": "gold", "a": "b"}, "other": [[[]]]});
    let grant = room.verdict(Kind::Play, "cam", &jwt(&claims)).unwrap();
    assert_eq!(grant.user.as_deref(), Some("ann"));
    let labels: Vec<(&str, &str)> = grant.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(labels, [("a", "b"), ("plan", "gold")]);
    assert_eq!(grant.expires_at, Some(room.now + SECOND * 90));
}

#[test]
fn fa_18_expiry_and_start_of_a_token_have_thirty_seconds_tolerance() {
    let mut room = room(Settings { jwt: vec![jwt_rule()], ..Settings::default() });
    let mut said = |claims: Value| room.verdict(Kind::Play, "cam", &jwt(&claims)).map(|_| ()).map_err(|no| no.reason);
    assert_eq!(said(json!({"exp": START_UNIX - 29})), Ok(()));
    assert_eq!(said(json!({"exp": START_UNIX - 30})), Err(Reason::TokenExpired.into()));
    assert_eq!(said(json!({"exp": 0.5})), Err(Reason::TokenExpired.into()));
    assert_eq!(said(json!({"exp": -1})), Err(Reason::TokenExpired.into()));
    assert_eq!(said(json!({"exp": 1e300})), Ok(()), "far away is far away");
    assert_eq!(said(json!({})), Err(refused(Reason::AuthDenied, "jwt_exp")), "a token without an end is none");
    assert_eq!(said(json!({"exp": START_UNIX + 99, "nbf": START_UNIX + 30})), Ok(()));
    let early = said(json!({"exp": START_UNIX + 99, "nbf": START_UNIX + 31}));
    assert_eq!(early, Err(refused(Reason::AuthDenied, "jwt_nbf")));
}

#[test]
fn issuer_and_audience_must_be_those_of_the_rule() {
    let rule = JwtRule { issuer: "me".into(), audience: vec!["us".into(), "them".into()], ..jwt_rule() };
    let mut strict = room(Settings { jwt: vec![rule], ..Settings::default() });
    let mut said = |claims: Value| {
        let verdict = strict.verdict(Kind::Play, "cam", &jwt(&claims));
        verdict.map_or_else(|refusal| refusal.reason.detail, |_| "")
    };
    let exp = START_UNIX + 60;
    assert_eq!(said(json!({"exp": exp, "iss": "me", "aud": "them"})), "");
    assert_eq!(said(json!({"exp": exp, "iss": "me", "aud": ["x", "us"]})), "");
    assert_eq!(said(json!({"exp": exp, "iss": "you", "aud": "us"})), "jwt_iss");
    assert_eq!(said(json!({"exp": exp, "aud": "us"})), "jwt_iss");
    assert_eq!(said(json!({"exp": exp, "iss": "me", "aud": ["x"]})), "jwt_aud");
    assert_eq!(said(json!({"exp": exp, "iss": "me"})), "jwt_aud");
    assert_eq!(said(json!({"exp": exp, "iss": "me", "aud": 7})), "jwt");
    // RFC 7519 §4.1.3: who is not among those named refuses.
    let mut plain = room(Settings { jwt: vec![jwt_rule()], ..Settings::default() });
    assert!(is_denied(&plain.verdict(Kind::Play, "cam", &jwt(&json!({"exp": exp, "aud": "us"}))), "jwt_aud"));
}

#[test]
fn a_token_may_be_for_some_streams_and_kinds_only() {
    let mut lax = room(Settings { jwt: vec![jwt_rule()], ..Settings::default() });
    let strict_rule = JwtRule { require_stream: true, ..jwt_rule() };
    let mut strict = room(Settings { jwt: vec![strict_rule], ..Settings::default() });
    let exp = START_UNIX + 60;
    let for_cam = jwt(&json!({"exp": exp, "stream": "live/cam*", "kinds": ["play"]}));
    for room in [&mut lax, &mut strict] {
        assert!(room.verdict(Kind::Play, "cam1", &for_cam).is_ok());
        assert!(is_denied(&room.verdict(Kind::Play, "other", &for_cam), "jwt_stream"));
        assert!(is_denied(&room.verdict(Kind::Publish, "cam1", &for_cam), "jwt_kinds"));
        let many = jwt(&json!({"exp": exp, "stream": ["live/a", "default/live/b"]}));
        assert!(room.verdict(Kind::Publish, "b", &many).is_ok());
        let none = jwt(&json!({"exp": exp, "stream": []}));
        assert!(is_denied(&room.verdict(Kind::Publish, "b", &none), "jwt_stream"));
    }
    let any = jwt(&json!({"exp": exp}));
    assert!(lax.verdict(Kind::Play, "cam", &any).is_ok());
    assert!(is_denied(&strict.verdict(Kind::Play, "cam", &any), "jwt_stream"));
}

#[test]
fn claims_of_a_wrong_shape_are_a_refusal() {
    let mut room = room(Settings { jwt: vec![jwt_rule()], ..Settings::default() });
    let exp = START_UNIX + 60;
    let many: serde_json::Map<String, Value> = (0..17).map(|count| (format!("l{count}"), json!("x"))).collect();
    for claims in [
        json!({"exp": "soon"}),
        json!({"exp": [exp]}),
        json!({"exp": exp, "sub": 7}),
        json!({"exp": exp, "sub": "a\nb"}),
        json!({"exp": exp, "sub": "a".repeat(257)}),
        json!({"exp": exp, "labels": ["a"]}),
        json!({"exp": exp, "labels": {"a": 1}}),
        json!({"exp": exp, "labels": {"a": "x".repeat(65)}}),
        json!({"exp": exp, "labels": many}),
        json!({"exp": exp, "kinds": ["watch"]}),
        json!({"exp": exp, "sessions_max": -1}),
        json!([exp]),
        json!("text"),
    ] {
        let verdict = room.verdict(Kind::Play, "cam", &jwt(&claims));
        assert!(is_denied(&verdict, "jwt"), "{claims}: {verdict:?}");
    }
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let raw = |payload: &str| {
        let message = format!("{}.{}", base64::encode(br#"{"alg":"HS256"}"#), base64::encode(payload.as_bytes()));
        let sign = jsonwebtoken::crypto::sign(message.as_bytes(), &secret, Algorithm::HS256).unwrap();
        format!("token={message}.{sign}")
    };
    assert!(room.verdict(Kind::Play, "cam", &raw(&format!("{{\"exp\":{exp}}}"))).is_ok());
    for payload in [
        format!("{{\"exp\":{exp},\"exp\":{exp}}}"),
        format!("{{\"exp\":{exp},\"aud\":{}1{}}}", "[".repeat(1_000), "]".repeat(1_000)),
        "{\"exp\":1e400}".into(),
        format!("{{\"exp\":{exp},\"sub\":\"\\ud800\"}}"),
        format!("{{\"exp\":{exp}}} "),
        format!("\u{feff}{{\"exp\":{exp}}}"),
        "{\"exp\":NaN}".into(),
    ] {
        let verdict = room.verdict(Kind::Play, "cam", &raw(&payload));
        let short: String = payload.chars().take(60).collect();
        // Blanks around a value are JSON.
        assert_eq!(verdict.is_ok(), payload.ends_with(' '), "{short}");
    }
}

/// RFC 7515 A.1 to A.3: the same claims, signed in three ways. They expired in 2011.
const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const A1_KEY: &str = "base64:AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
const A1: (&str, &str) = ("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
const A2: (&str, &str) = (
    "eyJhbGciOiJSUzI1NiJ9",
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1\
     dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDw\
     usC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77R\
     w",
);
const A3: (&str, &str) =
    ("eyJhbGciOiJFUzI1NiJ9", "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q");

fn rfc_keys() -> Value {
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS\
             -pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg\
             665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWy\
             uXpoQ";
    json!({"keys": [
        {"kty": "RSA", "n": n, "e": "AQAB", "kid": "rsa"},
        {"kty": "EC", "crv": "P-256", "kid": "ec",
         "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"},
        {"kty": "new", "x": 7},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "use": "enc",
         "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
    ]})
}

/// Where the key set of the rules below is.
const SET: &str = "https://login.example/keys";

fn with_set() -> JwtRule {
    JwtRule { jwks_url: SET.into(), ..JwtRule::default() }
}

#[test]
fn rfc_7515_vectors_verify_and_are_expired_today() {
    let rule = JwtRule { secrets: secrets(&[A1_KEY]), issuer: "joe".into(), ..with_set() };
    let mut room = room(Settings { jwt: vec![rule], ..Settings::default() });
    assert_eq!(room.desk.set_jwks(0, SET, &rfc_keys().to_string()), Ok(3), "what cannot verify is left out");
    for (header, sign) in [A1, A2, A3] {
        let said = why(&room.verdict(Kind::Play, "cam", &format!("token={header}.{PAYLOAD}.{sign}")));
        assert_eq!(said, CloseReason::new(Reason::TokenExpired), "{header}");
        let bent = format!("token={header}.{PAYLOAD}.{}", sign.replacen(&sign[..1], "A", 1));
        assert!(is_denied(&room.verdict(Kind::Play, "cam", &bent), "jwt"), "{header}");
    }
    // In 2011 they were good.
    room.step_clock(-495_000_000);
    for (header, sign) in [A1, A2, A3] {
        let verdict = room.verdict(Kind::Play, "cam", &format!("token={header}.{PAYLOAD}.{sign}"));
        assert!(verdict.is_ok(), "{header}: {verdict:?}");
    }
}

/// The private key of RFC 8037 A.1 as PKCS #8.
fn rfc_8037() -> EncodingKey {
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend(base64::decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap());
    EncodingKey::from_ed_der(&der)
}

/// A key set before its issuer made this key.
fn without(kid: &str) -> String {
    let mut set = rfc_keys();
    set["keys"].as_array_mut().unwrap().retain(|key| key["kid"] != kid);
    set.to_string()
}

fn ed_token(kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(Into::into), ..Header::new(Algorithm::EdDSA) };
    format!("token={}", encode(&header, claims, &rfc_8037()).unwrap())
}

#[test]
fn rfc_8037_key_verifies_ed25519_from_a_set_and_from_pem() {
    let claims = json!({"exp": START_UNIX + 60, "sub": "ann"});
    let mut room_ = room(Settings { jwt: vec![with_set()], ..Settings::default() });
    let early = why(&room_.verdict(Kind::Play, "cam", &ed_token(None, &claims)));
    assert_eq!(early, refused(Reason::AuthUnavailable, "key_set"), "no keys yet");
    room_.desk.set_jwks(0, SET, &rfc_keys().to_string()).unwrap();
    assert_eq!(room_.verdict(Kind::Play, "cam", &ed_token(None, &claims)).unwrap().user.as_deref(), Some("ann"));
    assert!(room_.verdict(Kind::Play, "cam", &ed_token(Some("ed"), &claims)).is_ok());

    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    let rule = JwtRule { public_keys: vec![pem.into()], ..JwtRule::default() };
    let mut room = room(Settings { jwt: vec![rule], ..Settings::default() });
    assert!(room.verdict(Kind::Play, "cam", &ed_token(Some("whatever"), &claims)).is_ok());
}

#[test]
fn a_token_cannot_choose_what_its_key_is_for() {
    let rule = JwtRule { secrets: secrets(&[SECRET]), ..with_set() };
    let mut room = room(Settings { jwt: vec![rule], ..Settings::default() });
    room.desk.set_jwks(0, SET, &rfc_keys().to_string()).unwrap();
    let payload = base64::encode(json!({"exp": START_UNIX + 60}).to_string().as_bytes());
    let forged = |alg: &str, extra: &str, key: &[u8]| {
        let header = base64::encode(format!("{{\"alg\":\"{alg}\"{extra}}}").as_bytes());
        let message = format!("{header}.{payload}");
        let key = EncodingKey::from_secret(key);
        let sign = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("token={message}.{sign}")
    };
    // With the public key as the secret.
    let x = base64::decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
    let oct = base64::decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    for query in [
        forged("HS256", "", &x),
        forged("HS256", "", &oct),
        forged("none", "", SECRET.as_bytes()),
        forged("None", "", SECRET.as_bytes()),
        forged("", "", SECRET.as_bytes()),
        forged("RS256", "", SECRET.as_bytes()),
        forged("ES256", "", SECRET.as_bytes()),
        forged("EdDSA", "", SECRET.as_bytes()),
        forged("HS384", "", SECRET.as_bytes()),
        forged("HS256", ",\"crit\":[\"b64\"],\"b64\":false", SECRET.as_bytes()),
        forged("HS256", ",\"alg\":\"HS256\"", SECRET.as_bytes()),
        format!("token={}.{payload}.", base64::encode(br#"{"alg":"none"}"#)),
        format!("token={}.{payload}", base64::encode(br#"{"alg":"none"}"#)),
        "token=..".into(),
        "token=a.b.c.d".into(),
        "token=x".into(),
    ] {
        assert!(is_denied(&room.verdict(Kind::Play, "cam", &query), "jwt"), "{query}");
    }
    assert!(room.verdict(Kind::Play, "cam", &forged("HS256", "", SECRET.as_bytes())).is_ok(), "the honest one");
}

#[test]
fn a_key_that_an_issuer_made_a_moment_ago_is_waited_for_and_one_that_nobody_made_is_a_failure() {
    let mut room = room(Settings { jwt: vec![with_set()], ..Settings::default() });
    room.keys(0, SET, &without("ed"));
    let claims = json!({"exp": START_UNIX + 600});
    let peers = ["ed", "no such", "ed"].map(|kid| room.peer(Kind::Play, "cam", &ed_token(Some(kid), &claims)));
    let [good, forged, gone] = [0, 1, 2].map(|index: usize| room.ask(&peers[index]));
    assert_eq!((room.said(good), room.said(forged)), (None, None));
    room.close(&peers[2]);
    room.keys(0, SET, &rfc_keys().to_string());
    assert_eq!(room.said(good), Some(Ok(())));
    assert!(matches!(room.said(forged), Some(Err(CloseReason { reason: Reason::AuthDenied, .. }))));
    assert_eq!(room.said(gone), None);
    let failures = room.notes.iter().filter(|note| matches!(note, Note::AuthFailed(_))).count();
    assert_eq!(failures, 1, "the forged one counts against its source");
    // The set was read a moment ago: the next forged one need not wait.
    assert!(is_denied(&room.verdict(Kind::Play, "cam", &ed_token(Some("no such"), &claims)), "jwt"));
    room.close(&peers[0]);
    let held = room.desk.held();
    assert_eq!((held.waiting, held.timers), (0, 0));
}

#[test]
fn a_key_set_is_replaced_and_a_broken_one_changes_nothing() {
    let mut room = room(Settings { jwt: vec![with_set()], ..Settings::default() });
    room.keys(0, SET, &without("ed"));
    let claims = json!({"exp": START_UNIX + 600});
    let unknown = |room: &Room| room.notes.iter().filter(|note| **note == Note::KeyUnknown { rule: 0 }).count();
    let ask = |room: &mut Room| {
        let facts = room.peer(Kind::Play, "cam", &ed_token(Some("ed"), &claims));
        room.ask(&facts)
    };
    let waiting = [ask(&mut room), ask(&mut room)];
    assert_eq!(unknown(&room), 1, "one request to read the set again, however many come with the key");
    // Nobody reads it in time, which is not the peers' fault.
    room.wait(Settings::default().answer_timeout);
    let no_keys = Err(CloseReason::with(Reason::AuthUnavailable, "key_set"));
    assert_eq!(waiting.map(|question| room.said(question)), [Some(no_keys), Some(no_keys)]);
    room.wait(SECOND * 10);
    let waiting = ask(&mut room);
    assert_eq!(unknown(&room), 2);
    room.keys(0, SET, &rfc_keys().to_string());
    assert_eq!(room.said(waiting), Some(Ok(())));
    let failures = room.notes.iter().filter(|note| matches!(note, Note::AuthFailed(_))).count();
    assert_eq!((failures, room.desk.held().waiting), (0, 0));
    assert!(room.verdict(Kind::Play, "cam", &ed_token(Some("ed"), &claims)).is_ok());
    for broken in ["", "{}", "[]", "{\"keys\":[]}", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}", "{\"keys\":7}"] {
        assert!(room.desk.set_jwks(0, SET, broken).is_err(), "{broken}");
    }
    let many = json!({"keys": vec![rfc_keys()["keys"][2].clone(); 65]}).to_string();
    assert!(room.desk.set_jwks(0, SET, &many).is_err());
    assert!(room.desk.set_jwks(0, SET, &" ".repeat(300_000)).is_err());
    assert!(room.desk.set_jwks(1, SET, &rfc_keys().to_string()).is_err());
    assert!(room.verdict(Kind::Play, "cam", &ed_token(Some("ed"), &claims)).is_ok(), "the set is still there");
    // Rotation: the old key is gone with the set that had it.
    let ec = json!({"keys": [rfc_keys()["keys"][1]]}).to_string();
    assert_eq!(room.desk.set_jwks(0, SET, &ec), Ok(1));
    assert!(room.verdict(Kind::Play, "cam", &ed_token(Some("ed"), &claims)).is_err());
}

/// Other settings, and the gate that goes with them.
fn configure(room: &mut Room, jwt: Vec<JwtRule>) {
    let settings = Settings { publish: Access::Deny, play: Access::Deny, jwt, ..Settings::default() };
    room.desk.configure(&settings, std::sync::Arc::new(Gate::new(&settings, &[]))).unwrap();
}

#[test]
fn a_reload_keeps_the_key_sets_of_rules_that_trust_the_same_issuer() {
    let other = JwtRule { jwks_file: "/etc/other.json".into(), parameter: "other".into(), ..JwtRule::default() };
    let issued = JwtRule { issuer: "login".into(), ..with_set() };
    let mut room = room(Settings { jwt: vec![issued.clone()], ..Settings::default() });
    room.desk.set_jwks(0, SET, &rfc_keys().to_string()).unwrap();
    let token = ed_token(Some("ed"), &json!({"exp": START_UNIX + 600, "iss": "login"}));
    assert!(room.verdict(Kind::Play, "cam", &token).is_ok());
    // The rule stands elsewhere and says more; its keys are the same.
    configure(&mut room, vec![other.clone(), JwtRule { require_stream: true, ..issued.clone() }]);
    assert!(is_denied(&room.verdict(Kind::Play, "cam", &token), "jwt_stream"));
    configure(&mut room, vec![other, issued.clone()]);
    assert!(room.verdict(Kind::Play, "cam", &token).is_ok(), "the issuer may be down meanwhile");
    for changed in [
        JwtRule { jwks_url: "https://elsewhere.example/keys".into(), ..issued.clone() },
        JwtRule { issuer: "somebody".into(), ..issued.clone() },
    ] {
        configure(&mut room, vec![issued.clone()]);
        room.desk.set_jwks(0, SET, &rfc_keys().to_string()).unwrap();
        configure(&mut room, vec![changed]);
        let said = why(&room.verdict(Kind::Play, "cam", &token));
        assert_eq!(said, refused(Reason::AuthUnavailable, "key_set"), "other keys are other keys");
    }
}

#[test]
fn a_key_set_is_not_given_to_the_rule_that_took_its_place() {
    let inner = JwtRule { jwks_file: "/etc/inner.json".into(), ..JwtRule::default() };
    let mut room = room(Settings { jwt: vec![with_set(), inner.clone()], ..Settings::default() });
    // The first set is being fetched while a reload turns the rules round.
    configure(&mut room, vec![inner, with_set()]);
    let keys = rfc_keys().to_string();
    assert!(room.desk.set_jwks(0, SET, &keys).is_err(), "the public issuer's keys are not the inner ones");
    let token = ed_token(Some("ed"), &json!({"exp": START_UNIX + 600}));
    assert!(room.verdict(Kind::Play, "cam", &token).is_err());
    assert_eq!(room.desk.set_jwks(1, SET, &keys), Ok(3));
    assert_eq!(room.desk.set_jwks(0, "/etc/inner.json", &keys), Ok(3));
}

#[test]
fn limits_auth_failures_are_not_counted_while_a_key_set_has_never_been_read() {
    let rule = JwtRule { secrets: secrets(&[SECRET]), ..with_set() };
    let mut room = room(Settings { jwt: vec![rule], ..Settings::default() });
    let token = ed_token(Some("ed"), &json!({"exp": START_UNIX + 600}));
    let said = why(&room.verdict(Kind::Play, "cam", &token));
    assert_eq!(said, refused(Reason::AuthUnavailable, "key_set"));
    assert!(!room.notes.iter().any(|note| matches!(note, Note::AuthFailed(_))), "{:?}", room.notes);
    // What no set can make good is wrong all the same: a secret is not in one, and this is no token.
    let hmac = jwt(&json!({"exp": START_UNIX + 60}));
    let hmac = format!("{}A", &hmac[..hmac.len() - 1]);
    assert!(is_denied(&room.verdict(Kind::Play, "cam", &hmac), "jwt"));
    assert!(is_denied(&room.verdict(Kind::Play, "cam", "token=x"), "jwt"));
    room.desk.set_jwks(0, SET, &rfc_keys().to_string()).unwrap();
    assert!(room.verdict(Kind::Play, "cam", &token).is_ok());
}

#[test]
fn a_token_beyond_the_limit_is_not_looked_at() {
    let mut room = room(Settings { jwt: vec![jwt_rule()], ..Settings::default() });
    let exp = START_UNIX + 60;
    let padded = |len: usize| jwt(&json!({"exp": exp, "pad": "x".repeat(len)}));
    assert!(room.verdict(Kind::Play, "cam", &padded(5_000)).is_ok());
    assert!(is_denied(&room.verdict(Kind::Play, "cam", &padded(8_000)), "jwt"));
    assert!(is_denied(&room.verdict(Kind::Play, "cam", &padded(14_000)), "query"));
}

#[test]
fn a_wrong_token_beside_a_good_one_does_no_harm() {
    let settings = Settings {
        keys: vec![key_rule(&[SECRET])],
        jwt: vec![jwt_rule()],
        signed: vec![signed_rule()],
        ..Settings::default()
    };
    let mut room = room(settings);
    let good = jwt(&json!({"exp": START_UNIX + 60, "sub": "ann"}));
    let verdict = room.verdict(Kind::Play, "cam", &format!("key=wrong&sign=wrong&{good}"));
    assert_eq!(verdict.unwrap().user.as_deref(), Some("ann"));
    let old = jwt(&json!({"exp": START_UNIX - 60}));
    let said = why(&room.verdict(Kind::Play, "cam", &format!("key=wrong&{old}")));
    assert_eq!(said, CloseReason::new(Reason::TokenExpired), "that it was good once says most");
    assert!(is_denied(&room.verdict(Kind::Play, "cam", &format!("{good}&token=other")), "jwt"), "RT-51");
}

#[test]
fn a_token_is_the_answer_or_comes_before_the_hook() {
    let with = |then| {
        let settings = Settings { keys: vec![KeyRule { then, ..key_rule(&[SECRET]) }], ..Settings::default() };
        Room::new(&settings, vec![HookRule::default()])
    };
    let (good, bad) = (format!("key={SECRET}"), "key=wrong");

    // Either: who has the key is in, who has none is the hook's question.
    let mut room = with(Then::Allow);
    assert!(room.verdict(Kind::Play, "cam", &good).is_ok());
    assert!(is_denied(&room.verdict(Kind::Play, "cam", bad), "key"));
    assert!(room.asks.is_empty());
    let facts = room.peer(Kind::Play, "cam", "");
    let question = room.ask(&facts);
    assert_eq!(room.said(question), None);
    room.answer(allow(terms_of("ann")));
    assert_eq!(room.said(question), Some(Ok(())));

    // Both: the key first, and then the hook, which has the last word about who it is.
    let mut room = with(Then::Hook);
    assert!(is_denied(&room.verdict(Kind::Play, "cam", ""), "token_missing"));
    assert!(is_denied(&room.verdict(Kind::Play, "cam", bad), "key"));
    assert!(room.asks.is_empty());
    let facts = room.peer(Kind::Play, "cam", &good);
    let question = room.ask(&facts);
    room.answer(allow(terms_of("ann")));
    assert_eq!(room.verdicts[&question].as_ref().unwrap().user.as_deref(), Some("ann"));
    let facts = room.peer(Kind::Play, "cam2", &good);
    let question = room.ask(&facts);
    room.answer(allow(sluicegate::admission::Terms::default()));
    assert_eq!(room.verdicts[&question].as_ref().unwrap().user.as_deref(), Some("studio"));
}

#[test]
fn settings_that_cannot_protect_are_refused_without_showing_the_secret() {
    let wrong = |settings: Settings| {
        let error = settings.check().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        error.field
    };
    let keys = |rule: KeyRule| Settings { keys: vec![rule], ..Settings::default() };
    let jwt = |rule: JwtRule| Settings { jwt: vec![rule], ..Settings::default() };
    assert_eq!(wrong(keys(key_rule(&[]))), "admission.keys.keys");
    assert_eq!(wrong(keys(key_rule(&["hunter2"]))), "admission.keys.keys");
    assert_eq!(wrong(keys(KeyRule { parameter: "a&b".into(), ..key_rule(&[SECRET]) })), "admission.keys.parameter");
    assert_eq!(wrong(keys(KeyRule { kinds: vec![Kind::Push], ..key_rule(&[SECRET]) })), "admission.keys.kinds");
    assert_eq!(wrong(jwt(JwtRule::default())), "admission.jwt");
    let short = JwtRule { secrets: secrets(&["hunter2hunter2hunter2hunter2"]), ..JwtRule::default() };
    assert_eq!(wrong(jwt(short)), "admission.jwt.secrets");
    for pem in ["hunter2", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"] {
        let rule = JwtRule { public_keys: vec![pem.into()], ..JwtRule::default() };
        assert_eq!(wrong(jwt(rule)), "admission.jwt.public_keys");
    }
    let rule = JwtRule { jwks_url: "ftp://x".into(), ..JwtRule::default() };
    assert_eq!(wrong(jwt(rule)), "admission.jwt.jwks_url");
    for url in ["https://u:hunter2@x/", "http://u@x", "https:///u:hunter2@x/", "https://\t/\\u:hunter2@x", "http://@x"]
    {
        let rule = JwtRule { jwks_url: url.into(), ..JwtRule::default() };
        assert_eq!(wrong(jwt(rule)), "admission.jwt.jwks_url", "{url:?}");
    }
    for url in ["https://x/@keys", "https://x?a=b@c", "http://x#@"] {
        let rule = JwtRule { jwks_url: url.into(), ..JwtRule::default() };
        assert_eq!(jwt(rule).check(), Ok(()), "{url}");
    }
    let shown = format!("{:?}", keys(key_rule(&["hunter2hunter2hunter2hunter2"])));
    assert!(!shown.contains("hunter2") && shown.contains("***"));
}
