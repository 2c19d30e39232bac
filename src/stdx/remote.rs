//! Where somebody comes from, as people write it to choose: an address, an address with its port, or a block.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

/// One way to say where from. IPv4 addresses mapped into IPv6 count as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remote {
    /// Any port of this address.
    Address(IpAddr),
    /// This address and port.
    Socket(SocketAddr),
    /// Any address in this block.
    Block(IpNet),
}

impl Remote {
    /// True when a peer at `address` and `port` is meant.
    #[must_use]
    pub fn matches(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        match self {
            Self::Address(wanted) => *wanted == address,
            Self::Socket(wanted) => wanted.ip() == address && wanted.port() == port,
            Self::Block(block) => block.contains(&address),
        }
    }

    /// The one address that is meant, if it is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Socket(socket) => Some(socket.ip()),
            Self::Block(block) => (block.prefix_len() == block.max_prefix_len()).then(|| block.addr()),
        }
    }
}

/// A text that says no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an address (192.0.2.1), an address with port (192.0.2.1:1935, [2001:db8::1]:1935) or a block (192.0.2.0/24)"
)]
pub struct NoRemote;

impl FromStr for Remote {
    type Err = NoRemote;

    fn from_str(text: &str) -> Result<Self, NoRemote> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self::Socket(SocketAddr::new(socket.ip().to_canonical(), socket.port())));
        }
        text.parse::<IpNet>().map(|block| Self::Block(block.trunc())).map_err(|_| NoRemote)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Socket(socket) => socket.fmt(f),
            Self::Block(block) => block.fmt(f),
        }
    }
}
