//! How the ledger is.

use std::sync::Arc;
use std::time::Duration;

use crate::ledger::Earlier;

/// How the ledger is, as health, metrics and admission want to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether records reach the disk.
    pub health: Health,
    /// True while newcomers are to be refused: the ledger is degraded and `ledger.on_full` is `refuse_new`.
    pub refuse_new: bool,
    /// What went wrong last, in words; it stays until all is well again.
    pub trouble: Option<String>,
    /// How long the oldest record has been waiting.
    pub lag: Duration,
    /// When something was last committed, in milliseconds since the Unix epoch; 0 before the first commit.
    pub synced_unix_ms: u64,
    /// How long the last commit took, the flush of the disk included.
    pub sync_time: Duration,
    /// Bytes of records that wait.
    pub queue_bytes: u64,
    /// How many they may be.
    pub queue_bytes_max: u64,
    /// Session rows, attempts and tells committed.
    pub records: u64,
    /// Commits made.
    pub commits: u64,
    /// What was not recorded for want of room.
    pub dropped: Dropped,
    /// Files given up after an I/O error; each was followed by a new one.
    pub suspect_files: u64,
    /// Rows of an outbox that could not be read again when their file was given up.
    pub lost_rows: u64,
    /// Files that are open.
    pub open_files: u64,
    /// Bytes of events that wait for each sink, by its name; a sink that nothing ever waited for is left out.
    pub spools: Vec<(Arc<str>, u64)>,
    /// What earlier lives finished, where the start left some of it to be closed while the server runs.
    pub earlier: Option<Arc<Earlier>>,
}

/// Whether records reach the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// They do.
    #[default]
    Ok,
    /// They wait in memory, because the disk is full or fails.
    Degraded,
}

impl Health {
    /// The name used in APIs and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
        }
    }
}

/// What was not recorded for want of room, by what it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Counters of running sessions; the next ones make up for them.
    pub checkpoints: u64,
    /// Session events that neither open nor close.
    pub updates: u64,
    /// Refused connections.
    pub attempts: u64,
    /// Tells of weight `Update`: periodic reports. One that a newer one replaced is not counted.
    pub tells_update: u64,
    /// Tells of weight `Other`.
    pub tells_other: u64,
    /// Tells of weight `Must`; only when an opening or end was dropped.
    pub tells_must: u64,
    /// Openings. The end of such a session is still recorded.
    pub opens: u64,
    /// Ends.
    pub closes: u64,
    /// Bans and liftings of bans. They hold until the server ends, and not beyond.
    pub bans: u64,
}

impl Dropped {
    /// Each count with the name used in metric labels.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 9] {
        [
            ("checkpoint", self.checkpoints),
            ("update", self.updates),
            ("attempt", self.attempts),
            ("tell_update", self.tells_update),
            ("tell_other", self.tells_other),
            ("tell_must", self.tells_must),
            ("open", self.opens),
            ("close", self.closes),
            ("ban", self.bans),
        ]
    }
}
