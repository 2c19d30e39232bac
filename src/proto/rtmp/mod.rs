//! RTMP (Adobe's "Real-Time Messaging Protocol" 1.0, and Enhanced RTMP v1/v2 by Veovera).
//!
//! From the wire inwards: [`handshake`], [`chunk`] (messages cut into chunks), [`amf0`] (values),
//! [`message`] (the typed messages), and on top the two engines, [`server`] and [`client`].
//! [`tag`] reads the first bytes of audio and video bodies, which is all a relay needs.

pub mod amf0;
pub mod chunk;
pub mod client;
pub mod error;
pub mod glitch;
pub mod handshake;
pub mod message;
pub mod server;
pub mod settings;
pub mod tag;

pub use error::ProtocolError;
pub use glitch::{Glitch, GlitchCounts, Glitches};
pub use settings::Settings;
