//! Our own clients, polite and hostile, against the real server over real sockets.
#![allow(clippy::pedantic)]

#[path = "../support/mod.rs"]
mod support;

mod accounting;
mod hostile;
mod lifecycle;
mod limits;
mod load;
mod publishers;
mod shards;
mod terminate;
