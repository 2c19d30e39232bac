//! The server's side of the handshake.

use sluicegate::proto::rtmp::ProtocolError;
use sluicegate::proto::rtmp::handshake::Handshake;

/// Hands the bytes over whole, one by one and in pieces.
pub fn run(data: &[u8]) {
    let whole = shake(data, &[usize::MAX]);
    let pieces: Vec<usize> = data.iter().take(64).map(|byte| usize::from(*byte) * 8 + 1).collect();
    assert_eq!(shake(data, &[1]), whole, "byte by byte");
    assert_eq!(shake(data, &pieces), whole, "in pieces");
}

#[derive(Debug, PartialEq)]
struct Outcome {
    consumed: usize,
    done: bool,
    error: Option<ProtocolError>,
    /// Its content has random bytes in it.
    answer_length: usize,
}

fn shake(data: &[u8], pieces: &[usize]) -> Outcome {
    let mut handshake = Handshake::server();
    let (mut out, mut rest) = (Vec::new(), data);
    let mut outcome = Outcome { consumed: 0, done: false, error: None, answer_length: 0 };
    for piece in pieces.iter().cycle() {
        let (input, after) = rest.split_at(rest.len().min(*piece));
        rest = after;
        match handshake.handle(input, &mut out) {
            Ok(progress) => {
                assert!(progress.consumed <= input.len());
                outcome.consumed += progress.consumed;
                outcome.done = progress.done;
                assert!(progress.done || progress.consumed == input.len());
            }
            Err(error) => outcome.error = Some(error),
        }
        assert!(handshake.held_bytes() <= 1536);
        // Nothing is answered to a peer that has not sent as much as C0 and C1, but for the word to browsers.
        assert!(out.len() <= 128 || (out.len() == 3073 && data.len() >= 1537));
        if outcome.done || outcome.error.is_some() || rest.is_empty() {
            break;
        }
    }
    outcome.answer_length = out.len();
    outcome
}
