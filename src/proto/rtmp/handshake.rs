//! The handshake (RTMP 1.0 §5.2), in the simple form and in the digest forms that Flash-era peers speak.

mod packet;

use crate::proto::rtmp::ProtocolError;

use packet::{PACKET, Side};

/// The one version there is (RTMP 1.0 §5.2.2).
const VERSION: u8 = 3;

/// First byte of a TLS record that carries a handshake (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// What a browser or a health check that came to the wrong door is told (RT-03).
const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 23\r\nConnection: close\r\n\r\nThis port speaks RTMP.\n";

/// One side of a handshake in progress.
///
/// What it holds follows what the peer sent: nothing before C1 begins, at most 1536 bytes while C1
/// arrives, one number while C2 arrives.
pub struct Handshake {
    stage: Stage,
}

enum Stage {
    /// C0 or S0 is expected.
    Version(Side),
    /// C1 or S1 is arriving; what came before the last segment is kept here.
    First(Side, Vec<u8>),
    /// So many bytes of C2 or S2 are still to come. Their content is ignored (RT-07): peers disagree
    /// on it, and it proves nothing that the peer's going on does not prove.
    Second(usize),
    /// Both sides are through.
    Done,
}

/// What came of some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many of the input bytes the handshake took; the rest are chunks.
    pub consumed: usize,
    /// True once both sides are through.
    pub done: bool,
}

impl Handshake {
    /// The server's side.
    #[must_use]
    pub fn server() -> Self {
        Self { stage: Stage::Version(Side::Server) }
    }

    /// The client's side; `C0 C1` are appended to `out`.
    #[must_use]
    pub fn client(out: &mut Vec<u8>) -> Self {
        out.push(VERSION);
        packet::write_first(Side::Client, true, out);
        Self { stage: Stage::Version(Side::Client) }
    }

    /// Takes bytes from the peer, appends the answer to `out`.
    ///
    /// A server answers `S0 S1 S2` at once, when C1 is whole and not before: the specification allows
    /// S0 and S1 after C0 alone, but 1537 bytes for one would make a fine amplifier.
    ///
    /// # Errors
    /// `version`, `tls_on_plain`, `http_on_rtmp` (RT-01 to RT-03), at the first byte that tells.
    pub fn handle(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Progress, ProtocolError> {
        let mut rest = input;
        loop {
            match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::Version(side) => {
                    let Some((&first, after)) = rest.split_first() else {
                        self.stage = Stage::Version(side);
                        break;
                    };
                    check_version(first, side, out)?;
                    rest = after;
                    self.stage = Stage::First(side, Vec::new());
                }
                Stage::First(side, mut kept) => {
                    let missing = PACKET.saturating_sub(kept.len());
                    let Some((now, after)) = rest.split_at_checked(missing) else {
                        kept.reserve_exact(rest.len());
                        kept.extend_from_slice(rest);
                        rest = &[];
                        self.stage = Stage::First(side, kept);
                        break;
                    };
                    rest = after;
                    if kept.is_empty() {
                        answer(side, now, out);
                    } else {
                        kept.extend_from_slice(now);
                        answer(side, &kept, out);
                    }
                    self.stage = Stage::Second(PACKET);
                }
                Stage::Second(missing) => {
                    let Some((_, after)) = rest.split_at_checked(missing) else {
                        self.stage = Stage::Second(missing.saturating_sub(rest.len()));
                        rest = &[];
                        break;
                    };
                    rest = after;
                }
                Stage::Done => break,
            }
        }
        let consumed = input.len().saturating_sub(rest.len());
        Ok(Progress { consumed, done: matches!(self.stage, Stage::Done) })
    }

    /// Bytes held for the peer.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match &self.stage {
            Stage::First(_, kept) => kept.capacity(),
            Stage::Version(_) | Stage::Second(_) | Stage::Done => 0,
        }
    }
}

/// Tells the three mistakes apart that operators make most: a TLS client on the plain port, a browser
/// or load balancer check on the RTMP port, and anything else.
fn check_version(first: u8, side: Side, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    match (first, side) {
        (VERSION, _) => Ok(()),
        (TLS_HANDSHAKE, _) => Err(ProtocolError::Illegal("tls_on_plain")),
        // GET, POST/PUT/PATCH/PRI, HEAD, DELETE, OPTIONS, CONNECT, TRACE.
        (b'G' | b'P' | b'H' | b'D' | b'O' | b'C' | b'T', Side::Server) => {
            out.extend_from_slice(BAD_REQUEST);
            Err(ProtocolError::Illegal("http_on_rtmp"))
        }
        _ => Err(ProtocolError::Illegal("version")),
    }
}

/// Appends what a whole C1 or S1 wants in return: `S0 S1 S2` or `C2`. A digest of either scheme is answered with a
/// digest; none, or a wrong one, with the simple form (RT-06).
fn answer(side: Side, first: &[u8], out: &mut Vec<u8>) {
    let Some(first) = first.first_chunk::<PACKET>() else { return };
    let digest = packet::peer_digest(side, first);
    if side == Side::Server {
        out.push(VERSION);
        packet::write_first(side, digest.is_some(), out);
    }
    match digest {
        Some(digest) => packet::write_signed_second(side, &digest, out),
        None => out.extend_from_slice(first),
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
