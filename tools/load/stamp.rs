//! The stamp in each synthetic payload: who sent it, which frame it is, and when it was meant to be sent.
//!
//! Each byte carries seven bits under a set top bit, so that a stamp never looks like a start code or an
//! emulation-prevention sequence inside a NAL unit.

/// What begins a stamp.
const MAGIC: [u8; 6] = *b"\xf3\xe7sgl1";
/// Length of a stamp.
pub const STAMP_BYTES: usize = 24;
/// Where it lies in an H.264 message: tag header 5, NAL length 4, NAL type 1.
pub const VIDEO_OFFSET: usize = 10;
/// Where it lies in an AAC message: tag header 2.
pub const AUDIO_OFFSET: usize = 2;

/// One stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which publisher of the run; modulo 2^21.
    pub publisher: u32,
    /// Which frame of its track, from 0; modulo 2^28 (eleven weeks at 43 frames a second).
    pub sequence: u32,
    /// When the frame was due, in nanoseconds of `CLOCK_REALTIME`. The intended time, not the time of the call: a
    /// sender held up by the server shows as latency.
    pub due_ns: u64,
}

impl Stamp {
    /// Writes the stamp at the start of `to`, which must hold [`STAMP_BYTES`].
    pub fn write(&self, to: &mut [u8]) {
        let (magic, rest) = to.split_at_mut(MAGIC.len());
        magic.copy_from_slice(&MAGIC);
        let (publisher, rest) = rest.split_at_mut(3);
        put(publisher, u64::from(self.publisher));
        let (sequence, rest) = rest.split_at_mut(4);
        put(sequence, u64::from(self.sequence));
        // Nine groups of seven bits hold 63: enough for nanoseconds until the year 2262.
        put(&mut rest[..9], self.due_ns);
        rest[9] = 0x80;
        rest[10] = 0x80;
    }

    /// The stamp of an audio or video message, from its first bytes.
    pub fn read(type_id: u8, head: &[u8]) -> Option<Self> {
        let offset = if type_id == 9 { VIDEO_OFFSET } else { AUDIO_OFFSET };
        let bytes = head.get(offset..offset + STAMP_BYTES)?;
        let fields = bytes.strip_prefix(&MAGIC)?;
        let number =
            |range: std::ops::Range<usize>| fields[range].iter().fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7f));
        Some(Self { publisher: number(0..3) as u32, sequence: number(3..7) as u32, due_ns: number(7..16) })
    }
}

fn put(to: &mut [u8], mut value: u64) {
    for byte in to.iter_mut().rev() {
        *byte = 0x80 | (value & 0x7f) as u8;
        value >>= 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_and_has_no_zero_bytes() {
        for stamp in [
            Stamp { publisher: 0, sequence: 0, due_ns: 0 },
            Stamp { publisher: 499, sequence: 123_456, due_ns: 1_795_155_521_123_456_789 },
            Stamp { publisher: (1 << 21) - 1, sequence: (1 << 28) - 1, due_ns: (1 << 63) - 1 },
        ] {
            let mut message = vec![1; 60];
            stamp.write(&mut message[VIDEO_OFFSET..]);
            assert_eq!(Stamp::read(9, &message), Some(stamp));
            assert_eq!(Stamp::read(8, &message), None);
            assert!(!message.contains(&0));
        }
        assert_eq!(Stamp::read(9, b"short"), None);
    }
}
