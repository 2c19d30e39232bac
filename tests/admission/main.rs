//! The admission room from outside: who is refused, who is let in, and for how long.

mod bans;
mod bans_model;
mod local_policy;
mod support;
