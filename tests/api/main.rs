//! The HTTP API against a model made by hand: no shard runs here.
#![allow(clippy::pedantic)]

mod bans;
#[path = "../support/days.rs"]
mod days;
mod description;
#[path = "../support/desk.rs"]
mod desk;
mod events;
#[path = "../support/facts.rs"]
mod facts;
mod guard;
mod history;
mod lists;
mod orders;
mod pressure;
mod served;
