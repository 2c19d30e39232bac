//! Our own clients, polite and hostile, against the real server over real sockets.
#![allow(clippy::pedantic)]

#[path = "../support/mod.rs"]
mod support;

mod accounting;
mod blocked_log;
mod bursts;
mod comings_and_goings;
mod control_floods;
mod handshakes;
mod hostile;
mod hostile_commands;
mod lifecycle;
mod limits;
mod listing;
mod load;
mod lying_lengths;
mod media_floods;
mod memory;
mod publishers;
mod reloading;
mod shards;
mod terminate;
mod verdicts;
