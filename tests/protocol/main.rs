//! The RTMP engines, held to the catalogue of bad input, to independent peers and to what encoders really send.
//! Nothing here opens a socket or waits: time is an argument.

// Numbers are compared exactly because they are echoed exactly; casts and arrays here are of known sizes.
#![allow(
    clippy::float_cmp,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::large_stack_arrays
)]

mod connecting;
mod control_messages;
mod cut_sessions;
mod deadlines;
mod encoders;
mod handshaking;
mod independent_peers;
mod media_rules;
mod memory;
mod pair;
mod playing;
mod publishing;
mod support;
