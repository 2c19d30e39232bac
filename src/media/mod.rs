//! What is carried: frames and the little that a relay must know of codecs.

mod aac;
mod av1;
mod avc;
mod bits;
mod flac;
pub mod flv;
pub mod format;
pub mod frame;
mod hevc;
mod opus;

pub use format::{AudioFormat, VideoFormat, describe_audio, describe_video};
pub use frame::{Frame, FrameFlags, FrameInfo, Kept, Track};
