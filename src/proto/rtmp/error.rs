//! What an illegal byte sequence is called.

/// Why an engine gave up on its peer. Whose side: always the peer's, or the peer against a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Illegal bytes; the token names the rule (`version`, `tls_on_plain`, `http_on_rtmp`, `chunk_header`, …).
    #[error("protocol error: {0}")]
    Illegal(&'static str),
    /// Legal bytes beyond a limit; the token is the limit's key (`message_size`, `chunk_streams`, …).
    #[error("limit exceeded: {0}")]
    Limit(&'static str),
    /// A stage's deadline passed; the token names the stage (`handshake`, `command`, `first_media`,
    /// `media`, `message`).
    #[error("deadline passed: {0}")]
    Deadline(&'static str),
    /// Media bytes that no player could use; the token names the rule.
    #[error("bad media: {0}")]
    BadMedia(&'static str),
}
