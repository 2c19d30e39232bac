//! Frames as every player gets them.

use std::time::Instant;

use crate::media::{Frame, FrameFlags, Track};
use crate::proto::rtmp::chunk::{Reader, write_message};
use crate::proto::rtmp::message::{type_id, write_set_chunk_size};
use crate::proto::rtmp::server::PLAY_STREAM_ID;
use crate::proto::rtmp::{Settings, tag};
use crate::stream::Package;

/// How players' bytes are packaged: the same for every player, so once per frame and shard.
pub struct Packager {
    chunk_size: usize,
}

impl Packager {
    /// The packager for the chunk size that every player is told.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { chunk_size: settings.out_chunk_size as usize }
    }

    /// Makes frames of what [`package`](Package::package) made, the first of which has the timestamp `base`. Bytes that
    /// we did not package give fewer frames, never wrong ones.
    #[must_use]
    pub fn unpackage(&self, now: Instant, bytes: &[u8], base: u64) -> Vec<Frame> {
        let mut input = Vec::with_capacity(bytes.len().saturating_add(16));
        write_set_chunk_size(&mut input, u32::try_from(self.chunk_size).unwrap_or(u32::MAX));
        input.extend_from_slice(bytes);
        let mut reader = Reader::new(&Settings::default());
        reader.authorize();
        let mut messages = Vec::new();
        // What went wrong with foreign bytes does not matter: the list ends there.
        let _ = reader.handle(now, &input, &mut messages);
        let frames = messages.into_iter().filter_map(|message| {
            // The wire has 32 bits of the timestamp: count on from the first.
            let since = (message.timestamp_ms & 0xffff_ffff).wrapping_sub(base & 0xffff_ffff) & 0xffff_ffff;
            let timestamp_ms = base.saturating_add(since);
            match message.type_id {
                type_id::AUDIO => Some(tag::frame(Track::Audio, timestamp_ms, message.payload)),
                type_id::VIDEO => Some(tag::frame(Track::Video, timestamp_ms, message.payload)),
                type_id::DATA_AMF0 => {
                    Some(Frame::new(Track::Data, timestamp_ms, FrameFlags::default(), message.payload))
                }
                _ => None,
            }
        });
        frames.collect()
    }
}

impl Package for Packager {
    fn package(&self, frame: &Frame, out: &mut Vec<u8>) {
        let (chunk_stream, type_id) = match frame.track {
            Track::Audio => (4, type_id::AUDIO),
            Track::Video => (6, type_id::VIDEO),
            Track::Data => (5, type_id::DATA_AMF0),
        };
        let stream_id = PLAY_STREAM_ID;
        write_message(out, self.chunk_size, chunk_stream, type_id, stream_id, frame.timestamp_ms, &frame.payload);
    }
}
