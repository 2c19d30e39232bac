//! A stream's numbers at one instant.

use crate::names::StreamKey;

/// What the API shows of a stream; made by its home shard and by every shard that plays it.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamSample {
    /// Whose.
    pub key: StreamKey,
    /// Somebody publishes right now.
    pub published: bool,
    /// Players on this shard.
    pub players: usize,
    /// Four characters of the video codec, empty while unknown.
    pub video_codec: String,
    /// Four characters of the audio codec, empty while unknown.
    pub audio_codec: String,
    /// Picture size, zero while unknown.
    pub width: u32,
    /// Picture size, zero while unknown.
    pub height: u32,
    /// Pictures a second, measured from timestamps.
    pub frame_rate: f64,
    /// Audio sample rate in Hz, zero while unknown.
    pub sample_rate: u32,
    /// Audio channels, zero while unknown.
    pub channels: u32,
    /// Media bits a second over the last few seconds, measured.
    pub video_bps: u64,
    /// Media bits a second over the last few seconds, measured.
    pub audio_bps: u64,
    /// Length of the newest complete group of pictures.
    pub gop_ms: u64,
    /// Pictures in it.
    pub gop_frames: u32,
    /// Bytes held for newcomers and slow players.
    pub cache_bytes: u64,
    /// Frames pushed since the stream began here.
    pub frames: u64,
    /// Timestamp jumps that were smoothed over.
    pub discontinuities: u64,
}
