//! Wires the rooms and runs them; the command line around it.
//!
//! [`cli`] reads the arguments. [`run`] loads, checks the machine, starts the server ([`server::start_server`]),
//! says where it is and waits for signals; [`reload`] reads the configuration again. [`check`] is the same without
//! starting. [`sessions`], [`kick`] and [`order`] are clients of a running server's API; [`ledger`] looks at the files of
//! one; [`demo`] is a server with its own publisher and players.

pub mod check;
pub mod cli;
pub mod client;
pub mod demo;
pub mod exit;
pub mod export;
mod keys;
pub mod kick;
pub mod ledger;
pub mod log;
pub mod order;
mod record;
pub mod reload;
pub mod run;
pub mod server;
pub mod sessions;
pub mod table;

pub use exit::Exit;
pub use server::{Running, StartError, Stop, start_server};
