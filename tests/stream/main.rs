//! The stream room on virtual time: what newcomers get, what slow players lose, what memory holds.
#![allow(missing_docs, clippy::pedantic)]

mod any_player;
mod hostile_publisher;
mod joining;
mod publisher_change;
mod slow_player;
mod support;
mod tracks_and_pause;
