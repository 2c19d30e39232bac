//! HTTP calls that we make: *ask*, whose answer somebody waits for, and *tell*, which is retried until it is heard.
//!
//! What decides is apart from what speaks: [`reply`] reads an answer, `teller` orders what is told, `breaker` knows
//! when not to try; all three are free of sockets and take time as an argument. [`ask`] and [`tell`] drive them.

pub mod ask;
pub mod reply;
pub mod settings;
pub mod tell;
pub mod teller;

pub use ask::{Asks, Question, Why};
pub use settings::Settings;
pub use tell::{Endpoint, Spool, tell};
pub use teller::Parcel;
