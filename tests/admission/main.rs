//! The admission room from outside: who is refused, who is let in, and for how long.

mod address_rules;
mod back_end;
mod bans;
mod bans_model;
mod limits;
mod limits_model;
mod local_policy;
mod room;
mod running;
mod support;
mod tokens;
