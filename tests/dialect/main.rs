//! Other systems' answers, held to what was recorded of them.

mod datarhei;
#[path = "../support/desk.rs"]
mod desk;
