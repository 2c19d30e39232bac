//! The durable record of sessions.
//!
//! [`open`] opens the files of earlier days and takes the lock; [`Opened::recover_for`] closes what a crash left open, or
//! some of it; [`Opened::start_recovering`] starts the thread that writes, and that closes the rest first. From then on [`Ledger`] is how control speaks to it: nothing of it
//! waits for a disk. What is to be told of an event is committed in the same transaction as the event, and nobody hears
//! of anything above [`Ledger::committed`].
//!
//! `queue` says what waits and what may be lost, `writer` commits it, one `transaction` for each file, `store` knows the
//! files, `row` a session's row, `online` the streams that are, `tells` the rows of an outbox, which `outbox` reads for sinks, `recover` closes what
//! a crash left open, `retention` removes old days, and [`verify`] looks for damage.

mod day;
mod entry;
mod handle;
pub mod history;
mod online;
mod open;
mod outbox;
mod queue;
mod recover;
mod retention;
mod row;
mod settings;
mod status;
mod store;
mod tells;
mod transaction;
pub mod verify;
mod writer;

pub use day::{Day, FileKey};
pub use entry::{Earlier, Entry, OutboxRow, StoredBan, Tell, Total};
pub use handle::Ledger;
pub use open::{Opened, open};
pub use recover::{Encode, Recovered, Totals};
pub use retention::vacuum;
pub use settings::{OnFull, Settings};
pub use status::{Dropped, Health, Status};
pub use store::{FileError, Files, LOCK_FILE, Obstacle, Point};

/// The schema of a day file.
pub const DAY_SCHEMA: &str = include_str!("schema.sql");
