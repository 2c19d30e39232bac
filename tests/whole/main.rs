//! The whole server with back ends, receivers, a ledger and real peers: who may, who is told, and what is on record.
#![allow(clippy::pedantic)]

#[path = "../support/facts.rs"]
mod facts;
#[path = "../support/mod.rs"]
mod support;

mod admitted;
mod banned;
mod crowded;
mod failing_back_end;
mod killed;
mod limited;
mod looked_up;
mod redirected;
mod tokens;
mod told;
mod unrecorded;
