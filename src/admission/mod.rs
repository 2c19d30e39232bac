//! May they: requests, decisions, bans. A decision is a function from what we know.

pub mod answer;
pub mod ban;
pub mod policy;
pub mod request;
pub mod settings;
pub mod verdict;

pub use answer::{Answer, Failure, Terms};
pub use ban::{Ban, Bans, Whom};
pub use policy::Policy;
pub use request::{Decision, Request, Ticket};
pub use settings::{Access, DuplicatePublish, Settings};
pub use verdict::{AtLimit, Grant, Refusal, Verdict};
