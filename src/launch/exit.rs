//! How the process ends, in the codes of `sysexits.h` that supervisors know.

use std::io;
use std::process::ExitCode;

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As asked.
    Clean,
    /// Something was wrong that has no code of its own: usage, a server that is not there, nothing that matched.
    Failed,
    /// A defect of ours.
    Internal,
    /// The operating system refused a resource.
    Resource,
    /// It may work later: the port is busy.
    Temporary,
    /// The configuration or the machine's settings must be changed first.
    Configuration,
}

impl Exit {
    /// The number that the process ends with.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Failed => 1,
            Self::Internal => 70,
            Self::Resource => 71,
            Self::Temporary => 75,
            Self::Configuration => 78,
        }
    }

    /// How a start ends that could not bind a listener.
    #[must_use]
    pub fn of_bind(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::Temporary,
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::PermissionDenied => Self::Configuration,
            _ => Self::Resource,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
