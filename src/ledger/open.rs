//! Opening what is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::ledger::{FileKey, Ledger, Settings, StoredBan, Tell, Total};
use crate::names::Kind;
use crate::session::Change;
use crate::stdx::clock::WallAnchor;

/// Opens the ledger.
///
/// # Errors
/// When its folder cannot be used.
pub fn open(settings: &Settings, _wall: WallAnchor, _now: Instant) -> Result<Opened, OpenError> {
    Ok(Opened { directory: PathBuf::from(&settings.directory) })
}

/// Files opened and checked, nothing running yet.
pub struct Opened {
    directory: PathBuf,
}

/// Why the ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or a file in it cannot be used.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// What a start found of a life that did not end well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Sessions closed as `server_crash`.
    pub sessions: u64,
    /// Of those, the ones that had started.
    pub started: u64,
    /// How long it took.
    pub took: Duration,
}

/// Sums of finished sessions per collector and kind.
pub type Totals = BTreeMap<(String, Kind), Total>;

impl Opened {
    /// Closes what was running as `server_crash`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn recover(&mut self, _encode: &mut dyn FnMut(&Change) -> Vec<Tell>) -> Result<Recovered, OpenError> {
        Ok(Recovered::default())
    }

    /// What was found that the operator should know: files that cannot be read, rows that are damaged.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        &[]
    }

    /// The bans that are still in force.
    #[must_use]
    pub fn bans(&self) -> Vec<StoredBan> {
        Vec::new()
    }

    /// The sums over all files, removed ones included.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals::new()
    }

    /// Starts the thread `ledger`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(self) -> std::io::Result<Ledger> {
        Ok(Ledger::new(Files { directory: self.directory }))
    }
}

/// The day files, for whoever reads them.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
}

impl Files {
    /// Of a folder that no server of this process has open.
    #[must_use]
    pub fn offline(directory: &Path) -> Self {
        Self { directory: directory.to_path_buf() }
    }

    /// Where they are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Every file there is now, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<FileKey> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut found: Vec<FileKey> = entries.filter_map(|entry| FileKey::parse(entry.file_name().to_str()?)).collect();
        found.sort_unstable();
        found
    }
}
