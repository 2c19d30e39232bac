//! What the ledger obeys.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::stdx::units;

/// `[ledger]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The folder of the ledger's files. Empty is no ledger: nothing outlives the process, and nobody can be told of
    /// events.
    pub directory: String,
    /// How long a record may wait for others to be committed with it. Shorter lets go of events sooner, and costs a
    /// flush of the disk each time.
    #[serde(with = "units::duration")]
    pub commit_every: Duration,
    /// A commit is made as soon as so many records wait. More makes fewer and longer transactions.
    pub commit_records: usize,
    /// Memory for records that wait, also while the disk is full. More rides out a longer failure of the disk.
    #[serde(with = "units::bytes")]
    pub queue_bytes: u64,
    /// How often the counters of running sessions are recorded. Shorter loses less to a crash and writes more.
    #[serde(with = "units::duration")]
    pub checkpoint_every: Duration,
    /// Days that are kept beside today's. 0 keeps all.
    pub retain_days: u32,
    /// Bytes that all files may take; beyond it the oldest day leaves. 0 is no bound.
    #[serde(with = "units::bytes")]
    pub retain_bytes: u64,
    /// Bytes of events that may wait for one sink. Beyond it periodic updates are dropped, then the oldest of the
    /// others; starts and stops never are.
    #[serde(with = "units::bytes")]
    pub spool_bytes: u64,
    /// What newcomers meet while nothing can be recorded.
    pub on_full: OnFull,
    /// Also record connections that were refused before they became sessions.
    pub attempts: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            directory: String::new(),
            commit_every: Duration::from_millis(50),
            commit_records: 2_000,
            queue_bytes: 64 << 20,
            checkpoint_every: Duration::from_secs(5),
            retain_days: 90,
            retain_bytes: 0,
            spool_bytes: 256 << 20,
            on_full: OnFull::Continue,
            attempts: true,
        }
    }
}

/// What newcomers meet while nothing can be recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// They are served; what does not fit into memory is missing from the ledger, and counted.
    #[default]
    Continue,
    /// They are refused; those who are here stay.
    RefuseNew,
}
