//! The handshake (RTMP 1.0 §5.2; the digest forms as Flash-era peers speak them), by `rml_rtmp`.

use rml_rtmp::handshake::Handshake as Packets;
use rml_rtmp::handshake::HandshakeProcessResult;
use rml_rtmp::handshake::PeerType;

use crate::proto::rtmp::ProtocolError;

/// Length of C1, S1, C2 and S2 (RTMP 1.0 §5.2.3, §5.2.4).
const PACKET: usize = 1536;

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
/// arrives, one number while C2 arrives. The machinery that computes digests lives only for the
/// moment in which a whole packet is there.
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

enum Side {
    /// Answers, and therefore needs no memory before there is something to answer.
    Server,
    /// Has sent `C0 C1`, and keeps what it sent.
    Client(Box<Packets>),
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
        let mut packets = Box::new(Packets::new(PeerType::Client));
        // It cannot fail today; if a later release could, the server would refuse what is missing.
        if let Ok(bytes) = packets.generate_outbound_p0_and_p1() {
            out.extend_from_slice(&bytes);
        }
        Self { stage: Stage::Version(Side::Client(packets)) }
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
                    check_version(first, &side, out)?;
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
                        answer(side, now, out)?;
                    } else {
                        kept.extend_from_slice(now);
                        answer(side, &kept, out)?;
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
            Stage::Version(side) => side.held_bytes(),
            Stage::First(side, kept) => side.held_bytes().saturating_add(kept.capacity()),
            Stage::Second(_) | Stage::Done => 0,
        }
    }
}

impl Side {
    fn held_bytes(&self) -> usize {
        match self {
            Self::Server => 0,
            // `Packets` has a buffer of one packet beside its own fields.
            Self::Client(_) => size_of::<Packets>().saturating_add(PACKET),
        }
    }
}

/// Tells the three mistakes apart that operators make most: a TLS client on the plain port, a browser
/// or load balancer check on the RTMP port, and anything else.
fn check_version(first: u8, side: &Side, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
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

/// Appends what a whole C1 or S1 wants in return: `S0 S1 S2` or `C2`. The packets are fed exactly, so
/// that nothing stays in the library's buffer. A digest of either scheme is answered with a digest;
/// none, or a wrong one, with the simple form (RT-06).
fn answer(side: Side, first: &[u8], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    let mut packets = match side {
        Side::Server => Box::new(Packets::new(PeerType::Server)),
        Side::Client(packets) => packets,
    };
    for part in [&[VERSION][..], first] {
        match packets.process_bytes(part) {
            Ok(
                HandshakeProcessResult::InProgress { response_bytes }
                | HandshakeProcessResult::Completed { response_bytes, .. },
            ) => out.extend_from_slice(&response_bytes),
            Err(_) => return Err(ProtocolError::Illegal("handshake")),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
