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

/// What is kept of a track for newcomers. A track has at most one frame of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kept {
    /// Not kept: an ordinary frame.
    #[default]
    No,
    /// The decoder's configuration.
    Decoder,
    /// The meaning of the audio channels (Enhanced RTMP v2, `MultichannelConfig`).
    Channels,
    /// Colour and dynamic-range information (Enhanced RTMP v1, `Metadata`).
    Colour,
}

/// What the protocol's own header says beside the flags, so that the rooms behind it need not read the
/// payload again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameInfo {
    /// Four characters of the codec, `None` while unknown.
    pub codec: Option<[u8; 4]>,
    /// The track's number among those of its kind; 0 unless the stream has several.
    pub track_id: u8,
    /// Where in the payload a decoder configuration begins; 0 when the frame has none.
    pub config_offset: u16,
    /// What of it is kept for newcomers.
    pub kept: Kept,
    /// Nothing to hear or see: an empty body, a command, the end of a sequence.
    pub no_media: bool,
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
    /// What the protocol's header says beside.
    pub info: FrameInfo,
    /// The bytes as the publisher sent them: for RTMP the whole message body, tag header included.
    pub payload: Bytes,
}

impl Frame {
    /// A frame of which no more is known than its flags.
    #[must_use]
    pub fn new(track: Track, timestamp_ms: u64, flags: FrameFlags, payload: Bytes) -> Self {
        Self { track, timestamp_ms, flags, info: FrameInfo::default(), payload }
    }

    /// The codec's own configuration record within the payload, where the frame carries one.
    #[must_use]
    pub fn config(&self) -> Option<&[u8]> {
        match self.info.config_offset {
            0 => None,
            offset => self.payload.get(usize::from(offset)..).filter(|config| !config.is_empty()),
        }
    }
}
