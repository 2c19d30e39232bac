//! The RTMP engines, held to the catalogue of bad input, to independent peers and to what encoders really send.
//! Nothing here opens a socket or waits: time is an argument.

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
