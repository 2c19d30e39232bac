//! Sluicegate: a live-streaming edge that knows exactly who publishes and who watches.
//!
//! The map of the house. Each module is a room whose name answers a question; a room may name
//! rooms on earlier rows and none on its own row (`tests/house/layers.rs` keeps it so).
//!
//! ```text
//!  0  stdx  names          what std lacks; identifiers everyone shares
//!  1  media                what is carried
//!  2  proto session stream how it is spoken; who is here; what flows
//!  3  admission            may they
//!  4  event                what happened
//!  5  adapter              an engine tied to session, stream and admission
//! ~~~ the waterline: above it nothing opens a socket, reads a clock or names the runtime
//!  6  io                   sockets and listeners on io_uring
//!  7  shard                one core: its state, its mail, its pump, its executor
//!     hook                 HTTP calls we make: ask and tell
//!     ledger               the durable record of sessions
//!  8  control              the one place that sees all shards
//!  9  metrics              the same view, rendered for scraping
//! 10  api                  what we say over HTTP
//! 11  config               loads and checks
//! 12  launch  main         wire the rooms, run
//! ```

pub mod names;
pub mod stdx;

// Rooms that read what strangers send may not index, unwrap, panic or overflow.
#[cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::string_slice,
        clippy::arithmetic_side_effects
    )
)]
pub mod media;

#[cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::string_slice,
        clippy::arithmetic_side_effects
    )
)]
pub mod proto;
pub mod session;
pub mod stream;

pub mod admission;

pub mod event;

#[cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::string_slice
    )
)]
pub mod adapter;

pub mod io;

pub mod shard;

#[cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::string_slice
    )
)]
pub mod hook;
pub mod ledger;

pub mod control;

pub mod metrics;

pub mod api;

pub mod config;

pub mod launch;
