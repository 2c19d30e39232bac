//! May they: requests, decisions, bans, tokens, limits. A decision is a function from what we know.

pub mod address;
pub mod answer;
pub mod ban;
pub mod bitrate;
pub mod cache;
pub mod desk;
pub mod gate;
pub mod load;
// What strangers send is read here: no indexing, unwrapping, panicking or overflowing.
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
pub mod pattern;
pub mod policy;
pub mod rate;
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
pub mod redirect;
pub mod request;
pub mod seats;
pub mod settings;
pub mod sources;
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
pub mod token;
pub mod types;
pub mod verdict;

pub use answer::{Answer, Failure, Terms};
pub use ban::{Ban, Bans, Whom};
pub use desk::{Action, AskId, Counts, Desk, EgressScope, Held, Measured, Note, Why};
pub use gate::Gate;
pub use load::{Load, LoadState};
pub use pattern::AppPattern;
pub use policy::Policy;
pub use rate::Rate;
pub use request::{Decision, Request, Ticket};
pub use settings::{Access, DuplicatePublish, HookRule, Settings};
pub use sources::Sources;
pub use types::SessionTypes;
pub use verdict::{AtLimit, Grant, Refusal, Verdict};
