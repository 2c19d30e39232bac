//! What the HTTP API obeys.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::stdx::settings::{SECRET_CHARS_MIN, SettingsError, is_long_enough, is_varied};
use crate::stdx::units::Secret;

/// `[api]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the API listens. Off loopback it needs at least one token.
    pub listen: SocketAddr,
    /// Who may do what. Without any token, peers on loopback may do everything.
    pub tokens: Vec<Token>,
    /// Requests a second for each token (or for all of loopback together); bursts of four times that pass.
    pub rate: u32,
    /// datarhei Core's session endpoints under `/api/v3`.
    pub datarhei: Datarhei,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            tokens: Vec::new(),
            rate: 50,
            datarhei: Datarhei::default(),
        }
    }
}

impl Settings {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), SettingsError> {
        let wrong = |field: String, message: String| Err(SettingsError::new(field, message));
        for (index, entry) in self.tokens.iter().enumerate() {
            let field = format!("api.tokens[{index}].token");
            let text = entry.token.reveal();
            if !is_long_enough(text) {
                return wrong(field, format!("a token needs at least {SECRET_CHARS_MIN} characters (128 bits)"));
            }
            if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                return wrong(field, "a token is made of printable ASCII without blanks".into());
            }
            if !is_varied(text) {
                return wrong(field, "the token repeats too few characters to be random".into());
            }
            if self.tokens.iter().take(index).any(|other| other.token == entry.token) {
                return wrong(field, "the token is there twice".into());
            }
        }
        if self.tokens.is_empty() && !self.listen.ip().to_canonical().is_loopback() {
            let message =
                format!("{} is not a loopback address, so `api.tokens` needs at least one token", self.listen);
            return wrong("api.listen".into(), message);
        }
        if self.rate == 0 {
            return wrong("api.rate".into(), "the rate must be at least 1 request a second".into());
        }
        Ok(())
    }
}

/// One bearer token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The token: at least 128 bits, so at least 22 characters of base64.
    pub token: Secret,
    /// What it may do.
    pub role: Role,
}

/// What a token may do; each may what the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Read,
    /// End sessions, and ban those who come back.
    Control,
    /// Drain the server.
    Admin,
}

impl Role {
    /// The name used in the configuration and in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Control => "control",
            Self::Admin => "admin",
        }
    }
}

/// `[api.datarhei]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Datarhei {
    /// Serve it.
    pub enabled: bool,
    /// Peers in these blocks are not collected (Core's `ip_ignorelist`).
    pub ip_ignorelist: Vec<ipnet::IpNet>,
    /// Core's `max_sessions`, shown in the summary.
    pub max_sessions: u64,
    /// Core's `max_bitrate_mbit`, shown in the summary.
    pub max_bitrate_mbit: u64,
    /// Serve `/api/v3/sessions` and `/api/v3/sessions/active` too, which core-client-go's main branch calls.
    pub plural_alias: bool,
    /// Core's `CORE_RTMP_APP`: `<this>/` is taken off the front of a session's `reference`. Its default takes
    /// nothing off.
    pub rtmp_app: String,
}

impl Default for Datarhei {
    fn default() -> Self {
        Self {
            enabled: true,
            ip_ignorelist: vec![
                ipnet::IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::LOCALHOST, 32)),
                ipnet::IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128)),
            ],
            max_sessions: 0,
            max_bitrate_mbit: 0,
            plural_alias: false,
            rtmp_app: "/".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ap_02_off_loopback_needs_a_token_of_128_bits() {
        let off = |tokens: &[&str]| {
            let tokens = tokens.iter().map(|text| Token { token: Secret::new((*text).into()), role: Role::Read });
            Settings { listen: ([0, 0, 0, 0], 8081).into(), tokens: tokens.collect(), ..Settings::default() }.check()
        };
        assert_eq!(Settings::default().check(), Ok(()));
        assert_eq!(off(&[]).unwrap_err().field, "api.listen");
        assert_eq!(off(&["0123456789abcdefghijk"]).unwrap_err().field, "api.tokens[0].token");
        assert_eq!(off(&["aaaaaaaaaaaaaaaaaaaaaaaaaaaa"]).unwrap_err().field, "api.tokens[0].token");
        assert_eq!(
            off(&["0123456789abcdefghijkl", "0123456789 abcdefghijkl"]).unwrap_err().field,
            "api.tokens[1].token"
        );
        assert_eq!(off(&["0123456789abcdefghijkl"]), Ok(()));
        let twice = off(&["0123456789abcdefghijkl", "0123456789abcdefghijkl"]).unwrap_err();
        assert!(!twice.to_string().contains("0123456789"), "a message shows a secret");
    }
}
