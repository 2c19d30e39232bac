//! The headers of audio and video bodies, and the decoder configurations behind them.

use bytes::Bytes;
use sluicegate::media::{Kept, Track, describe_audio, describe_video};
use sluicegate::proto::rtmp::tag::{self, TagInfo};

/// Reads the bytes as either kind of body, whole and growing, and as a configuration of every codec.
pub fn run(data: &[u8]) {
    for (track, read) in [(Track::Audio, tag::audio as fn(&[u8]) -> TagInfo), (Track::Video, tag::video)] {
        let whole = read(data);
        check(&whole, data);
        let frame = tag::frame(track, 0, Bytes::copy_from_slice(data));
        assert_eq!((frame.flags, frame.info.codec, frame.config()), (whole.flags, whole.codec, whole.config(data)));

        // A header says the same whatever comes behind it: what is known of a head stays known.
        let mut known = TagInfo::default();
        for len in (0..data.len().min(48)).chain([data.len()]) {
            let tag = read(&data[..len]);
            check(&tag, &data[..len]);
            assert!(known.codec.is_none() || tag.codec == known.codec, "{known:?} became {tag:?} at {len}");
            assert!(!known.flags.keyframe || tag.flags.keyframe, "{known:?} became {tag:?} at {len}");
            assert!(!known.flags.sequence_header || tag == known, "{known:?} became {tag:?} at {len}");
            known = tag;
        }

        if let (Some(codec), Some(config)) = (whole.codec, whole.config(data)) {
            describe(codec, config);
        }
    }
    for codec in [*b"avc1", *b"hvc1", *b"av01", *b"vp09", *b"mp4a", *b"Opus", *b"fLaC"] {
        describe(codec, data);
    }
}

fn check(tag: &TagInfo, body: &[u8]) {
    assert!(!tag.flags.keyframe || !tag.flags.sequence_header && !tag.no_media && body.len() >= 5);
    assert!(!tag.flags.metadata, "a body cannot say so");
    assert_eq!(tag.flags.sequence_header, tag.kept == Kept::Decoder);
    assert_eq!(tag.config(body).is_some(), tag.config_offset > 0);
    assert!(usize::from(tag.config_offset) <= body.len());
    assert!(tag.codec.is_none_or(|codec| codec.iter().all(|byte| (b' '..=b'~').contains(byte))));
}

fn describe(codec: [u8; 4], config: &[u8]) {
    if let Some(format) = describe_video(codec, config) {
        assert!((1..65_535).contains(&format.width) && (1..65_535).contains(&format.height));
        assert!((0.0..=1_000.0).contains(&format.frame_rate));
    }
    if let Some(format) = describe_audio(codec, config) {
        assert!(format.channels <= 255 && format.sample_rate < 1 << 24);
    }
}
