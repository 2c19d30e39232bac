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
        let mut newest = base;
        let frames = messages.into_iter().filter_map(|message| {
            let is_metadata = message.type_id == type_id::DATA_AMF0 && tag::is_metadata(&message.payload);
            // The wire has 32 bits of the timestamp: count on from the first. That of metadata says nothing.
            let since = (message.timestamp_ms & 0xffff_ffff).wrapping_sub(base & 0xffff_ffff) & 0xffff_ffff;
            let timestamp_ms = if is_metadata { newest } else { base.saturating_add(since) };
            newest = timestamp_ms;
            match message.type_id {
                type_id::AUDIO => Some(tag::frame(Track::Audio, timestamp_ms, message.payload)),
                type_id::VIDEO => Some(tag::frame(Track::Video, timestamp_ms, message.payload)),
                type_id::DATA_AMF0 => {
                    let flags = FrameFlags { metadata: is_metadata, ..FrameFlags::default() };
                    Some(Frame::new(Track::Data, timestamp_ms, flags, message.payload))
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
        // `onMetaData` is about the whole stream. ffmpeg, and what is built on it, takes one of any other time for a stream
        // of its own, which it then writes into every recording.
        let is_metadata = frame.track == Track::Data && tag::is_metadata(&frame.payload);
        let timestamp_ms = if is_metadata { 0 } else { frame.timestamp_ms };
        write_message(out, self.chunk_size, chunk_stream, type_id, PLAY_STREAM_ID, timestamp_ms, &frame.payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn metadata_goes_out_at_the_beginning_of_time_and_comes_back_at_its_own() {
        let packager = Packager::new(&Settings::default());
        let base = 5_000_000_000;
        let metadata = Bytes::from_static(b"\x02\x00\x0aonMetaData\x05");
        let cue = Bytes::from_static(b"\x02\x00\x0aonCuePoint\x05");
        let is_metadata = FrameFlags { metadata: true, ..FrameFlags::default() };
        let frames = [
            tag::frame(Track::Video, base, Bytes::from_static(&[0x17, 1, 0, 0, 0, 9])),
            tag::frame(Track::Audio, base + 20, Bytes::from_static(&[0xaf, 1, 9])),
            Frame::new(Track::Data, base + 20, is_metadata, metadata.clone()),
            Frame::new(Track::Data, base + 40, FrameFlags::default(), cue),
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            packager.package(frame, &mut bytes);
        }
        assert_eq!(packager.unpackage(Instant::now(), &bytes, base), frames);

        bytes.clear();
        packager.package(&frames[2], &mut bytes);
        let (chunk_header, body) = bytes.split_at(bytes.len() - metadata.len());
        assert_eq!((chunk_header.get(1..4), body), (Some(&[0; 3][..]), &metadata[..]));
    }
}
