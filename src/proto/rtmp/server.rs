//! The server's side of one RTMP connection: bytes in, events and bytes out, time as an argument.

use std::time::Instant;

use crate::media::Frame;
use crate::proto::rtmp::{ProtocolError, Settings};

/// Everything `connect` said, kept as sent (NetConnection `connect`, RTMP 1.0 §7.2.1.1).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectInfo {
    /// `app` without its query, from `app` or, where absent, from the path of `tcUrl`.
    pub app: String,
    /// The query of app or tcUrl, without `?`.
    pub query: Option<String>,
    /// The host of `tcUrl`, or `vhost=` of a query (the query wins): not yet a validated name.
    pub vhost: Option<String>,
    /// `tcUrl`.
    pub tc_url: Option<String>,
    /// `pageUrl`.
    pub page_url: Option<String>,
    /// `swfUrl`.
    pub swf_url: Option<String>,
    /// `flashVer`.
    pub flash_ver: Option<String>,
    /// `fourCcList` (Enhanced RTMP v1).
    pub four_cc_list: Vec<String>,
    /// `capsEx` (Enhanced RTMP v2).
    pub caps_ex: Option<f64>,
    /// `objectEncoding`.
    pub object_encoding: Option<f64>,
}

/// A `publish` or `play` waiting for the verdict, and the name of the message stream it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// Message stream id.
    pub stream_id: u32,
    /// Distinguishes requests that follow each other on one message stream.
    pub sequence: u32,
}

/// What happened on the connection.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerEvent {
    /// `connect` arrived; answer with [`Server::accept_connect`] or [`Server::reject_connect`].
    Connect(Box<ConnectInfo>),
    /// `publish` arrived; answer with [`Server::accept_publish`] or [`Server::reject`]. Media that comes
    /// before the answer is held up to `verdict_buffer`.
    Publish {
        /// Quote it in the answer.
        request: RequestId,
        /// Stream name without query: not yet a validated name.
        stream: String,
        /// The query without `?`.
        query: Option<String>,
    },
    /// `play` arrived; answer with [`Server::accept_play`] or [`Server::reject`].
    Play {
        /// Quote it in the answer.
        request: RequestId,
        /// Stream name without query: not yet a validated name.
        stream: String,
        /// The query without `?`.
        query: Option<String>,
    },
    /// One frame of the accepted publish. Sequence headers, metadata and keyframes are flagged.
    Frame(Frame),
    /// The publish or play ended in good order (`FCUnpublish`, `closeStream`, `deleteStream`); the
    /// connection lives on and may begin another.
    Ended(RequestId),
    /// The player paused (true) or goes on (false).
    Pause(RequestId, bool),
    /// The player wants audio or not.
    ReceiveAudio(RequestId, bool),
    /// The player wants video or not.
    ReceiveVideo(RequestId, bool),
}

/// Why a publish or play is refused, as the peer's user will read it
/// (`onStatus` with level `error`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `NetStream.Publish.BadName`, `NetStream.Play.StreamNotFound`, `NetStream.Publish.Denied`, …
    pub code: &'static str,
    /// One sentence.
    pub description: &'static str,
}

/// The engine.
pub struct Server(());

impl Server {
    /// A connection accepted at `now`.
    #[must_use]
    pub fn new(_settings: &std::sync::Arc<Settings>, _now: Instant) -> Self {
        todo!("H2")
    }

    /// Takes bytes from the peer. All of them are consumed; events and answers wait to be polled.
    ///
    /// # Errors
    /// The rule, limit or deadline that was broken. Answers written before (a 400 for HTTP, an `_error`)
    /// are still to be polled; no more bytes may be given.
    pub fn handle_bytes(&mut self, _now: Instant, _input: &[u8]) -> Result<(), ProtocolError> {
        todo!("H2")
    }

    /// Tells the engine that time has passed.
    ///
    /// # Errors
    /// The stage whose deadline passed.
    pub fn handle_timeout(&mut self, _now: Instant) -> Result<(), ProtocolError> {
        todo!("H2")
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        todo!("H2")
    }

    /// The next event, in order.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        todo!("H2")
    }

    /// Bytes for the peer that are not yet sent: the owner sends a prefix and drains it. Empty most of the time.
    pub fn output(&mut self) -> &mut Vec<u8> {
        todo!("H2")
    }

    /// False while media waits for a verdict beyond `verdict_buffer`: stop reading.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        todo!("H2")
    }

    /// Answers `connect` with yes.
    pub fn accept_connect(&mut self) {
        todo!("H2")
    }

    /// Answers `connect` with `_error` `NetConnection.Connect.Rejected` (or `.InvalidApp`) and marks the
    /// connection to be closed once the output is sent.
    pub fn reject_connect(&mut self, _refusal: Refusal) {
        todo!("H2")
    }

    /// Answers `publish` with yes and releases the media held back.
    pub fn accept_publish(&mut self, _now: Instant, _request: RequestId) {
        todo!("H2")
    }

    /// Answers `play` with yes: Set Chunk Size, StreamBegin, `Play.Reset`, `Play.Start`, `|RtmpSampleAccess`.
    /// After it the owner appends packaged frames behind the output.
    pub fn accept_play(&mut self, _now: Instant, _request: RequestId) {
        todo!("H2")
    }

    /// Answers `publish` or `play` with no. The connection stays open until its command deadline or the owner's close.
    pub fn reject(&mut self, _request: RequestId, _refusal: Refusal) {
        todo!("H2")
    }

    /// Tells a player that its stream ended: StreamEOF, `NetStream.Play.UnpublishNotify`, `Play.Stop`/`Play.Complete`.
    pub fn end_play(&mut self, _request: RequestId) {
        todo!("H2")
    }

    /// Tells a player that its publisher went (true) or came back (false): `UnpublishNotify`/`PublishNotify`.
    pub fn notify_unpublished(&mut self, _request: RequestId, _gone: bool) {
        todo!("H2")
    }

    /// Tells a publisher or player that it is being ended by us (`NetStream.Publish.Denied`-class or
    /// `NetConnection.Connect.Closed` status), before the owner closes.
    pub fn goodbye(&mut self, _refusal: Refusal) {
        todo!("H2")
    }

    /// The message stream id players' media goes on; packaged frames are shared between players, so every
    /// accepted play of every connection uses the same id, [`PLAY_STREAM_ID`].
    #[must_use]
    pub fn is_closing(&self) -> bool {
        todo!("H2")
    }

    /// Bytes the engine holds for its peer: partial messages, held media, output.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        todo!("H2")
    }
}

/// The message stream id that `createStream` hands out first, and that packaged frames carry.
pub const PLAY_STREAM_ID: u32 = 1;
