//! Who is here: facts, state, counters, the table, the snapshot.
//!
//! A session is one peer in one role on one stream, from first contact to close, over however many
//! connections. Sessions know nothing of engines, streams, HTTP or JSON.

pub mod counters;
pub mod facts;
pub mod reason;
pub mod snapshot;
pub mod state;
pub mod table;

pub use counters::Counters;
pub use facts::{Facts, Identity, Labels};
pub use reason::{CloseReason, Reason, Side};
pub use snapshot::SessionSample;
pub use state::{State, Transition, Trigger, diagram, transition};
pub use table::{Change, SessionKey, Table, What};
