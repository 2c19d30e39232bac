//! JSON web tokens (RFC 7519) in the compact form, signed (RFC 7515) and not encrypted.
//!
//! A key decides which algorithms it is for, never the token: a secret verifies HS256, HS384 and HS512, an RSA key RS
//! and PS, an EC key the one algorithm of its curve, an Ed25519 key `EdDSA`. So a public key cannot be taken for a
//! secret, and `none` is no algorithm at all.

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use sha2::{Digest as _, Sha256};

use crate::admission::Terms;
use crate::admission::pattern::{STREAM_PATTERN_BYTES_MAX, names_stream};
use crate::admission::settings::JwtRule;
use crate::admission::token::query::{self, Value};
use crate::admission::token::{Bearer, Found, Invalid, Judged, TOLERANCE_MS, base64, is_user};
use crate::names::Kind;
use crate::session::Labels;
use crate::stdx::settings::SettingsError;

/// One rule, compiled.
pub struct Jwt {
    parameter: Box<str>,
    issuer: Option<Box<str>>,
    audience: Vec<Box<str>>,
    require_stream: bool,
    ends_session: bool,
    /// Secrets and PEM keys of the configuration.
    own: Vec<Key>,
    /// Where the key set comes from, if the rule names one.
    source: Option<Box<str>>,
    /// The keys of the set; `None` until it has been read for the first time.
    set: Option<Arc<[Key]>>,
}

/// A key and what it is for.
struct Key {
    id: Option<Box<str>>,
    algorithms: &'static [Algorithm],
    /// The one of them that the key set names.
    only: Option<Algorithm>,
    verifies: DecodingKey,
}

/// The longest key set, in bytes.
pub const JWKS_BYTES_MAX: usize = 256 << 10;
/// The most keys in a set.
pub const JWKS_KEYS_MAX: usize = 64;
/// Keys that one token is tried with.
const TRIES_MAX: usize = 16;
/// Patterns in `stream`.
const STREAMS_MAX: usize = 64;
/// Pairs in `labels`, and the bytes of each side.
const LABELS_MAX: usize = 16;
const LABEL_BYTES_MAX: usize = 64;
/// A hash's worth of key (RFC 7518 §3.2).
const SECRET_BYTES_MIN: usize = 32;

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
const P256: &[Algorithm] = &[Algorithm::ES256];
const P384: &[Algorithm] = &[Algorithm::ES384];
const ED25519: &[Algorithm] = &[Algorithm::EdDSA];

impl Jwt {
    /// Compiles a rule. The key set, if it has one, is empty until `set_jwks`.
    ///
    /// # Errors
    /// A key that cannot be read.
    pub fn new(rule: &JwtRule) -> Result<Self, SettingsError> {
        let wrong = |field: &str, message: &str| SettingsError::new(format!("admission.jwt.{field}"), message);
        let mut own = Vec::new();
        for secret in &rule.secrets {
            let bytes = match secret.reveal().strip_prefix("base64:") {
                Some(text) => {
                    let text = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
                    base64::decode(&text).ok_or_else(|| wrong("secrets", "what follows base64: is not base64"))?
                }
                None => secret.reveal().as_bytes().to_vec(),
            };
            if bytes.len() < SECRET_BYTES_MIN {
                return Err(wrong(
                    "secrets",
                    "each needs at least 32 bytes (RFC 7518 §3.2), as `openssl rand -hex 32` makes them",
                ));
            }
            own.push(Key { id: None, algorithms: HMAC, only: None, verifies: DecodingKey::from_secret(&bytes) });
        }
        for text in &rule.public_keys {
            own.push(read_pem(text).map_err(|message| wrong("public_keys", message))?);
        }
        Ok(Self {
            parameter: rule.parameter.as_str().into(),
            issuer: Some(rule.issuer.as_str()).filter(|issuer| !issuer.is_empty()).map(Into::into),
            audience: rule.audience.iter().map(|audience| audience.as_str().into()).collect(),
            require_stream: rule.require_stream,
            ends_session: rule.ends_session,
            own,
            source: rule.key_set().map(Into::into),
            set: None,
        })
    }

    /// Takes over the key set that a rule of before had, where both trust the same issuer's keys.
    pub(super) fn inherit(&mut self, before: &[&Self]) {
        let mut same = before.iter().filter(|old| old.source == self.source && old.issuer == self.issuer);
        if self.source.is_some() && self.set.is_none() {
            self.set = same.find_map(|old| old.set.clone());
        }
    }

    pub(super) fn set_jwks(&mut self, from: &str, text: &str) -> Result<usize, &'static str> {
        if self.source.is_none() {
            return Err("the rule names no key set");
        }
        // The rules may have changed while the set was read: it must not verify for another issuer.
        if self.source.as_deref() != Some(from) {
            return Err("the rule has another key set by now");
        }
        let keys = read_jwks(text)?;
        let count = keys.len();
        self.set = Some(keys.into());
        Ok(count)
    }

    pub(super) fn judge(&self, index: usize, bearer: &Bearer<'_>) -> Judged {
        match query::value(bearer.query, &self.parameter) {
            Value::Absent => None,
            Value::Is(token) => Some(self.verify(index, bearer, &token)),
            Value::Unreadable => Some(Err(Invalid::denied("jwt"))),
        }
    }

    fn verify(&self, index: usize, bearer: &Bearer<'_>, token: &str) -> Result<Found, Invalid> {
        let wrong = || Invalid::denied("jwt");
        let (message, signature) = token.rsplit_once('.').ok_or_else(wrong)?;
        let (header, payload) = message.split_once('.').ok_or_else(wrong)?;
        let header: Header = read(header).ok_or_else(wrong)?;
        // RFC 7515 §4.1.11: what must be understood is not understood here.
        if header.crit.is_some() {
            return Err(wrong());
        }
        let algorithm: Algorithm = header.alg.parse().map_err(|_| wrong())?;
        // Until the set is here nobody can say what is signed with a key of it; a secret is never one.
        let unsigned = || {
            let is_awaited = self.source.is_some() && self.set.is_none() && !HMAC.contains(&algorithm);
            if is_awaited { Invalid::undecided() } else { wrong() }
        };
        let set = self.set.iter().flat_map(|set| set.iter());
        let mut keys = self.own.iter().chain(set).filter(|key| key.fits(algorithm, header.kid.as_deref()));
        let mut keys = keys.by_ref().take(TRIES_MAX).peekable();
        if keys.peek().is_none() {
            let unknown_key = (self.source.is_some() && header.kid.is_some()).then_some(index);
            return Err(Invalid { unknown_key, ..unsigned() });
        }
        let mut is_signed = keys.map(|key| {
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.verifies, algorithm).unwrap_or(false)
        });
        if !is_signed.any(|signed| signed) {
            return Err(unsigned());
        }
        // What is signed is one text; a signature may have several that are valid, so it is left out.
        let digest = Sha256::new().chain_update(b"jwt\0").chain_update(message).finalize().into();
        let claims: Claims = read(payload).ok_or_else(wrong)?;
        self.judge_claims(bearer, claims, digest)
    }

    fn judge_claims(&self, bearer: &Bearer<'_>, claims: Claims, digest: [u8; 32]) -> Result<Found, Invalid> {
        let exp = claims.exp.ok_or(Invalid::denied("jwt_exp"))?;
        let ends_unix_ms = unix_ms(exp).saturating_add(TOLERANCE_MS);
        if ends_unix_ms <= bearer.unix_ms {
            return Err(Invalid::expired());
        }
        if claims.nbf.is_some_and(|nbf| unix_ms(nbf) > bearer.unix_ms.saturating_add(TOLERANCE_MS)) {
            return Err(Invalid::denied("jwt_nbf"));
        }
        if self.issuer.is_some() && claims.iss != self.issuer {
            return Err(Invalid::denied("jwt_iss"));
        }
        let audience = claims.aud.map(OneOrMany::into_vec);
        let is_for_us = match &audience {
            Some(named) => named.iter().any(|name| self.audience.contains(name)),
            None => self.audience.is_empty(),
        };
        if !is_for_us {
            return Err(Invalid::denied("jwt_aud"));
        }
        match claims.stream.map(OneOrMany::into_vec) {
            Some(patterns) => {
                let valid = patterns.len() <= STREAMS_MAX
                    && patterns.iter().all(|pattern| pattern.len() <= STREAM_PATTERN_BYTES_MAX);
                if !valid || !patterns.iter().any(|pattern| names_stream(pattern, bearer.key)) {
                    return Err(Invalid::denied("jwt_stream"));
                }
            }
            None if self.require_stream => return Err(Invalid::denied("jwt_stream")),
            None => {}
        }
        if claims.kinds.is_some_and(|kinds| !kinds.contains(&bearer.kind)) {
            return Err(Invalid::denied("jwt_kinds"));
        }
        if claims.sub.as_deref().is_some_and(|user| !is_user(user)) {
            return Err(Invalid::denied("jwt"));
        }
        let terms = Terms {
            user: claims.sub.filter(|user| !user.is_empty()),
            labels: claims.labels.map_or_else(Labels::default, |pairs| pairs.0.into()),
            sessions_max: claims.sessions_max,
            ..Terms::default()
        };
        Ok(Found { terms, ends_unix_ms: self.ends_session.then_some(ends_unix_ms), digest })
    }
}

impl Key {
    /// A key without a name may be any; a token that names none may have been signed with any.
    fn fits(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        self.algorithms.contains(&algorithm)
            && self.only.is_none_or(|only| only == algorithm)
            && id.is_none_or(|id| self.id.as_deref().is_none_or(|own| own == id))
    }
}

#[derive(Deserialize)]
struct Header {
    alg: Box<str>,
    kid: Option<Box<str>>,
    crit: Option<serde_json::Value>,
}

/// The claims that we know; others are ignored, and one of these twice is a refusal.
#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
    nbf: Option<f64>,
    iss: Option<Box<str>>,
    aud: Option<OneOrMany>,
    sub: Option<Box<str>>,
    stream: Option<OneOrMany>,
    kinds: Option<Vec<Kind>>,
    sessions_max: Option<u32>,
    labels: Option<Pairs>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(Box<str>),
    Many(Vec<Box<str>>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<Box<str>> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// Labels in the order of the token.
struct Pairs(Vec<(Box<str>, Box<str>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("at most 16 texts by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs: Vec<(Box<str>, Box<str>)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<Box<str>, Box<str>>()? {
            let fits = |text: &str| text.len() <= LABEL_BYTES_MAX && !text.chars().any(char::is_control);
            if pairs.len() >= LABELS_MAX
                || !fits(&name)
                || !fits(&value)
                || pairs.iter().any(|(known, _)| *known == name)
            {
                return Err(A::Error::custom("these are no labels"));
            }
            pairs.push((name, value));
        }
        Ok(Pairs(pairs))
    }
}

fn read<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    serde_json::from_slice(&base64::decode(part)?).ok()
}

/// A `NumericDate` may have a fraction.
fn unix_ms(seconds: f64) -> u64 {
    // A cast saturates: before the epoch is at the epoch, and the end of time is far enough away.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = (seconds * 1_000.0) as u64;
    whole
}

fn read_pem(text: &str) -> Result<Key, &'static str> {
    if text.contains("PRIVATE KEY") {
        return Err("that is a private key; whoever signs keeps it, and a public key belongs here");
    }
    let bytes = text.trim().as_bytes();
    if let Ok(key) = DecodingKey::from_rsa_pem(bytes) {
        return Ok(Key { id: None, algorithms: RSA, only: None, verifies: key });
    }
    if let Ok(key) = DecodingKey::from_ed_pem(bytes) {
        return Ok(Key { id: None, algorithms: ED25519, only: None, verifies: key });
    }
    if let Ok(key) = DecodingKey::from_ec_pem(bytes) {
        // An uncompressed point: a byte and two coordinates.
        let algorithms = match key.try_get_as_bytes().map(<[u8]>::len) {
            Ok(65) => P256,
            Ok(97) => P384,
            _ => return Err("of elliptic curves, P-256 and P-384 are known"),
        };
        return Ok(Key { id: None, algorithms, only: None, verifies: key });
    }
    Err("that is no public key in PEM: it begins with -----BEGIN PUBLIC KEY-----")
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct WebKey {
    kty: Box<str>,
    kid: Option<Box<str>>,
    #[serde(rename = "use")]
    purpose: Option<Box<str>>,
    alg: Option<Box<str>>,
    crv: Option<Box<str>>,
    n: Option<Box<str>>,
    e: Option<Box<str>>,
    x: Option<Box<str>>,
    y: Option<Box<str>>,
}

fn read_jwks(text: &str) -> Result<Vec<Key>, &'static str> {
    if text.len() > JWKS_BYTES_MAX {
        return Err("the key set is longer than 256 KiB");
    }
    let set: KeySet = serde_json::from_str(text).map_err(|_| "that is no key set")?;
    if set.keys.len() > JWKS_KEYS_MAX {
        return Err("the key set has more than 64 keys");
    }
    let keys: Vec<Key> = set
        .keys
        .into_iter()
        .filter_map(|key| serde_json::from_value::<WebKey>(key).ok())
        .filter_map(WebKey::into_key)
        .collect();
    if keys.is_empty() { Err("the key set has no key that we can verify with") } else { Ok(keys) }
}

impl WebKey {
    /// `None` for what we do not know, what is not for signatures, and secrets: a set is published.
    fn into_key(self) -> Option<Key> {
        if self.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let number = |text: &Option<Box<str>>| base64::decode(text.as_deref()?);
        let (algorithms, verifies) = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (number(&self.n)?, number(&self.e)?);
                // 2048 to 8192 bits.
                if !(256..=1_024).contains(&n.len()) || e.is_empty() || e.len() > 8 {
                    return None;
                }
                (RSA, DecodingKey::from_rsa_raw_components(&n, &e))
            }
            ("EC", Some("P-256")) => (P256, point(&number(&self.x)?, &number(&self.y)?, 32)?),
            ("EC", Some("P-384")) => (P384, point(&number(&self.x)?, &number(&self.y)?, 48)?),
            ("OKP", Some("Ed25519")) => {
                let x = number(&self.x).filter(|x| x.len() == 32)?;
                (ED25519, DecodingKey::from_ed_der(&x))
            }
            _ => return None,
        };
        let only = match self.alg.as_deref() {
            // RFC 9864 gives EdDSA over this curve a name of its own.
            Some("Ed25519") => Some(Algorithm::EdDSA),
            Some(name) => Some(name.parse().ok()?),
            None => None,
        };
        only.is_none_or(|only| algorithms.contains(&only)).then_some(Key { id: self.kid, algorithms, only, verifies })
    }
}

fn point(x: &[u8], y: &[u8], len: usize) -> Option<DecodingKey> {
    let mut point = vec![4];
    point.extend_from_slice(x);
    point.extend_from_slice(y);
    (x.len() == len && y.len() == len).then(|| DecodingKey::from_ec_der(&point))
}
