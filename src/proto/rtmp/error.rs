//! What an illegal byte sequence is called.

/// Why an engine gave up on its peer. Whose side: always the peer's, or the peer against a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Illegal bytes; the token names the rule (`version`, `tls_on_plain`, `http_on_rtmp`,
    /// `control_length`, `user_control`, `connect_first`, `media_before_publish`, `glitches`, and those of the chunk layer).
    #[error("protocol error: {0}")]
    Illegal(&'static str),
    /// Legal bytes beyond a limit; the token is the limit's key (`message_size`, `chunk_streams`,
    /// `partial_bytes`, `command_rate`, `verdict_buffer`, `output`).
    #[error("limit exceeded: {0}")]
    Limit(&'static str),
    /// A stage's deadline passed; the token names the stage (`handshake`, `command`, `first_media`,
    /// `media`, `message`).
    #[error("deadline passed: {0}")]
    Deadline(&'static str),
    /// Media bytes that no player could use; the token names the rule
    /// (`sequence_headers`, `frames`).
    #[error("bad media: {0}")]
    BadMedia(&'static str),
}
