//! What std lacks; nothing about streaming may enter.

pub mod clock;
pub mod ids;
pub mod units;
