//! Tokens in a query: keys, signed URLs, JSON web tokens.
//!
//! Each kind of token has its parameters in the query, so it is known which of them a peer has brought. Any valid one
//! will do; a wrong one beside it does no harm. All that can be said about time is judged with [`TOLERANCE_MS`],
//! because whoever made the token has a clock of its own.

pub mod base64;
pub mod jwt;
pub mod key;
pub mod query;
pub mod signed;

use std::net::IpAddr;

use crate::admission::gate::is_kind;
use crate::admission::pattern::is_among;
use crate::admission::settings::Then;
use crate::admission::{AppPattern, Settings, Terms};
use crate::names::{Kind, StreamKey};
use crate::session::{CloseReason, Reason};
use crate::stdx::settings::SettingsError;

/// How far a clock elsewhere may be off, in milliseconds.
pub const TOLERANCE_MS: u64 = 30_000;
/// The longest query that is searched, in bytes.
pub const QUERY_BYTES_MAX: usize = 16 << 10;
/// The longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// The longest name of a user, in bytes.
pub const USER_BYTES_MAX: usize = 256;

/// The token rules, ready to be asked.
pub struct Tokens {
    keys: Vec<(Scope, key::Keys)>,
    signed: Vec<(Scope, signed::Signed)>,
    jwt: Vec<(Scope, jwt::Jwt)>,
}

/// What a rule is about and what follows it.
struct Scope {
    apps: Vec<AppPattern>,
    kinds: Vec<Kind>,
    then: Then,
}

/// Who comes for what, and when, as far as tokens are about it. Not to be printed: the query is where tokens are.
#[derive(Clone, Copy)]
pub struct Bearer<'a> {
    /// What they want to do.
    pub kind: Kind,
    /// On which stream.
    pub key: &'a StreamKey,
    /// From where.
    pub address: IpAddr,
    /// What they bring.
    pub query: &'a str,
    /// When, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// What the token rules say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// None is about this app and kind.
    Silent,
    /// No token was brought.
    Missing {
        /// True when a rule wants a token before the hook is asked.
        before_hook: bool,
    },
    /// A valid token.
    Valid(Box<Valid>),
    /// Tokens were brought and none is valid.
    Invalid(Invalid),
}

/// A valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Valid {
    /// What it says of the session. Its expiry is not here but in `ends_unix_ms`.
    pub terms: Terms,
    /// When the session must end, the tolerance included; `None` is never.
    pub ends_unix_ms: Option<u64>,
    /// What follows.
    pub then: Then,
    /// Tells one token from another, and says nothing about it.
    pub digest: Digest,
}

/// A SHA-256.
pub type Digest = [u8; 32];

/// A token that will not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Why.
    pub reason: CloseReason,
    /// The index of the JWT rule in whose key set the token's key is not.
    pub unknown_key: Option<usize>,
}

impl Invalid {
    fn denied(detail: &'static str) -> Self {
        Self { reason: CloseReason::with(Reason::AuthDenied, detail), unknown_key: None }
    }

    fn expired() -> Self {
        Self { reason: Reason::TokenExpired.into(), unknown_key: None }
    }

    /// The keys that would tell are not here yet.
    fn undecided() -> Self {
        Self { reason: CloseReason::with(Reason::AuthUnavailable, "key_set"), unknown_key: None }
    }

    /// How much it says of the peer: that its token was valid once says more than that nobody can tell, or not yet, and
    /// that more than that another token is wrong.
    fn weight(&self) -> u8 {
        match self.reason.reason {
            Reason::TokenExpired => 2,
            Reason::AuthUnavailable => 1,
            _ if self.unknown_key.is_some() => 1,
            _ => 0,
        }
    }
}

/// What one rule says: nothing was brought for it, or what was is judged.
type Judged = Option<Result<Found, Invalid>>;

/// A valid token as one rule sees it.
struct Found {
    terms: Terms,
    ends_unix_ms: Option<u64>,
    digest: Digest,
}

impl Tokens {
    /// Compiles the rules of the settings.
    ///
    /// # Errors
    /// A public key that cannot be read.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let scope = |apps: &Vec<AppPattern>, kinds: &Vec<Kind>, then: Then| Scope {
            apps: apps.clone(),
            kinds: kinds.clone(),
            then,
        };
        let keys = settings.keys.iter().map(|rule| (scope(&rule.apps, &rule.kinds, rule.then), key::Keys::new(rule)));
        let signed =
            settings.signed.iter().map(|rule| (scope(&rule.apps, &rule.kinds, rule.then), signed::Signed::new(rule)));
        let mut jwt = Vec::new();
        for rule in &settings.jwt {
            jwt.push((scope(&rule.apps, &rule.kinds, rule.then), jwt::Jwt::new(rule)?));
        }
        Ok(Self { keys: keys.collect(), signed: signed.collect(), jwt })
    }

    /// Takes over the key sets of the rules before a reload, for rules whose sets come from the same place and name the
    /// same issuer: what verified before verifies on, also while the issuer cannot be reached.
    pub fn inherit(&mut self, before: &Self) {
        let before: Vec<&jwt::Jwt> = before.jwt.iter().map(|(_, jwt)| jwt).collect();
        for (_, jwt) in &mut self.jwt {
            jwt.inherit(&before);
        }
    }

    /// Replaces the key set of a JWT rule; see [`crate::admission::Desk::set_jwks`].
    ///
    /// # Errors
    /// When there is no such rule, when its key set is not `from` there, or the text is no key set.
    pub fn set_jwks(&mut self, index: usize, from: &str, text: &str) -> Result<usize, &'static str> {
        let (_, jwt) = self.jwt.get_mut(index).ok_or("there is no such rule")?;
        jwt.set_jwks(from, text)
    }

    /// Judges what a peer brings: keys first, then signed URLs, then JSON web tokens, each in the order of the
    /// configuration. The first valid token is the one that counts.
    #[must_use]
    pub fn judge(&self, bearer: &Bearer<'_>) -> Judgement {
        let mut concerned = false;
        let mut before_hook = false;
        let mut worst: Option<Invalid> = None;
        let mut weigh = |scope: &Scope, judge: &dyn Fn() -> Judged| -> Option<Judgement> {
            if !is_kind(&scope.kinds, bearer.kind) || !is_among(&scope.apps, bearer.key) {
                return None;
            }
            concerned = true;
            before_hook |= scope.then == Then::Hook;
            match judge()? {
                Ok(Found { terms, ends_unix_ms, digest }) => {
                    Some(Judgement::Valid(Box::new(Valid { terms, ends_unix_ms, then: scope.then, digest })))
                }
                Err(invalid) => {
                    if worst.is_none_or(|known| known.weight() < invalid.weight()) {
                        worst = Some(invalid);
                    }
                    None
                }
            }
        };
        let too_long = bearer.query.len() > QUERY_BYTES_MAX;
        let long = || Some(Err(Invalid::denied("query")));
        for (scope, keys) in &self.keys {
            if let Some(valid) = weigh(scope, &|| if too_long { long() } else { keys.judge(bearer) }) {
                return valid;
            }
        }
        for (scope, signed) in &self.signed {
            if let Some(valid) = weigh(scope, &|| if too_long { long() } else { signed.judge(bearer) }) {
                return valid;
            }
        }
        for (index, (scope, jwt)) in self.jwt.iter().enumerate() {
            if let Some(valid) = weigh(scope, &|| if too_long { long() } else { jwt.judge(index, bearer) }) {
                return valid;
            }
        }
        match worst {
            Some(invalid) => Judgement::Invalid(invalid),
            None if concerned => Judgement::Missing { before_hook },
            None => Judgement::Silent,
        }
    }
}

/// Checks that the public keys of the settings can be read.
///
/// # Errors
/// The first that cannot.
pub fn check_keys(settings: &Settings) -> Result<(), SettingsError> {
    settings.jwt.iter().try_for_each(|rule| jwt::Jwt::new(rule).map(|_| ()))
}

/// True for a name that a user may have: not too long, without control characters.
fn is_user(name: &str) -> bool {
    name.len() <= USER_BYTES_MAX && !name.chars().any(char::is_control)
}
