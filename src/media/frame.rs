//! A frame: one access unit of one track, as it came.

use bytes::Bytes;

/// Which kind of track a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Track {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
    /// Metadata and cue points.
    Data,
}

/// What a relay must know about a frame without decoding it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameFlags {
    /// A player may begin here (video only).
    pub keyframe: bool,
    /// Decoder configuration: kept apart and sent to every newcomer before anything else.
    pub sequence_header: bool,
    /// The stream's metadata (`onMetaData`): kept apart as well.
    pub metadata: bool,
}

/// One access unit. Cloning shares the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The kind of track.
    pub track: Track,
    /// Decode time in milliseconds on the publisher's clock, unwrapped to 64 bits.
    pub timestamp_ms: u64,
    /// What a relay must know.
    pub flags: FrameFlags,
    /// The bytes as the publisher sent them: for RTMP the whole message body, tag header included.
    pub payload: Bytes,
}
