//! Other systems' answers, held to what was recorded of them.
#![allow(clippy::pedantic)]

mod datarhei;
#[path = "../support/desk.rs"]
mod desk;
#[path = "../support/facts.rs"]
mod facts;
