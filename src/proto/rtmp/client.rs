//! The client's side of one RTMP connection, for the load generator, the demo and tests.

use crate::proto::rtmp::ProtocolError;
use crate::proto::rtmp::chunk::RawMessage;

/// What the client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Send a stream.
    Publish,
    /// Receive a stream.
    Play,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// `NetStream.Publish.Start` or `NetStream.Play.Start`: media may flow.
    Started,
    /// An audio, video or data message of the stream played.
    Message(RawMessage),
    /// A status with level `error`, or `_error`: code and description.
    Refused(String, String),
    /// The stream ended (`UnpublishNotify`, `Play.Stop`, StreamEOF).
    Ended,
    /// Any other status code, for tests that look.
    Status(String),
}

/// The engine.
pub struct Client(());

impl Client {
    /// A client that will connect to `tc_url`/`app`, then publish or play `stream` (query included).
    #[must_use]
    pub fn new(_tc_url: &str, _app: &str, _stream: &str, _intent: Intent) -> Self {
        todo!("H2")
    }

    /// Takes bytes from the server.
    ///
    /// # Errors
    /// The rule that the server broke.
    pub fn handle_bytes(&mut self, _now: std::time::Instant, _input: &[u8]) -> Result<(), ProtocolError> {
        todo!("H2")
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        todo!("H2")
    }

    /// Bytes for the server: the owner sends a prefix and drains it.
    pub fn output(&mut self) -> &mut Vec<u8> {
        todo!("H2")
    }

    /// Appends an audio, video or data message of the stream published.
    pub fn send(&mut self, _type_id: u8, _timestamp_ms: u64, _payload: &[u8]) {
        todo!("H2")
    }

    /// Ends the publish or play in good order (FCUnpublish, deleteStream).
    pub fn finish(&mut self) {
        todo!("H2")
    }
}
