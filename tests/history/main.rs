//! The history against day files made by hand.
#![allow(clippy::pedantic)]

mod asking;
#[path = "../support/days.rs"]
mod days;
mod model;
mod pages;
mod sums;

use std::sync::Arc;

use sluicegate::ledger::Files;
use sluicegate::ledger::history::Reader;
use tempfile::TempDir;

/// 2026-11-20T00:00:00Z.
const DAY: u64 = 1_795_132_800_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 86_400_000;

/// A folder with these rows, and a reader of it.
fn ledger(rows: &[days::Row]) -> (TempDir, Reader) {
    let folder = tempfile::tempdir().unwrap();
    days::write(folder.path(), rows);
    let reader = Reader::patient(files(&folder));
    (folder, reader)
}

fn files(folder: &TempDir) -> Arc<Files> {
    Arc::new(Files::offline(folder.path()))
}
