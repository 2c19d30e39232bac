//! What admission obeys.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::admission::{AppPattern, AtLimit, token};
use crate::names::Kind;
use crate::stdx::settings::{SECRET_CHARS_MIN, SettingsError, is_long_enough};
use crate::stdx::units::{self, Secret};

/// Who may do a thing when nothing else decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Anyone.
    Open,
    /// Only peers on a loopback address.
    Loopback,
    /// Nobody.
    #[default]
    Deny,
}

/// `[admission]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Who may publish where no address rule, token rule or hook decides. A server without a configuration file
    /// runs the development profile, which is `open` on listeners that are bound to loopback; a configuration file
    /// must say so itself.
    pub publish: Access,
    /// Who may play where no address rule, token rule or hook decides.
    pub play: Access,
    /// What a second publisher of a busy stream meets.
    pub duplicate_publish: DuplicatePublish,
    /// Bans held at once; at the limit the one that ends first leaves.
    pub bans_max: usize,
    /// Questions that may wait for a back end or for an evicted session at once, about 1 KiB each; one more is
    /// treated as a failure of the back end.
    pub waiting_max: usize,
    /// How long a question may wait for its answer before that is a failure of the back end. Longer than the
    /// time that the hook itself takes to give up.
    #[serde(with = "units::duration")]
    pub answer_timeout: Duration,
    /// How long a newcomer waits for the session that is evicted for it before it is refused.
    #[serde(with = "units::duration")]
    pub evict_timeout: Duration,
    /// Answers of back ends remembered, about 500 bytes each; at the limit the one that ends first leaves.
    pub cache_entries: usize,
    /// Hosts to which a back end may redirect a peer. Anything else is refused without the redirect.
    pub redirect_hosts: Vec<String>,
    /// How many sessions, how much bandwidth, how long.
    pub limits: Limits,
    /// Who may come from where; the first rule that matches holds.
    pub rules: Vec<AddressRule>,
    /// Keys that stand in the query.
    pub keys: Vec<KeyRule>,
    /// URLs that were signed by somebody who shares a secret with us.
    pub signed: Vec<SignedRule>,
    /// JSON web tokens in the query.
    pub jwt: Vec<JwtRule>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            publish: Access::Deny,
            play: Access::Open,
            duplicate_publish: DuplicatePublish::default(),
            bans_max: 100_000,
            waiting_max: 10_000,
            answer_timeout: Duration::from_secs(5),
            evict_timeout: Duration::from_secs(5),
            cache_entries: 100_000,
            redirect_hosts: Vec::new(),
            limits: Limits::default(),
            rules: Vec::new(),
            keys: Vec::new(),
            signed: Vec::new(),
            jwt: Vec::new(),
        }
    }
}

/// What a second publisher of a busy stream meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DuplicatePublish {
    /// The newcomer is refused.
    Reject,
    /// The newcomer takes over if it is the same publisher come back (same user where known, else same
    /// address and same query), and is refused otherwise.
    #[default]
    TakeoverSameIdentity,
    /// The newcomer takes over.
    Takeover,
}

/// `[admission.limits]`: they hold exactly, over all shards. 0 is off. Publishers and players are counted apart, so
/// that players never keep a publisher out. As soon as one limit is on, every player is asked about at control,
/// which costs it a round trip between two threads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Sessions of one user, who is known from a token or a back end; a back end's own number wins.
    pub sessions_per_user: u32,
    /// Sessions with the same token; without a token rule that is the same query.
    pub sessions_per_token: u32,
    /// Sessions from one address, which is an IPv4 address or an IPv6 /64.
    pub sessions_per_address: u32,
    /// Players of one stream.
    pub sessions_per_stream: u32,
    /// Sessions on one app.
    pub sessions_per_app: u32,
    /// Sessions of the whole server.
    pub sessions_per_server: u32,
    /// What a newcomer meets at one of these limits; a back end's own word wins.
    pub at_limit: AtLimit,
    /// Bits a second that all players of one stream together may take. A newcomer is refused when its expected
    /// share goes beyond; whoever plays already is left alone.
    pub egress_bps_per_stream: u64,
    /// The same for one app.
    pub egress_bps_per_app: u64,
    /// The same for the whole server.
    pub egress_bps_per_server: u64,
    /// What a player is expected to take while its stream has not been measured.
    pub egress_bps_expected: u64,
    /// The longest that a session may last; a back end's own word wins.
    #[serde(with = "units::duration")]
    pub duration_max: Duration,
    /// The most that a publisher may send in bits a second; a back end's own word wins. It is warned about after
    /// 10 s above, and closed after a minute.
    pub publish_bps_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_per_user: 0,
            sessions_per_token: 0,
            sessions_per_address: 0,
            sessions_per_stream: 0,
            sessions_per_app: 0,
            sessions_per_server: 0,
            at_limit: AtLimit::RejectNew,
            egress_bps_per_stream: 0,
            egress_bps_per_app: 0,
            egress_bps_per_server: 0,
            egress_bps_expected: 4_000_000,
            duration_max: Duration::ZERO,
            publish_bps_max: 0,
        }
    }
}

/// One of `[[admission.rules]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressRule {
    /// What it says.
    pub effect: Effect,
    /// Addresses it holds for; without any, all.
    #[serde(default)]
    pub networks: Vec<IpNet>,
    /// The listener it holds for; `0.0.0.0` and `[::]` are any address with that port.
    #[serde(default)]
    pub listener: Option<SocketAddr>,
    /// Apps it holds for; without any, all.
    #[serde(default)]
    pub apps: Vec<AppPattern>,
    /// Kinds it holds for; without any, publish and play.
    #[serde(default)]
    pub kinds: Vec<Kind>,
}

/// What an address rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The address is fine. Token rules and hooks are asked as always; where there is none, they may.
    Allow,
    /// They may, and no token rule or hook is asked. Limits hold.
    Trust,
    /// They may not.
    Deny,
}

/// What follows a valid token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It is the whole answer.
    #[default]
    Allow,
    /// The hook of the app is asked as well, where there is one; both must say yes.
    Hook,
}

/// One of `[[admission.keys]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRule {
    /// The keys, any of which will do: several let one be replaced without a gap.
    pub keys: Vec<Secret>,
    /// Where the key stands in the query.
    #[serde(default = "key_parameter")]
    pub parameter: String,
    /// Who comes with it.
    #[serde(default)]
    pub user: String,
    /// Apps it holds for; without any, all.
    #[serde(default)]
    pub apps: Vec<AppPattern>,
    /// Kinds it holds for; without any, publish and play.
    #[serde(default)]
    pub kinds: Vec<Kind>,
    /// What follows.
    #[serde(default)]
    pub then: Then,
}

/// One of `[[admission.signed]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedRule {
    /// The secrets, any of which will do: several let one be replaced without a gap.
    pub secrets: Vec<Secret>,
    /// True when a session ends as its URL expires, and not only can no longer be opened.
    #[serde(default = "yes")]
    pub ends_session: bool,
    /// Apps it holds for; without any, all.
    #[serde(default)]
    pub apps: Vec<AppPattern>,
    /// Kinds it holds for; without any, publish and play.
    #[serde(default)]
    pub kinds: Vec<Kind>,
    /// What follows.
    #[serde(default)]
    pub then: Then,
}

/// One of `[[admission.jwt]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtRule {
    /// Where the token stands in the query.
    #[serde(default = "token_parameter")]
    pub parameter: String,
    /// Secrets for HS256, HS384 and HS512.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Public keys as PEM text, for RS, PS, ES and `EdDSA`.
    #[serde(default)]
    pub public_keys: Vec<String>,
    /// A file with a key set (RFC 7517), read at start and again every `jwks_refresh`.
    #[serde(default)]
    pub jwks_file: String,
    /// Where to fetch a key set, at start, every `jwks_refresh`, and when a token names an unknown key. Without user and
    /// password.
    #[serde(default)]
    pub jwks_url: String,
    /// How often a key set is read again.
    #[serde(default = "ten_minutes", with = "units::duration")]
    pub jwks_refresh: Duration,
    /// What `iss` must be; empty is anything.
    #[serde(default)]
    pub issuer: String,
    /// What `aud` must hold one of. Without any, a token that names an audience is refused (RFC 7519 §4.1.3).
    #[serde(default)]
    pub audience: Vec<String>,
    /// True when a token must say in `stream` for which streams it is.
    #[serde(default)]
    pub require_stream: bool,
    /// True when a session ends as its token expires, and not only can no longer be opened.
    #[serde(default = "yes")]
    pub ends_session: bool,
    /// Apps it holds for; without any, all.
    #[serde(default)]
    pub apps: Vec<AppPattern>,
    /// Kinds it holds for; without any, publish and play.
    #[serde(default)]
    pub kinds: Vec<Kind>,
    /// What follows.
    #[serde(default)]
    pub then: Then,
}

impl Default for JwtRule {
    fn default() -> Self {
        Self {
            parameter: token_parameter(),
            secrets: Vec::new(),
            public_keys: Vec::new(),
            jwks_file: String::new(),
            jwks_url: String::new(),
            jwks_refresh: ten_minutes(),
            issuer: String::new(),
            audience: Vec::new(),
            require_stream: false,
            ends_session: true,
            apps: Vec::new(),
            kinds: Vec::new(),
            then: Then::default(),
        }
    }
}

impl JwtRule {
    /// Where its key set comes from, a URL or a path, if it names one.
    #[must_use]
    pub fn key_set(&self) -> Option<&str> {
        [&self.jwks_url, &self.jwks_file].into_iter().find(|source| !source.is_empty()).map(String::as_str)
    }
}

/// What a hook is asked about, and what holds when it cannot answer. The hooks' own settings give these to the desk in
/// the order of the configuration; the first that matches an app and a kind is the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRule {
    /// Apps it holds for; without any, all.
    pub apps: Vec<AppPattern>,
    /// Kinds it holds for; without any, publish and play.
    pub kinds: Vec<Kind>,
    /// True when a player is let in where the back end fails and nothing is remembered. A publisher never is.
    pub play_on_failure: bool,
    /// True when answers are remembered for publishers too.
    pub cache_publish: bool,
    /// True when an answer holds for one address only; else whoever comes with the same query shares it.
    pub cache_by_address: bool,
    /// How long beyond its own time an allow holds while the back end fails.
    pub stale_if_error: Duration,
    /// How often a running session is asked about again; zero is never. The back end's own word wins.
    pub recheck_every: Duration,
}

impl Default for HookRule {
    fn default() -> Self {
        Self {
            apps: Vec::new(),
            kinds: Vec::new(),
            play_on_failure: false,
            cache_publish: false,
            cache_by_address: true,
            stale_if_error: Duration::from_mins(1),
            recheck_every: Duration::ZERO,
        }
    }
}

/// Prefixes of all address rules together.
pub const PREFIXES_MAX: usize = 1_000_000;
/// Rules in each of the four lists.
pub const RULES_MAX: usize = 1_024;

impl Settings {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), SettingsError> {
        let wrong = |field: String, message: &str| Err(SettingsError::new(field, message));
        let lists = [
            ("rules", self.rules.len()),
            ("keys", self.keys.len()),
            ("signed", self.signed.len()),
            ("jwt", self.jwt.len()),
        ];
        for (list, len) in lists {
            if len > RULES_MAX {
                return wrong(format!("admission.{list}"), "there are more than 1024 of them");
            }
        }
        if self.rules.iter().map(|rule| rule.networks.len()).sum::<usize>() > PREFIXES_MAX {
            return wrong("admission.rules".into(), "they hold more than a million networks");
        }
        let kinds = self.rules.iter().map(|rule| ("rules", &rule.kinds));
        let kinds = kinds.chain(self.keys.iter().map(|rule| ("keys", &rule.kinds)));
        let kinds = kinds.chain(self.signed.iter().map(|rule| ("signed", &rule.kinds)));
        let kinds = kinds.chain(self.jwt.iter().map(|rule| ("jwt", &rule.kinds)));
        for (list, kinds) in kinds {
            if kinds.iter().any(|kind| !matches!(kind, Kind::Publish | Kind::Play)) {
                return wrong(format!("admission.{list}.kinds"), "only publish and play are asked about");
            }
        }
        for rule in &self.keys {
            check_secrets("admission.keys.keys", &rule.keys)?;
            check_parameter("admission.keys.parameter", &rule.parameter)?;
        }
        for rule in &self.signed {
            check_secrets("admission.signed.secrets", &rule.secrets)?;
        }
        for rule in &self.jwt {
            check_parameter("admission.jwt.parameter", &rule.parameter)?;
            let sources = [
                !rule.secrets.is_empty(),
                !rule.public_keys.is_empty(),
                !rule.jwks_file.is_empty(),
                !rule.jwks_url.is_empty(),
            ];
            if !sources.contains(&true) {
                let message = "it needs secrets, public_keys, jwks_file or jwks_url";
                return wrong("admission.jwt".into(), message);
            }
            if !rule.jwks_file.is_empty() && !rule.jwks_url.is_empty() {
                return wrong("admission.jwt.jwks_url".into(), "a rule has one key set: jwks_file or jwks_url");
            }
            if !(rule.jwks_url.is_empty()
                || rule.jwks_url.starts_with("https://")
                || rule.jwks_url.starts_with("http://"))
            {
                return wrong("admission.jwt.jwks_url".into(), "it begins with https:// (or http://)");
            }
            if has_user_info(&rule.jwks_url) {
                return wrong("admission.jwt.jwks_url".into(), "a user or password in a URL ends up in logs");
            }
            if rule.jwks_refresh < Duration::from_secs(10) {
                return wrong("admission.jwt.jwks_refresh".into(), "it must be at least 10 s");
            }
        }
        token::check_keys(self)
    }
}

fn check_secrets(field: &str, secrets: &[Secret]) -> Result<(), SettingsError> {
    let wrong = |message: &str| Err(SettingsError::new(field, message));
    if secrets.is_empty() {
        return wrong("it needs at least one");
    }
    if !secrets.iter().all(|secret| is_long_enough(secret.reveal())) {
        let message = format!(
            "each needs at least {SECRET_CHARS_MIN} characters (128 bits), as `openssl rand -hex 24` makes them"
        );
        return wrong(&message);
    }
    Ok(())
}

/// True when a URL names a user or a password, read as browsers and our client do: they drop control characters, and any
/// number of slashes may stand before the host, of either kind.
fn has_user_info(url: &str) -> bool {
    let plain: String = url.chars().filter(|c| !c.is_ascii_control()).collect();
    let Some((_, rest)) = plain.split_once("://") else { return false };
    let host = rest.trim_start_matches(['/', '\\']).split(['/', '\\', '?', '#']).next();
    host.is_some_and(|host| host.contains('@'))
}

fn check_parameter(field: &str, name: &str) -> Result<(), SettingsError> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')) {
        let message = "the name of a parameter is made of letters, digits, `_`, `-` and `.`";
        return Err(SettingsError::new(field, message));
    }
    Ok(())
}

fn key_parameter() -> String {
    "key".into()
}

fn token_parameter() -> String {
    "token".into()
}

fn ten_minutes() -> Duration {
    Duration::from_mins(10)
}

fn yes() -> bool {
    true
}
