//! What std lacks; nothing about streaming may enter.

pub mod ahead;
pub mod clock;
pub mod histogram;
pub mod ids;
pub mod remote;
pub mod settings;
pub mod units;
pub mod words;
