//! URLs that somebody signed who shares a secret with us.
//!
//! What is signed are five lines, joined with `\n` and without one at the end: the kind (`publish` or `play`), the
//! stream as `vhost/app/stream`, and the values of `expires`, `user` and `ip`, each empty where the URL has none. The
//! kind is part of it, so that a URL to play with is none to publish with.

use std::fmt::Write as _;
use std::net::IpAddr;

use aws_lc_rs::hmac;
use sha2::{Digest as _, Sha256};

use crate::admission::Terms;
use crate::admission::settings::SignedRule;
use crate::admission::token::base64;
use crate::admission::token::query::{self, Value};
use crate::admission::token::{Bearer, Found, Invalid, Judged, TOLERANCE_MS, is_user};
use crate::names::{Kind, StreamKey};
use crate::session::{CloseReason, Reason};

/// One rule, compiled.
pub struct Signed {
    keys: Vec<hmac::Key>,
    ends_session: bool,
}

/// Digits of `expires`: seconds until the year 33658.
const EXPIRES_DIGITS_MAX: usize = 12;

impl Signed {
    /// Compiles a rule.
    #[must_use]
    pub fn new(rule: &SignedRule) -> Self {
        let keys = rule.secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes()));
        Self { keys: keys.collect(), ends_session: rule.ends_session }
    }

    pub(super) fn judge(&self, bearer: &Bearer<'_>) -> Judged {
        let sign = match query::value(bearer.query, "sign") {
            Value::Absent => return None,
            value => value,
        };
        Some(self.verify(bearer, sign))
    }

    fn verify(&self, bearer: &Bearer<'_>, sign: Value<'_>) -> Result<Found, Invalid> {
        let wrong = || Invalid::denied("signature");
        let Value::Is(sign) = sign else { return Err(wrong()) };
        let field = |name| match query::value(bearer.query, name) {
            Value::Absent => Ok(String::new()),
            Value::Is(text) if is_user(&text) => Ok(text.into_owned()),
            Value::Is(_) | Value::Unreadable => Err(wrong()),
        };
        let (expires, user, ip) = (field("expires")?, field("user")?, field("ip")?);
        let tag = match sign.len() {
            64 => base64::decode_hex(&sign),
            // With padding, or from an encoder that does not write for URLs.
            43 | 44 => base64::decode(&sign.strip_suffix('=').unwrap_or(&sign).replace('+', "-").replace('/', "_")),
            _ => None,
        };
        let tag = tag.ok_or_else(wrong)?;
        let signed = canonical(bearer.kind, bearer.key, &expires, &user, &ip);
        if !self.keys.iter().any(|key| hmac::verify(key, signed.as_bytes(), &tag).is_ok()) {
            return Err(wrong());
        }
        // From here on it is what was signed; only the holder of a good URL learns more.
        if expires.len() > EXPIRES_DIGITS_MAX || !expires.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let expires: u64 = expires.parse().map_err(|_| wrong())?;
        let ends_unix_ms = expires.saturating_mul(1_000).saturating_add(TOLERANCE_MS);
        if ends_unix_ms <= bearer.unix_ms {
            return Err(Invalid::expired());
        }
        if !ip.is_empty() {
            let address: IpAddr = ip.parse().map_err(|_| wrong())?;
            if address.to_canonical() != bearer.address.to_canonical() {
                let reason = CloseReason::with(Reason::IpDenied, "signed");
                return Err(Invalid { reason, unknown_key: None });
            }
        }
        let user = Some(user).filter(|user| !user.is_empty()).map(Into::into);
        Ok(Found {
            terms: Terms { user, ..Terms::default() },
            ends_unix_ms: self.ends_session.then_some(ends_unix_ms),
            digest: Sha256::new().chain_update(b"signed\0").chain_update(&tag).finalize().into(),
        })
    }
}

/// What is signed.
#[must_use]
pub fn canonical(kind: Kind, key: &StreamKey, expires: &str, user: &str, ip: &str) -> String {
    let mut text = String::new();
    let _ = write!(text, "{}\n{key}\n{expires}\n{user}\n{ip}", kind.as_str());
    text
}

/// The signature of a canonical text, in base64 for URLs.
#[must_use]
pub fn sign(secret: &str, canonical: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    base64::encode(hmac::sign(&key, canonical.as_bytes()).as_ref())
}
