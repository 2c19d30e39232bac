//! The server itself: shards, control and API, wired together.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::sync::{oneshot, watch};

use crate::config::Config;
use crate::launch::Exit;

/// How much of a hurry there is. It only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Run.
    #[default]
    No,
    /// No new sessions; goodbyes spread over `shard.drain_timeout`; then end.
    Drain,
    /// Close every session at once, with its records; then end.
    Fast,
    /// End within a second, whatever is left.
    Now,
}

/// A server that runs on threads of its own.
pub struct Running {
    /// Where RTMP really listens (a configured port 0 has its number here).
    pub rtmp: Vec<SocketAddr>,
    /// Where the API really listens.
    pub api: SocketAddr,
    /// Shards that run.
    pub shards: usize,
    /// The one order that launch gives. The control thread holds the receiver.
    pub stop: watch::Sender<Stop>,
    /// Sent when everything has ended, in good order or not. A dropped sender is a control thread that died.
    pub ended: oneshot::Receiver<Result<(), String>>,
}

/// Why a server did not start. Nothing of it is left running.
#[derive(Debug)]
pub enum StartError {
    /// A listener could not be bound.
    Bind {
        /// The key that names it.
        key: &'static str,
        /// Where.
        at: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// An executor or a thread could not be made.
    Resource {
        /// Which.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// A defect of ours.
    Internal(String),
}

impl StartError {
    /// How the process ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Bind { error, .. } => Exit::of_bind(error),
            Self::Resource { .. } => Exit::Resource,
            Self::Internal(_) => Exit::Internal,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { key, at, error } => {
                write!(f, "{key}: cannot listen on {at}: {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => f.write_str("; another process has the port (`ss -ltnp` names it)"),
                    io::ErrorKind::AddrNotAvailable => f.write_str("; this machine has no such address"),
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; ports below 1024 need CAP_NET_BIND_SERVICE (`AmbientCapabilities=` in the unit)")
                    }
                    _ => Ok(()),
                }
            }
            Self::Resource { what, error } => write!(f, "{what}: {error}"),
            Self::Internal(what) => write!(f, "internal error at start: {what}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Starts shards, control and API, and returns when every listener is armed. The machine was probed and the log
/// runs; `config` was checked.
///
/// # Errors
/// What could not be had. Everything that was started is stopped again.
pub fn start_server(_config: Config) -> Result<Running, StartError> {
    todo!("integration")
}
