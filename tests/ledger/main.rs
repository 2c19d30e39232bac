//! The ledger: what is on record, and what is left of it after full disks, failing disks, crashes and turned bits.

mod bans_and_totals;
mod damage;
mod disks;
mod files;
mod kill;
mod meanwhile;
mod outbox;
mod pressure;
mod records;
mod recovery;
mod support;
