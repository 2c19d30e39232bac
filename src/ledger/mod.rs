//! The durable record of sessions.

mod day;
mod entry;
pub mod history;
mod open;
mod settings;
mod status;
mod writer;

pub use day::{Day, FileKey};
pub use entry::{Entry, OutboxRow, StoredBan, Tell, Total};
pub use open::{Files, OpenError, Opened, Recovered, Totals, open};
pub use settings::{OnFull, Settings};
pub use status::{Dropped, Health, Status};
pub use writer::Ledger;
