//! HTTP calls that we make: *ask*, whose answer somebody waits for, and *tell*, which is retried until it is heard.
//!
//! What decides is apart from what speaks: [`reply`] reads an answer, [`teller`] orders what is told, [`breaker`] knows
//! when not to try, [`webhook`] finds the words; all of them are free of sockets and take time as an argument. [`Asks`]
//! and [`tell()`] drive them.

pub mod ask;
pub mod breaker;
mod client;
pub mod fetch;
mod http;
pub mod meter;
pub mod reply;
mod resolver;
pub mod settings;
pub mod sign;
pub mod tell;
pub mod teller;
pub mod webhook;

pub use ask::{Asks, Question, Why};
pub use breaker::BreakerState;
pub use client::StartError;
pub use fetch::Fetcher;
pub use meter::{Seconds, Status};
pub use settings::Settings;
pub use tell::{Endpoint, Spool, tell};
pub use teller::Parcel;
pub use webhook::Webhook;
