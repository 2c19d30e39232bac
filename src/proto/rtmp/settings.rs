//! What the RTMP engines obey.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::stdx::units;

/// `[rtmp]`: the engine's limits. Defaults are those of the robustness catalogue §3.2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// From accept to the end of the handshake. Shorter sheds slow-loris peers sooner; longer helps
    /// encoders behind satellite links.
    #[serde(with = "units::duration")]
    pub handshake_timeout: Duration,
    /// From the handshake to an accepted `publish` or `play`.
    #[serde(with = "units::duration")]
    pub command_timeout: Duration,
    /// From an accepted publish to its first audio or video.
    #[serde(with = "units::duration")]
    pub first_media_timeout: Duration,
    /// How long a publisher may send no audio and no video.
    #[serde(with = "units::duration")]
    pub media_timeout: Duration,
    /// How long one message may take from its first chunk to its last.
    #[serde(with = "units::duration")]
    pub message_timeout: Duration,
    /// Chunk size we announce to peers. Larger costs fewer header bytes; 65,536 is the most that
    /// old Flash clients take.
    pub out_chunk_size: u32,
    /// Live chunk stream ids per connection.
    pub chunk_streams: usize,
    /// Largest AMF command message.
    #[serde(with = "units::bytes")]
    pub max_command: u64,
    /// Largest data message.
    #[serde(with = "units::bytes")]
    pub max_data: u64,
    /// Largest audio message.
    #[serde(with = "units::bytes")]
    pub max_audio: u64,
    /// Largest video message. One keyframe must fit.
    #[serde(with = "units::bytes")]
    pub max_video: u64,
    /// Bytes of unfinished messages a connection may hold before it may publish.
    #[serde(with = "units::bytes")]
    pub partial_bytes_unauthorized: u64,
    /// The same once it may publish.
    #[serde(with = "units::bytes")]
    pub partial_bytes: u64,
    /// Commands a second, sustained; bursts of twice that pass.
    pub command_rate: u32,
    /// Points that a connection may have on its score of legal but suspicious things, which forgets one a second. A
    /// server short of CPU has patience for 8.
    pub glitches_max: u32,
    /// Message streams per connection.
    pub streams_per_connection: usize,
    /// Media held while the verdict on a publish is open; then we stop reading.
    #[serde(with = "units::bytes")]
    pub verdict_buffer: u64,
    /// Smallest acknowledgement window a peer may ask of us.
    #[serde(with = "units::bytes")]
    pub window_ack_floor: u64,
    /// Acknowledgement window we announce.
    #[serde(with = "units::bytes")]
    pub window_ack_size: u64,
}

impl Settings {
    /// The same with deadlines and idle times as `patience` leaves them, and so much patience with glitches.
    #[must_use]
    pub fn pressed(&self, patience: impl Fn(Duration) -> Duration, glitches_max: u32) -> Self {
        Self {
            handshake_timeout: patience(self.handshake_timeout),
            command_timeout: patience(self.command_timeout),
            first_media_timeout: patience(self.first_media_timeout),
            media_timeout: patience(self.media_timeout),
            message_timeout: patience(self.message_timeout),
            glitches_max,
            ..self.clone()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(10),
            first_media_timeout: Duration::from_secs(20),
            media_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(30),
            out_chunk_size: 65_536,
            chunk_streams: 64,
            max_command: 64 << 10,
            max_data: 256 << 10,
            max_audio: 1 << 20,
            max_video: 8 << 20,
            partial_bytes_unauthorized: 64 << 10,
            partial_bytes: 16 << 20,
            command_rate: 50,
            glitches_max: 32,
            streams_per_connection: 8,
            verdict_buffer: 1 << 20,
            window_ack_floor: 64 << 10,
            window_ack_size: 5_000_000,
        }
    }
}
