//! Real encoders and players against the real server. A peer that is missing fails the run.
#![allow(clippy::pedantic)]

#[path = "../support/mod.rs"]
mod support;

mod enhanced_rtmp;
mod ffmpeg;
mod gstreamer;
mod rtmpdump;
