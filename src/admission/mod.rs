//! May they: requests, decisions, bans. A decision is a function from what we know.

pub mod ban;
pub mod policy;
pub mod request;
pub mod settings;

pub use ban::{Ban, Bans};
pub use policy::Policy;
pub use request::{Decision, Request, Ticket};
pub use settings::{Access, DuplicatePublish, Settings};
