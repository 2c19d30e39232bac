//! FLV files (Adobe "Video File Format Specification" 10.1, annex E): a header, then tags.

/// One tag. Its body is the body of the RTMP message of the same type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag<'a> {
    /// 8 audio, 9 video, 18 script data: RTMP's message type ids.
    pub type_id: u8,
    /// Milliseconds from the start of the file.
    pub timestamp_ms: u32,
    /// The body.
    pub body: &'a [u8],
}

/// Why a file cannot be read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    /// Not an FLV file of version 1.
    #[error("not an FLV file")]
    Signature,
    /// The file ends in the middle of its header or of a tag.
    #[error("the FLV file is cut off at byte {at}")]
    Truncated {
        /// Where the unfinished part begins.
        at: usize,
    },
    /// A tag is encrypted (annex F), which nothing here can read.
    #[error("the FLV file has an encrypted tag at byte {at}")]
    Encrypted {
        /// Where it begins.
        at: usize,
    },
}

/// The tags of a file in memory, in file order. Iteration ends after the first error.
#[derive(Clone, Debug)]
pub struct FlvReader<'a> {
    rest: &'a [u8],
    at: usize,
    ended: bool,
}

const TAG_HEADER_BYTES: usize = 11;
const BACK_POINTER_BYTES: usize = 4;

impl<'a> FlvReader<'a> {
    /// A reader at the first tag of `file`.
    ///
    /// # Errors
    /// When the header is not that of an FLV file (E.2).
    pub fn new(file: &'a [u8]) -> Result<Self, FlvError> {
        let header = file.first_chunk::<9>().ok_or(FlvError::Truncated { at: 0 })?;
        let [b'F', b'L', b'V', 1, _flags, offset @ ..] = *header else { return Err(FlvError::Signature) };
        let offset = usize::try_from(u32::from_be_bytes(offset)).unwrap_or(usize::MAX);
        // The header may be longer than we know, never shorter; a back pointer of 0 follows it (E.3).
        if offset < header.len() {
            return Err(FlvError::Signature);
        }
        let at = offset.saturating_add(BACK_POINTER_BYTES);
        let rest = file.get(at..).ok_or(FlvError::Truncated { at: 0 })?;
        Ok(Self { rest, at, ended: false })
    }

    fn read(&mut self) -> Result<Tag<'a>, FlvError> {
        let at = self.at;
        let truncated = FlvError::Truncated { at };
        let (header, after) = self.rest.split_first_chunk::<TAG_HEADER_BYTES>().ok_or(truncated)?;
        let [kind, s2, s1, s0, t2, t1, t0, t3, _, _, _] = *header;
        // Two reserved bits, the filter bit that marks encryption, five bits of type (E.4.1).
        if kind & 0x20 != 0 {
            return Err(FlvError::Encrypted { at });
        }
        let size = usize::try_from(u32::from_be_bytes([0, s2, s1, s0])).unwrap_or(usize::MAX);
        let (body, after) = after.split_at_checked(size).ok_or(truncated)?;
        // A writer that was killed may have left out the last back pointer; nothing is lost with it.
        self.rest = after.get(BACK_POINTER_BYTES..).unwrap_or_default();
        self.at = at.saturating_add(TAG_HEADER_BYTES).saturating_add(size).saturating_add(BACK_POINTER_BYTES);
        Ok(Tag { type_id: kind & 0x1f, timestamp_ms: u32::from_be_bytes([t3, t2, t1, t0]), body })
    }
}

impl<'a> Iterator for FlvReader<'a> {
    type Item = Result<Tag<'a>, FlvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.rest.is_empty() {
            return None;
        }
        let tag = self.read();
        self.ended = tag.is_err();
        Some(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP: &[u8] = include_bytes!("../../tests/media/clip.flv");

    fn file(tags: &[(u8, u32, &[u8])]) -> Vec<u8> {
        let mut out = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        for (type_id, time, body) in tags {
            out.push(*type_id);
            out.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
            out.extend(&time.to_be_bytes()[1..]);
            out.push(time.to_be_bytes()[0]);
            out.extend([0, 0, 0]);
            out.extend(*body);
            out.extend(u32::try_from(body.len() + 11).unwrap().to_be_bytes());
        }
        out
    }

    #[test]
    fn tags_come_out_as_they_were_written() {
        let file = file(&[(18, 0, b"meta"), (9, 40, b""), (8, 0x0102_0304, b"sound")]);
        let tags: Vec<Tag<'_>> = FlvReader::new(&file).unwrap().map(Result::unwrap).collect();
        assert_eq!(
            tags,
            [
                Tag { type_id: 18, timestamp_ms: 0, body: b"meta" },
                Tag { type_id: 9, timestamp_ms: 40, body: b"" },
                Tag { type_id: 8, timestamp_ms: 0x0102_0304, body: b"sound" },
            ]
        );
    }

    #[test]
    fn bundled_clip_reads_to_its_end() {
        let tags: Vec<Tag<'_>> = FlvReader::new(CLIP).unwrap().map(Result::unwrap).collect();
        let of = |type_id| tags.iter().filter(|tag| tag.type_id == type_id).count();
        assert_eq!(of(18), 1);
        // A hundred pictures and the decoder configuration; ffmpeg adds an end-of-sequence tag.
        assert!((101..=102).contains(&of(9)), "{}", of(9));
        assert!(of(8) > 170, "{}", of(8));
        assert!(tags.iter().any(|tag| tag.timestamp_ms > 3_900));
        assert!(CLIP.len() <= 150_000);
    }

    #[test]
    fn a_cut_file_gives_its_whole_tags_and_then_one_error() {
        let whole = file(&[(9, 0, b"first"), (9, 40, b"second")]);
        let first_ends = 13 + 11 + 5 + 4;
        for cut in first_ends + 1..whole.len() - 4 {
            let tags: Vec<_> = FlvReader::new(&whole[..cut]).unwrap().collect();
            assert_eq!(tags.len(), 2, "cut at {cut}");
            assert!(tags[0].is_ok());
            assert_eq!(tags[1], Err(FlvError::Truncated { at: first_ends }));
        }
        assert_eq!(FlvReader::new(&whole[..whole.len() - 4]).unwrap().flatten().count(), 2);
    }

    #[test]
    fn what_is_no_flv_file_is_refused() {
        for bad in [
            &b""[..],
            b"FLV\x01",
            b"FLV\x02\x05\0\0\0\x09\0\0\0\0",
            b"RIFF\0\0\0\0WAVEfmt ",
            b"FLV\x01\x05\0\0\0\x08\0\0\0\0",
        ] {
            assert!(FlvReader::new(bad).is_err(), "{bad:?}");
        }
        assert!(FlvReader::new(b"FLV\x01\x05\xff\xff\xff\xff\0\0\0\0").is_err());
        let mut encrypted = file(&[(9, 0, b"x")]);
        encrypted[13] |= 0x20;
        assert_eq!(FlvReader::new(&encrypted).unwrap().next(), Some(Err(FlvError::Encrypted { at: 13 })));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut bytes = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
            bytes.extend(tail);
            proptest::prop_assert!(FlvReader::new(&bytes).unwrap().count() <= bytes.len());
        }
    }
}
