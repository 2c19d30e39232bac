//! May they: requests, decisions, bans, limits. A decision is a function from what we know.

pub mod ban;
pub mod load;
pub mod policy;
pub mod rate;
pub mod request;
pub mod settings;
pub mod sources;
pub mod types;

pub use ban::{Ban, Bans};
pub use load::{Load, LoadState};
pub use policy::Policy;
pub use rate::Rate;
pub use request::{Decision, Request, Ticket};
pub use settings::{Access, DuplicatePublish, Settings};
pub use sources::Sources;
pub use types::SessionTypes;
