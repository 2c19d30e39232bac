//! What the HTTP API obeys.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

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
    /// End sessions and lift bans.
    Control,
    /// Drain and reload.
    Admin,
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
        }
    }
}
