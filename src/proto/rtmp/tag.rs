//! The first bytes of an audio or video body (FLV tag headers, Enhanced RTMP v1/v2): keyframe or
//! not, configuration or not, which codec.

use crate::media::FrameFlags;

/// What the first bytes of a body say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagInfo {
    /// Keyframe, sequence header.
    pub flags: FrameFlags,
    /// Four characters: `avc1`, `hvc1`, `av01`, `vp09`, `mp4a`, `Opus`, `fLaC`, `ac-3`, `ec-3`, `.mp3`;
    /// legacy codecs without one have their FLV id as `v002`, `a011` and so on; `None` for a body too short to tell.
    pub codec: Option<[u8; 4]>,
    /// Multitrack (Enhanced RTMP v2): the first track's id, and whether more follow.
    pub track_id: u8,
    /// True when the body has several tracks.
    pub multitrack: bool,
    /// Nothing to show: empty body, command frame, end-of-sequence, metadata (colour info).
    pub no_media: bool,
}

/// Reads a video body's header.
#[must_use]
pub fn video(_body: &[u8]) -> TagInfo {
    todo!("H4")
}

/// Reads an audio body's header.
#[must_use]
pub fn audio(_body: &[u8]) -> TagInfo {
    todo!("H4")
}
