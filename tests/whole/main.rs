//! The whole server with back ends, receivers, a ledger and real peers: who may, who is told, and what is on record.
#![allow(clippy::pedantic)]

#[path = "../support/mod.rs"]
mod support;

mod admitted;
mod killed;
mod limited;
mod tokens;
mod told;
