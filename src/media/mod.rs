//! What is carried: frames and the little that a relay must know of codecs.

pub mod flv;
pub mod frame;

pub use frame::{Frame, FrameFlags, FrameInfo, Kept, Track};
