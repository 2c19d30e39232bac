//! Our own clients, polite and hostile, against the real server over real sockets.
#![allow(clippy::pedantic)]

#[path = "../support/mod.rs"]
mod support;

mod accounting;
mod control_floods;
mod handshakes;
mod hostile;
mod hostile_commands;
mod lifecycle;
mod lying_lengths;
mod publishers;
mod shards;
mod terminate;
