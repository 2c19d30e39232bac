//! The handshake (RTMP 1.0 §5.2; the digest forms as Flash-era peers speak them), by `rml_rtmp`.

use crate::proto::rtmp::ProtocolError;

/// One side of a handshake in progress.
pub struct Handshake(());

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
        todo!("H1")
    }

    /// The client's side; `C0 C1` are appended to `out`.
    #[must_use]
    pub fn client(_out: &mut Vec<u8>) -> Self {
        todo!("H1")
    }

    /// Takes bytes from the peer, appends the answer to `out`.
    ///
    /// # Errors
    /// `version`, `tls_on_plain`, `http_on_rtmp` (RT-01 to RT-03), at the first byte that tells.
    pub fn handle(&mut self, _input: &[u8], _out: &mut Vec<u8>) -> Result<Progress, ProtocolError> {
        todo!("H1")
    }
}
