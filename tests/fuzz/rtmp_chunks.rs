//! The chunk reader, before and after the peer may publish.

use std::time::{Duration, Instant};

use sluicegate::proto::rtmp::chunk::{RawMessage, Reader, write_message};
use sluicegate::proto::rtmp::{Glitches, ProtocolError, Settings};

/// Reads the bytes whole, one by one and in pieces, and writes again what was read.
pub fn run(data: &[u8]) {
    for authorized in [false, true] {
        let whole = read(data, &[usize::MAX], authorized);
        // The pieces are as long as the bytes say, which lets a fuzzer move the cuts.
        let pieces: Vec<usize> = data.iter().take(64).map(|byte| usize::from(*byte % 31) + 1).collect();
        assert_eq!(read(data, &[1], authorized), whole, "byte by byte");
        assert_eq!(read(data, &pieces, authorized), whole, "in pieces");

        let (messages, ..) = whole;
        let mut again = Vec::new();
        for m in &messages {
            write_message(&mut again, 128, m.chunk_stream, m.type_id, m.stream_id, m.timestamp_ms, &m.payload);
        }
        let (read_again, error, _) = read(&again, &[1000], true);
        assert_eq!(error, None);
        assert_eq!(
            read_again.iter().map(without_wraps).collect::<Vec<_>>(),
            messages.iter().map(without_wraps).collect::<Vec<_>>()
        );
    }
}

type Outcome = (Vec<RawMessage>, Option<ProtocolError>, Glitches);

fn read(data: &[u8], pieces: &[usize], authorized: bool) -> Outcome {
    let now = Instant::now();
    let mut reader = Reader::new(&Settings::default());
    if authorized {
        reader.authorize();
    }
    let (mut out, mut rest, mut seen) = (Vec::<RawMessage>::new(), data, 0);
    for piece in pieces.iter().cycle() {
        let (input, after) = rest.split_at(rest.len().min(*piece));
        rest = after;
        seen += input.len();
        if let Err(error) = reader.handle(now, input, &mut out) {
            return (out, Some(error), reader.take_glitches());
        }
        assert!(reader.partial_bytes() <= 2 * seen + (8 << 10), "{} held of {seen}", reader.partial_bytes());
        if let Some(deadline) = reader.message_deadline() {
            assert_eq!(deadline, now + Duration::from_secs(30));
        } else {
            assert_eq!(reader.partial_bytes(), 0);
        }
        if rest.is_empty() {
            break;
        }
    }
    assert!(out.iter().map(|message| message.payload.len()).sum::<usize>() <= seen);
    (out, None, reader.take_glitches())
}

/// How often the clock wrapped can depend on messages that were aborted and therefore not written again.
fn without_wraps(message: &RawMessage) -> RawMessage {
    RawMessage { timestamp_ms: message.timestamp_ms & 0xffff_ffff, ..message.clone() }
}
