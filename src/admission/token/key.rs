//! Keys that stand in the query as they are.

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::admission::Terms;
use crate::admission::settings::KeyRule;
use crate::admission::token::query::{self, Value};
use crate::admission::token::{Bearer, Digest, Found, Invalid, Judged};

/// One rule, compiled.
pub struct Keys {
    parameter: Box<str>,
    /// Digests, so that comparing takes the same time whatever the lengths.
    digests: Vec<Digest>,
    user: Option<Box<str>>,
}

impl Keys {
    /// Compiles a rule.
    #[must_use]
    pub fn new(rule: &KeyRule) -> Self {
        Self {
            parameter: rule.parameter.as_str().into(),
            digests: rule.keys.iter().map(|key| digest(key.reveal())).collect(),
            user: Some(rule.user.as_str()).filter(|user| !user.is_empty()).map(Into::into),
        }
    }

    pub(super) fn judge(&self, bearer: &Bearer<'_>) -> Judged {
        let given = match query::value(bearer.query, &self.parameter) {
            Value::Absent => return None,
            Value::Is(text) => digest(&text),
            Value::Unreadable => return Some(Err(Invalid::denied("key"))),
        };
        // Every key is compared, so that the time does not tell which one it was.
        let known = self.digests.iter().fold(Choice::from(0), |known, key| known | key.ct_eq(&given));
        if !bool::from(known) {
            return Some(Err(Invalid::denied("key")));
        }
        let terms = Terms { user: self.user.clone(), ..Terms::default() };
        Some(Ok(Found { terms, ends_unix_ms: None, digest: given }))
    }
}

fn digest(text: &str) -> Digest {
    Sha256::new().chain_update(b"key\0").chain_update(text).finalize().into()
}
