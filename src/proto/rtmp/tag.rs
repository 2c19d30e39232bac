//! The first bytes of an audio or video body (FLV tag headers, Enhanced RTMP v1/v2): keyframe or
//! not, configuration or not, which codec.
//!
//! A relay needs no more than this of a body, and reads no more. Nothing here fails: a body that is
//! too short to tell has no flags and is passed on as it is, for the player to make of it what it can.
//! Frame and packet types mean the same for every codec, so a codec that we have never heard of still
//! gets its keyframes marked, without which nobody could begin to watch it.

use bytes::Bytes;

use crate::media::{Frame, FrameFlags, FrameInfo, Kept, Track};

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
    /// What of this body a newcomer needs before media.
    pub kept: Kept,
    /// Where the first track's configuration record begins in the body; 0 when there is none.
    pub config_offset: u16,
}

impl TagInfo {
    /// The first track's configuration record (`avcC`, `hvcC`, `av1C`, `AudioSpecificConfig`, …) in the
    /// body that this was read from.
    #[must_use]
    pub fn config<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        match self.config_offset {
            0 => None,
            offset => body.get(usize::from(offset)..).filter(|config| !config.is_empty()),
        }
    }

    /// The part that travels with the frame.
    #[must_use]
    pub fn info(&self) -> FrameInfo {
        FrameInfo {
            codec: self.codec,
            track_id: self.track_id,
            config_offset: self.config_offset,
            kept: self.kept,
            no_media: self.no_media,
        }
    }
}

/// `onMetaData` as an AMF0 string.
const ON_METADATA: &[u8] = b"\x02\x00\x0aonMetaData";

/// True for a data message that says what the whole stream is: size, codecs, bitrates. Other data messages belong to
/// their time.
#[must_use]
pub fn is_metadata(body: &[u8]) -> bool {
    body.starts_with(ON_METADATA)
}

/// A whole message body as a frame, its header read. A data message is metadata only if the caller,
/// who can read it, says so afterwards.
#[must_use]
pub fn frame(track: Track, timestamp_ms: u64, body: Bytes) -> Frame {
    let tag = match track {
        Track::Audio => audio(&body),
        Track::Video => video(&body),
        Track::Data => TagInfo::default(),
    };
    Frame { track, timestamp_ms, flags: tag.flags, info: tag.info(), payload: body }
}

/// Reads a video body's header (FLV 10.1 annex E.4.3.1, Enhanced RTMP v2 `ExVideoTagHeader`).
#[must_use]
pub fn video(body: &[u8]) -> TagInfo {
    let mut reader = Reader::new(body);
    reader.video().unwrap_or(NOTHING)
}

/// Reads an audio body's header (FLV 10.1 annex E.4.2.1, Enhanced RTMP v2 `ExAudioTagHeader`).
#[must_use]
pub fn audio(body: &[u8]) -> TagInfo {
    let mut reader = Reader::new(body);
    reader.audio().unwrap_or(NOTHING)
}

/// What a body too short for its own header is.
const NOTHING: TagInfo = TagInfo {
    flags: FrameFlags { keyframe: false, sequence_header: false, metadata: false },
    codec: None,
    track_id: 0,
    multitrack: false,
    no_media: true,
    kept: Kept::No,
    config_offset: 0,
};

/// Video frame types.
mod frame_type {
    pub(super) const KEY: u8 = 1;
    /// Made by a server out of inter frames; a decoder may begin there as well.
    pub(super) const GENERATED_KEY: u8 = 4;
    pub(super) const COMMAND: u8 = 5;
}

/// Packet types of the enhanced headers. Audio and video share the numbers that we look at, but for 4 and
/// the multitrack one.
mod packet_type {
    pub(super) const SEQUENCE_START: u8 = 0;
    pub(super) const CODED_FRAMES: u8 = 1;
    pub(super) const SEQUENCE_END: u8 = 2;
    pub(super) const VIDEO_METADATA: u8 = 4;
    pub(super) const AUDIO_MULTICHANNEL_CONFIG: u8 = 4;
    pub(super) const AUDIO_MULTITRACK: u8 = 5;
    pub(super) const VIDEO_MPEG2TS_SEQUENCE_START: u8 = 5;
    pub(super) const VIDEO_MULTITRACK: u8 = 6;
    pub(super) const MOD_EX: u8 = 7;
}

/// Legacy audio format ids.
mod sound_format {
    pub(super) const MP3: u8 = 2;
    pub(super) const EX_HEADER: u8 = 9;
    pub(super) const AAC: u8 = 10;
}

/// The high bit of the first byte of a video body: an enhanced header follows.
const VIDEO_EX_HEADER: u8 = 0x80;

/// One track in the message, its size not stated.
const MULTITRACK_ONE: u8 = 0;
/// Several tracks, each of its own codec.
const MULTITRACK_MANY_CODECS: u8 = 2;

/// A sender has one or two modifiers to say; a chain longer than this says nothing.
const MOD_EX_MAX: usize = 16;

struct Reader<'a> {
    body: &'a [u8],
    rest: &'a [u8],
}

/// How the payload of an enhanced header is laid out.
struct Enhanced {
    packet_type: u8,
    codec: Option<[u8; 4]>,
    track_id: u8,
    multitrack: bool,
}

impl<'a> Reader<'a> {
    fn new(body: &'a [u8]) -> Self {
        Self { body, rest: body }
    }

    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.rest = self.rest.get(count..)?;
        Some(())
    }

    /// How much has been read; 0, which means "nowhere", when a chain of modifiers has carried it so far out
    /// that no configuration can be meant.
    fn offset(&self) -> u16 {
        u16::try_from(self.body.len().saturating_sub(self.rest.len())).unwrap_or(0)
    }

    fn video(&mut self) -> Option<TagInfo> {
        let first = self.u8()?;
        let frame_type = (first >> 4) & 0x07;
        let is_key = matches!(frame_type, frame_type::KEY | frame_type::GENERATED_KEY);
        if first & VIDEO_EX_HEADER == 0 {
            return Some(self.legacy_video(first & 0x0f, frame_type, is_key));
        }
        let packet_type = self.mod_ex(first & 0x0f)?;
        if frame_type == frame_type::COMMAND && packet_type != packet_type::VIDEO_METADATA {
            return Some(NOTHING);
        }
        let header = self.enhanced(packet_type, packet_type::VIDEO_MULTITRACK)?;
        let mut tag = TagInfo {
            codec: header.codec,
            track_id: header.track_id,
            multitrack: header.multitrack,
            ..TagInfo::default()
        };
        match header.packet_type {
            packet_type::SEQUENCE_START | packet_type::VIDEO_MPEG2TS_SEQUENCE_START => {
                // The descriptor of an MPEG-2 transport stream is kept, but it is no `av1C`.
                let is_record = header.packet_type == packet_type::SEQUENCE_START;
                self.set_sequence_header(&mut tag, is_record);
            }
            packet_type::SEQUENCE_END => tag.no_media = true,
            packet_type::VIDEO_METADATA => {
                tag.no_media = true;
                tag.kept = Kept::Colour;
            }
            packet_type => {
                // Only these codecs have pictures out of order, hence a composition time of 24 bits.
                let has_composition_time = packet_type == packet_type::CODED_FRAMES
                    && matches!(header.codec.as_ref(), Some(b"avc1" | b"hvc1" | b"vvc1"));
                let header_bytes = if has_composition_time { 3 } else { 0 };
                tag.no_media = self.rest.len() <= header_bytes;
                tag.flags.keyframe = is_key && !tag.no_media;
            }
        }
        Some(tag)
    }

    fn legacy_video(&mut self, codec_id: u8, frame_type: u8, is_key: bool) -> TagInfo {
        // 12 and 13 are the ids that Chinese CDNs and encoders gave HEVC and AV1 before there was an enhanced
        // header; both borrow the layout of AVC.
        let (codec, is_avc_like) = match codec_id {
            7 => (*b"avc1", true),
            12 => (*b"hvc1", true),
            13 => (*b"av01", true),
            id => (legacy_name(b'v', id), false),
        };
        let mut tag = TagInfo { codec: Some(codec), ..TagInfo::default() };
        if frame_type == frame_type::COMMAND {
            tag.no_media = true;
            return tag;
        }
        if !is_avc_like {
            tag.no_media = self.rest.is_empty();
            // A body of less than five bytes is no picture of any codec; a player must not begin with it.
            tag.flags.keyframe = is_key && self.rest.len() >= 4;
            return tag;
        }
        // AVCPacketType and CompositionTime.
        let Some([packet_type, _, _, _]) = self.array::<4>() else {
            tag.no_media = true;
            return tag;
        };
        match packet_type {
            0 => self.set_sequence_header(&mut tag, true),
            1 => {
                tag.no_media = self.rest.is_empty();
                tag.flags.keyframe = is_key && !tag.no_media;
            }
            _ => tag.no_media = true,
        }
        tag
    }

    fn audio(&mut self) -> Option<TagInfo> {
        let first = self.u8()?;
        match first >> 4 {
            sound_format::EX_HEADER => self.enhanced_audio(first & 0x0f),
            sound_format::AAC => {
                let mut tag = TagInfo { codec: Some(*b"mp4a"), ..TagInfo::default() };
                match self.u8() {
                    Some(0) => self.set_sequence_header(&mut tag, true),
                    _ => tag.no_media = self.rest.is_empty(),
                }
                Some(tag)
            }
            format => {
                let codec = match format {
                    sound_format::MP3 => *b".mp3",
                    id => legacy_name(b'a', id),
                };
                Some(TagInfo { codec: Some(codec), no_media: self.rest.is_empty(), ..TagInfo::default() })
            }
        }
    }

    fn enhanced_audio(&mut self, packet_type: u8) -> Option<TagInfo> {
        let packet_type = self.mod_ex(packet_type)?;
        let header = self.enhanced(packet_type, packet_type::AUDIO_MULTITRACK)?;
        let mut tag = TagInfo {
            codec: header.codec,
            track_id: header.track_id,
            multitrack: header.multitrack,
            ..TagInfo::default()
        };
        match header.packet_type {
            packet_type::SEQUENCE_START => self.set_sequence_header(&mut tag, true),
            packet_type::SEQUENCE_END => tag.no_media = true,
            packet_type::AUDIO_MULTICHANNEL_CONFIG => {
                tag.no_media = true;
                tag.kept = Kept::Channels;
            }
            _ => tag.no_media = self.rest.is_empty(),
        }
        Some(tag)
    }

    /// An empty configuration, as some encoders send before they have one, is nothing to keep.
    fn set_sequence_header(&self, tag: &mut TagInfo, is_record: bool) {
        if self.rest.is_empty() {
            tag.no_media = true;
            return;
        }
        tag.flags.sequence_header = true;
        tag.kept = Kept::Decoder;
        if is_record {
            tag.config_offset = self.offset();
        }
    }

    /// Skips the modifiers in front of a packet (`ModEx`); returns the type of the packet behind them.
    fn mod_ex(&mut self, mut packet_type: u8) -> Option<u8> {
        for _ in 0..MOD_EX_MAX {
            if packet_type != packet_type::MOD_EX {
                return Some(packet_type);
            }
            // One byte holds a size of 1 to 255; 255 in it says that the size is in the two bytes that follow.
            let size = match self.u8()? {
                u8::MAX => usize::from(u16::from_be_bytes(self.array()?)),
                size => usize::from(size),
            };
            self.skip(size.saturating_add(1))?;
            // The modifier's own type is in the upper half.
            packet_type = self.u8()? & 0x0f;
        }
        None
    }

    /// Reads what stands between the packet type and the first track's payload.
    fn enhanced(&mut self, packet_type: u8, multitrack: u8) -> Option<Enhanced> {
        if packet_type != multitrack {
            let codec = fourcc(self.array()?);
            return Some(Enhanced { packet_type, codec, track_id: 0, multitrack: false });
        }
        let types = self.u8()?;
        let (layout, packet_type) = (types >> 4, types & 0x0f);
        // Either way the first thing that follows is a codec: of all tracks, or of the first.
        let codec = fourcc(self.array()?);
        let track_id = self.u8()?;
        let is_many = layout != MULTITRACK_ONE;
        if is_many {
            let [_, _, _] = self.array::<3>()?;
        }
        // A multitrack message in a multitrack message, modifiers inside one, or a layout that does not exist: the
        // specification rules them out, and what follows cannot be known.
        let is_known = layout <= MULTITRACK_MANY_CODECS && packet_type != multitrack;
        if !is_known || packet_type == packet_type::MOD_EX {
            return None;
        }
        Some(Enhanced { packet_type, codec, track_id, multitrack: is_many })
    }
}

/// The name is shown to people: one that cannot be printed is none. `hev1` is how some senders say `hvc1`.
fn fourcc(bytes: [u8; 4]) -> Option<[u8; 4]> {
    match &bytes {
        b"hev1" => Some(*b"hvc1"),
        bytes if bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') => Some(*bytes),
        _ => None,
    }
}

/// `v002`, `a011`: the id of an FLV codec that has no four characters of its own.
fn legacy_name(kind: u8, id: u8) -> [u8; 4] {
    let (tens, ones) = if id >= 10 { (b'1', id.wrapping_sub(10)) } else { (b'0', id) };
    [kind, b'0', tens, b'0'.wrapping_add(ones)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(tag: TagInfo) -> bool {
        tag.flags.keyframe
    }

    fn header(tag: TagInfo) -> bool {
        tag.flags.sequence_header
    }

    #[test]
    fn legacy_avc_header_keyframe_inter_and_end() {
        let sequence = [0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x28];
        let tag = video(&sequence);
        assert!(header(tag) && !key(tag) && !tag.no_media);
        assert_eq!(tag.codec, Some(*b"avc1"));
        assert_eq!(tag.config(&sequence), Some(&sequence[5..]));

        assert!(key(video(&[0x17, 1, 0, 0, 0, 9])));
        let inter = video(&[0x27, 1, 0, 0, 0, 9]);
        assert!(!key(inter) && !inter.no_media);
        assert!(key(video(&[0x47, 1, 0, 0, 0, 9])), "a generated keyframe is one");
        let end = video(&[0x17, 2, 0, 0, 0]);
        assert!(end.no_media && !key(end) && !header(end));
        assert_eq!(end.codec, Some(*b"avc1"));
        let empty = video(&[0x17, 0, 0, 0, 0]);
        assert!(empty.no_media && !header(empty), "an empty configuration is not kept");
    }

    #[test]
    fn legacy_ids_of_hevc_and_av1_are_laid_out_like_avc() {
        for (id, name) in [(12, *b"hvc1"), (13, *b"av01")] {
            let tag = video(&[0x10 | id, 0, 0, 0, 0, 1]);
            assert!(header(tag));
            assert_eq!(tag.codec, Some(name));
            assert!(key(video(&[0x10 | id, 1, 0, 0, 0, 1])));
        }
    }

    #[test]
    fn older_codecs_have_keyframes_too() {
        for (id, name) in [(2, *b"v002"), (3, *b"v003"), (4, *b"v004"), (5, *b"v005"), (6, *b"v006")] {
            let tag = video(&[0x10 | id, 1, 2, 3, 4, 5]);
            assert!(key(tag) && !header(tag), "{id}");
            assert_eq!(tag.codec, Some(name));
            assert!(!key(video(&[0x20 | id, 1, 2, 3, 4, 5])));
            assert!(!key(video(&[0x30 | id, 1, 2, 3, 4, 5])), "a disposable frame");
        }
        assert_eq!(legacy_name(b'a', 11), *b"a011");
    }

    #[test]
    fn enhanced_video_of_every_codec() {
        for name in [*b"avc1", *b"hvc1", *b"av01", *b"vp08", *b"vp09", *b"vvc1"] {
            let body = |first: u8| [&[first][..], &name, &[1, 2, 3, 4]].concat();
            let start = body(0x90);
            let tag = video(&start);
            assert!(header(tag) && !key(tag));
            assert_eq!(tag.codec, Some(name));
            assert_eq!(tag.config(&start), Some(&[1, 2, 3, 4][..]));
            assert!(key(video(&body(0x91))));
            assert!(!key(video(&body(0xa1))));
            assert!(key(video(&body(0x93))), "CodedFramesX");
            assert!(video(&body(0x92)).no_media, "SequenceEnd");
            let colour = video(&body(0x94));
            assert!(colour.no_media && !key(colour) && colour.kept == Kept::Colour);
            let ts = video(&body(0x95));
            assert!(header(ts) && ts.config_offset == 0);
            assert!(video(&[0xd1, 0]).no_media, "a command has no codec");
        }
        assert_eq!(video(b"\x90hev1\x01").codec, Some(*b"hvc1"));
    }

    #[test]
    fn composition_time_alone_is_no_picture() {
        assert!(video(b"\x91hvc1\0\0\0").no_media);
        assert!(!video(b"\x91av01\0\0\0").no_media);
    }

    #[test]
    fn multitrack_takes_the_outer_frame_type() {
        let one = [&[0x96, 0x01][..], b"hvc1", &[3], &[0, 0, 0, 9, 9]].concat();
        let tag = video(&one);
        assert!(key(tag) && !tag.multitrack);
        assert_eq!((tag.track_id, tag.codec), (3, Some(*b"hvc1")));

        let many = [&[0xa6, 0x11][..], b"av01", &[1], &[0, 0, 2], &[9, 9], &[2], &[0, 0, 1], &[9]].concat();
        let tag = video(&many);
        assert!(!key(tag) && tag.multitrack && tag.track_id == 1);

        let codecs = [&[0x96, 0x20][..], b"vp09", &[1], &[0, 0, 2], &[7, 8]].concat();
        let tag = video(&codecs);
        assert!(header(tag) && tag.multitrack);
        assert_eq!(tag.config(&codecs), Some(&[7, 8][..]));

        for nested in [0x06, 0x07, 0x31] {
            let body = [&[0x96, nested][..], b"hvc1", &[3, 0, 0, 9, 9]].concat();
            assert_eq!(video(&body), NOTHING);
        }
    }

    #[test]
    fn modifiers_are_skipped_and_bounded() {
        // A nanosecond offset of three bytes before a coded frame.
        let body = [&[0x97, 2, 1, 2, 3, 0x01][..], b"avc1", &[0, 0, 0, 9]].concat();
        assert!(key(video(&body)));
        // The two-byte size.
        let long = [&[0x97, 255, 0x01, 0x00][..], &[0; 257], &[0x03], b"avc1", &[9]].concat();
        assert!(key(video(&long)));
        // Two in a row, the same for audio.
        let two = [&[0x97, 0, 1, 0x07, 0, 1, 0x00][..], b"Opus", b"OpusHead"].concat();
        let tag = audio(&two);
        assert!(header(tag));
        assert_eq!(tag.config(&two), Some(&b"OpusHead"[..]));
        // An endless chain, a size past the end.
        let endless = [&[0x97][..], &[0, 1, 0x07].repeat(10_000)].concat();
        assert_eq!(video(&endless), NOTHING);
        assert_eq!(video(&[0x97, 255, 255, 255, 1, 2, 3]), NOTHING);
        // A configuration behind more than 64 KiB of modifiers is kept but not looked into.
        let far = [&[0x97, 255, 0xff, 0xff][..], &vec![0; 65_536], &[0x00], b"avc1", &[1]].concat();
        let tag = video(&far);
        assert!(header(tag) && tag.config(&far).is_none());
    }

    #[test]
    fn legacy_audio() {
        let sequence = [0xaf, 0, 0x12, 0x10];
        let tag = audio(&sequence);
        assert!(header(tag));
        assert_eq!(tag.codec, Some(*b"mp4a"));
        assert_eq!(tag.config(&sequence), Some(&[0x12, 0x10][..]));
        let raw = audio(&[0xaf, 1, 9]);
        assert!(!header(raw) && !raw.no_media);
        assert!(audio(&[0xaf]).no_media && audio(&[0xaf, 0]).no_media && audio(&[0xaf, 1]).no_media);
        assert_eq!(audio(&[0x2f, 1]).codec, Some(*b".mp3"));
        assert_eq!(audio(&[0xb2, 1]).codec, Some(*b"a011"));
        assert!(audio(&[0xb2]).no_media);
    }

    #[test]
    fn enhanced_audio_of_every_codec() {
        for name in [*b"Opus", *b"fLaC", *b"ac-3", *b"ec-3", *b".mp3", *b"mp4a"] {
            let body = |packet: u8| [&[0x90 | packet][..], &name, &[1, 2]].concat();
            let tag = audio(&body(0));
            assert!(header(tag) && !key(tag));
            assert_eq!(tag.codec, Some(name));
            assert!(!audio(&body(1)).no_media);
            assert!(audio(&body(2)).no_media);
            let channels = audio(&body(4));
            assert!(channels.no_media && !header(channels) && channels.kept == Kept::Channels);
        }
        let multitrack = [&[0x95, 0x00][..], b"mp4a", &[2], &[0x12, 0x10]].concat();
        let tag = audio(&multitrack);
        assert!(header(tag) && tag.track_id == 2);
        assert_eq!(tag.config(&multitrack), Some(&[0x12, 0x10][..]));
    }

    #[test]
    fn md_01_tag_of_zero_to_four_bytes_has_no_flags() {
        for first in 0..=255 {
            for len in 0..=4 {
                let body = [first, 0, 0, 0][..len].to_vec();
                let tag = video(&body);
                assert_eq!(tag.flags, FrameFlags::default(), "{body:?}");
                assert_eq!(tag.config(&body), None);
                let tag = audio(&body);
                assert!(!tag.flags.keyframe && !tag.flags.metadata);
            }
        }
        assert_eq!(video(&[]), NOTHING);
        assert_eq!(audio(&[]), NOTHING);
    }

    #[test]
    fn md_01_unknown_codec_is_relayed_with_its_keyframes() {
        let tag = video(&[0x1b, 1, 2, 3, 4, 5]);
        assert_eq!(tag.codec, Some(*b"v011"));
        assert!(key(tag) && !header(tag));
        let tag = video(b"\x91zzzz12345");
        assert_eq!(tag.codec, Some(*b"zzzz"));
        assert!(key(tag));
        assert_eq!(video(b"\x91\0\xff\n\x1b12345").codec, None, "a name that cannot be printed is none");
        assert_eq!(audio(&[0xf0, 1]).codec, Some(*b"a015"));
    }

    #[test]
    fn a_frame_carries_what_its_tag_says() {
        let frame = frame(Track::Video, 7, Bytes::from_static(&[0x17, 0, 0, 0, 0, 1, 2]));
        assert!(frame.flags.sequence_header);
        assert_eq!(frame.config(), Some(&[1, 2][..]));
        assert_eq!(super::frame(Track::Data, 7, Bytes::from_static(b"\x17\0\0\0\0\x01")).flags, FrameFlags::default());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
            for tag in [video(&body), audio(&body)] {
                prop_assert!(!(tag.flags.keyframe && tag.flags.sequence_header));
                prop_assert!(!(tag.no_media && tag.flags.keyframe));
                if tag.config_offset != 0 {
                    prop_assert!(tag.flags.sequence_header);
                    prop_assert!(tag.config(&body).is_some());
                }
            }
        }
    }
}
