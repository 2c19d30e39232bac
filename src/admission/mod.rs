//! May they: requests, decisions, bans, tokens, limits. A decision is a function from what we know.

pub mod address;
pub mod answer;
pub mod ban;
pub mod desk;
pub mod gate;
pub mod pattern;
pub mod policy;
pub mod request;
pub mod settings;
pub mod token;
pub mod verdict;

pub use answer::{Answer, Failure, Terms};
pub use ban::{Ban, Bans, Whom};
pub use desk::{Action, AskId, Counts, Desk, EgressScope, Measured, Note, Why};
pub use gate::Gate;
pub use pattern::AppPattern;
pub use policy::Policy;
pub use request::{Decision, Request, Ticket};
pub use settings::{Access, DuplicatePublish, HookRule, Settings, SettingsError};
pub use verdict::{AtLimit, Grant, Refusal, Verdict};
