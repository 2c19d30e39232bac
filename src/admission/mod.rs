//! May they: requests, decisions, bans, tokens, limits. A decision is a function from what we know.

pub mod address;
pub mod answer;
pub mod ban;
pub mod bitrate;
pub mod cache;
pub mod desk;
pub mod gate;
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
pub mod verdict;

pub use answer::{Answer, Failure, Terms};
pub use ban::{Ban, Bans, Whom};
pub use desk::{Action, AskId, Counts, Desk, EgressScope, Held, Measured, Note, Why};
pub use gate::Gate;
pub use pattern::AppPattern;
pub use policy::Policy;
pub use request::{Decision, Request, Ticket};
pub use settings::{Access, DuplicatePublish, HookRule, Settings, SettingsError};
pub use verdict::{AtLimit, Grant, Refusal, Verdict};
