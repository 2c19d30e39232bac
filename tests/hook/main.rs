//! The hook room from outside: what an answer means, how a back end is asked, and in which order a receiver is told.
#![allow(clippy::pedantic)]

mod answers;
mod asking;
mod documents;
mod fetching;
mod order;
mod outage;
mod receivers;
mod support;
mod telling;
