//! The server's side of one RTMP connection: bytes in, events and bytes out, time as an argument.

mod calls;
mod command;
mod held;
mod meter;
mod output;
mod publisher;
mod reading;
mod trace;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use crate::media::Frame;
use crate::names::Kind;
use crate::proto::rtmp::amf0::Value;
use crate::proto::rtmp::chunk::{self};
use crate::proto::rtmp::handshake::Handshake;
use crate::proto::rtmp::message::{self, LimitType, UserControl};
use crate::proto::rtmp::{Glitch, Glitches, ProtocolError, Settings};

use command::{Call, ConnectCall};
use held::Held;
use meter::{Meter, after, moved};
use output::{Level, Output, info, object, text};
use publisher::Publisher;

use trace::{Answer, What};

pub use command::query_value;
pub use trace::Trace;

/// Everything `connect` said, kept as sent (`NetConnection` `connect`, RTMP 1.0 §7.2.1.1).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectInfo {
    /// `app` without its query, from `app` or, where absent, from the path of `tcUrl`.
    pub app: String,
    /// The query of app or tcUrl, without `?`.
    pub query: Option<String>,
    /// The host of `tcUrl`, or `vhost=` of the query above (the query wins), as the peer spelt it: not yet
    /// a validated name. A `vhost=` in the query of the stream comes later and wins over both; read it with
    /// [`query_value`].
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
    /// A `publish` or `play` that was refused here because what it says cannot be a request, and the rule that it broke.
    /// The peer has been told.
    Refused(Kind, &'static str),
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
pub struct Refusal<'a> {
    /// `NetStream.Publish.BadName`, `NetStream.Play.StreamNotFound`, `NetStream.Publish.Denied`, …
    pub code: &'static str,
    /// One sentence.
    pub description: &'a str,
}

/// The engine.
///
/// A connection passes through stages (`Stage`), and between verdicts does one thing at a time
/// (`Activity`). What arrives while the verdict on a `connect` or `publish` is open waits unread, so that the same
/// bytes mean the same however they are cut and however late the verdict is. A player has nothing to send that must
/// wait, so its commands are obeyed while the verdict on its `play` is open.
///
/// Every player's media goes on [`PLAY_STREAM_ID`], so that one packaged copy of a frame serves all of them.
/// `createStream` therefore hands out the lowest free id, and a `play` on any other id is refused with a status
/// that says so. No player in use needs a second message stream to play on.
pub struct Server {
    settings: Arc<Settings>,
    stage: Stage,
    activity: Activity,
    /// The newest time we were told, for the calls that carry none.
    now: Instant,
    reader: chunk::Reader,
    output: Output,
    events: VecDeque<ServerEvent>,
    /// Bytes that wait for a verdict, or for the next turn.
    held_input: Held,
    /// Messages that may still be obeyed in this turn; `None` where the owner has no turns.
    turn_left: Option<u32>,
    /// When a publish or play must have been accepted, but for the time that the owner takes to answer; `None` while one
    /// is accepted.
    command_deadline: Option<Deadline>,
    /// All bytes that ever came, handshake included.
    received_bytes: u64,
    acknowledged_bytes: u64,
    /// How many bytes the peer wants acknowledged at once.
    ack_window: u64,
    command_meter: Meter,
    ping_meter: Meter,
    glitch_meter: Meter,
    /// Message streams that exist, as bits.
    streams: u64,
    sequence: u32,
    player_buffer_ms: u16,
    glitches: u32,
    /// Of those, the ones that nobody has asked about.
    new_glitches: Glitches,
    trace: Trace,
}

/// How far the connection is. Each stage is entered once, in this order; `Closing` and `Failed` are final.
enum Stage {
    /// Until both sides are through.
    Handshake { handshake: Box<Handshake>, deadline: Instant },
    /// Only `connect` is legal.
    AwaitConnect,
    /// The verdict on `connect` is open.
    ConnectAsked(Box<ConnectCall>),
    /// Commands are obeyed.
    Connected,
    /// We said no or goodbye: what comes is ignored, what is written is still to be sent.
    Closing,
    /// The peer broke a rule.
    Failed(ProtocolError),
}

/// What the connection is doing. One role at a time.
enum Activity {
    Idle,
    /// The verdict on a `publish` is open.
    PublishAsked(RequestId),
    /// The verdict on a `play` is open.
    PlayAsked(RequestId),
    Publishing(Box<Publisher>),
    Playing(RequestId),
}

/// A deadline, or the wish for one counted from the next time we are told.
#[derive(Clone, Copy)]
enum Deadline {
    At(Instant),
    FromNextTick,
}

/// Most message streams that [`Settings::streams_per_connection`] can allow.
const STREAMS_MAX: u32 = 64;
/// Pings answered a second.
const PINGS_MAX: u32 = 10;
/// Answers that may wait for a peer that does not read them.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// What may wait unread for the verdict on `connect`, where an honest peer sends next to nothing.
const CONNECT_HELD_BYTES_MAX: usize = 16 << 10;
/// How much one read may overshoot a full buffer before the owner is taken to ignore `wants_read`.
const READ_OVERSHOOT_MAX: usize = 1 << 20;
/// A buffer that was emptied keeps no more capacity than this.
const KEPT_CAPACITY_MAX: usize = 512;

impl Server {
    /// A connection accepted at `now`.
    #[must_use]
    pub fn new(settings: &Arc<Settings>, now: Instant) -> Self {
        Self {
            stage: Stage::Handshake {
                handshake: Box::new(Handshake::server()),
                deadline: after(now, settings.handshake_timeout),
            },
            activity: Activity::Idle,
            now,
            reader: chunk::Reader::new(settings),
            output: Output::new(),
            events: VecDeque::new(),
            held_input: Held::default(),
            turn_left: None,
            command_deadline: None,
            received_bytes: 0,
            acknowledged_bytes: 0,
            ack_window: settings.window_ack_size.max(settings.window_ack_floor),
            command_meter: Meter::new(now),
            ping_meter: Meter::new(now),
            glitch_meter: Meter::new(now),
            streams: 0,
            sequence: 0,
            player_buffer_ms: 0,
            glitches: 0,
            new_glitches: Glitches::default(),
            trace: Trace::new(now),
            settings: Arc::clone(settings),
        }
    }

    /// Takes bytes from the peer. All of them are consumed; events and answers wait to be polled.
    ///
    /// # Errors
    /// The rule, limit or deadline that was broken. Answers written before (a 400 for HTTP, an `_error`)
    /// are still to be polled; no more bytes may be given.
    pub fn handle_bytes(&mut self, now: Instant, input: &[u8]) -> Result<(), ProtocolError> {
        self.now = now;
        self.received_bytes = self.received_bytes.wrapping_add(u64::try_from(input.len()).unwrap_or(u64::MAX));
        match self.stage {
            Stage::Failed(error) => return Err(error),
            Stage::Closing => return Ok(()),
            _ => {}
        }
        // Bytes that arrive together with the deadline do not outrun it. Silence of a publisher is another
        // matter: bytes are what it is measured by.
        let outcome = self.check_stage_deadline(now).and_then(|()| self.take_input(input));
        self.acknowledge();
        outcome.map_err(|error| self.fail(error))
    }

    /// Tells the engine that time has passed.
    ///
    /// # Errors
    /// The stage whose deadline passed, or what was found wrong with bytes that had waited for a verdict.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ProtocolError> {
        self.now = now;
        match self.stage {
            Stage::Failed(error) => return Err(error),
            Stage::Closing => return Ok(()),
            _ => {}
        }
        if matches!(self.command_deadline, Some(Deadline::FromNextTick)) {
            self.command_deadline = Some(Deadline::At(after(now, self.settings.command_timeout)));
        }
        let mut outcome = self.check_stage_deadline(now);
        if let Activity::Publishing(publisher) = &self.activity
            && now >= publisher.media_deadline()
        {
            outcome = outcome.and(Err(ProtocolError::Deadline(publisher.stage())));
        }
        if self.message_deadline().is_some_and(|deadline| now >= deadline) {
            outcome = outcome.and(Err(ProtocolError::Deadline("message")));
        }
        outcome.map_err(|error| self.fail(error))
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called. It may lie in the past: then call at once.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Handshake { deadline, .. } => return Some(*deadline),
            Stage::Failed(_) => return Some(self.now),
            Stage::Closing => return None,
            Stage::AwaitConnect | Stage::ConnectAsked(_) | Stage::Connected => {}
        }
        let command = self.command_deadline.filter(|_| !self.is_asked()).map(|deadline| match deadline {
            Deadline::At(at) => at,
            Deadline::FromNextTick => self.now,
        });
        let media = match &self.activity {
            Activity::Publishing(publisher) => Some(publisher.media_deadline()),
            _ => None,
        };
        [command, media, self.message_deadline()].into_iter().flatten().min()
    }

    /// The next event, in order.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        let event = self.events.pop_front();
        // A player is mostly idle and there are many of them: they keep nothing. A publisher fills the queue again
        // with its next bytes.
        if event.is_none() && !matches!(self.activity, Activity::Publishing(_)) {
            self.events = VecDeque::new();
        }
        event
    }

    /// Bytes for the peer that are not yet sent: the owner sends a prefix and drains it. Empty most of the time.
    pub fn output(&mut self) -> &mut Vec<u8> {
        let bytes = &mut self.output.bytes;
        if bytes.is_empty() && bytes.capacity() > KEPT_CAPACITY_MAX {
            *bytes = Vec::new();
        }
        bytes
    }

    /// The same to look at.
    #[must_use]
    pub fn pending_output(&self) -> &[u8] {
        &self.output.bytes
    }

    /// False while media waits for a verdict beyond `verdict_buffer`, or something for the next turn: stop reading.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        if self.waits_for_verdict() {
            self.held_input.len() < self.held_input_max()
        } else {
            self.held_input.is_empty()
        }
    }

    /// Begins a turn in which at most `messages` are obeyed, each frame of an aggregate being one; what comes beyond
    /// them waits for [`handle_more`](Self::handle_more) in the next (RT-39). An owner that never calls this has
    /// everything obeyed at once.
    pub fn begin_turn(&mut self, messages: u32) {
        self.turn_left = Some(messages);
    }

    /// True while bytes wait that only a turn keeps from being obeyed.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.held_input.is_empty() && !self.waits_for_verdict() && !self.is_final()
    }

    /// Goes on with what the last turn left.
    ///
    /// # Errors
    /// As for [`handle_bytes`](Self::handle_bytes).
    pub fn handle_more(&mut self, now: Instant) -> Result<(), ProtocolError> {
        self.now = now;
        if let Stage::Failed(error) = self.stage {
            return Err(error);
        }
        self.go_on().map_err(|error| self.fail(error))
    }

    /// Answers `connect` with yes.
    pub fn accept_connect(&mut self) {
        let Stage::ConnectAsked(call) = &self.stage else { return };
        let call = ConnectCall::clone(call);
        self.stage = Stage::Connected;
        self.trace.note(self.now, What::Answer(Answer::ConnectAccepted));
        let window = u32::try_from(self.settings.window_ack_size).unwrap_or(u32::MAX);
        message::write_window_ack_size(&mut self.output.bytes, window);
        message::write_peer_bandwidth(&mut self.output.bytes, window, LimitType::Dynamic);
        self.output.set_chunk_size(self.settings.out_chunk_size);
        let mut properties = vec![
            (b"fmsVer".to_vec(), text("FMS/3,5,7,7009")),
            (b"capabilities".to_vec(), Value::Number(31.0)),
            (b"mode".to_vec(), Value::Number(1.0)),
        ];
        let mut status = match info(Level::Status, "NetConnection.Connect.Success", "Connection succeeded.") {
            Value::Object(items) => items,
            _ => Vec::new(),
        };
        status.push((b"objectEncoding".to_vec(), Value::Number(call.object_encoding)));
        if call.is_enhanced {
            // Peers look for these in either object, so both have them.
            properties.extend(enhanced_properties());
            status.extend(enhanced_properties());
        }
        self.output.command(0, "_result", call.transaction, &[Value::Object(properties), Value::Object(status)]);
        self.resume();
    }

    /// Answers `connect` with `_error` `NetConnection.Connect.Rejected` (or `.InvalidApp`) and marks the
    /// connection to be closed once the output is sent.
    pub fn reject_connect(&mut self, refusal: Refusal) {
        let Stage::ConnectAsked(call) = &self.stage else { return };
        let transaction = call.transaction;
        self.refuse_connect(transaction, refusal);
    }

    /// Answers `publish` with yes and releases the media held back. Nothing happens when the peer took the request
    /// back meanwhile ([`ServerEvent::Ended`] told so).
    pub fn accept_publish(&mut self, now: Instant, request: RequestId) {
        self.now = now;
        if !matches!(self.activity, Activity::PublishAsked(asked) if asked == request) || self.is_final() {
            return;
        }
        self.command_deadline = None;
        self.trace.note(now, What::Answer(Answer::PublishAccepted));
        self.reader.authorize();
        self.activity = Activity::Publishing(Box::new(Publisher::new(&self.settings, now, request)));
        UserControl::StreamBegin(request.stream_id).write(&mut self.output.bytes);
        self.output.status(
            request.stream_id,
            Level::Status,
            "NetStream.Publish.Start",
            "The stream is being published.",
        );
        self.resume();
    }

    /// Answers `play` with yes: `StreamBegin`, `Play.Reset`, `Play.Start`, `|RtmpSampleAccess`. The chunk size was
    /// announced with the answer to `connect`. After it the owner appends packaged frames behind the output.
    /// Nothing happens when the peer took the request back meanwhile.
    pub fn accept_play(&mut self, now: Instant, request: RequestId) {
        self.now = now;
        if !matches!(self.activity, Activity::PlayAsked(asked) if asked == request) || self.is_final() {
            return;
        }
        self.command_deadline = None;
        self.trace.note(now, What::Answer(Answer::PlayAccepted));
        self.activity = Activity::Playing(request);
        let id = request.stream_id;
        UserControl::StreamBegin(id).write(&mut self.output.bytes);
        self.output.status(id, Level::Status, "NetStream.Play.Reset", "Playing and resetting the stream.");
        self.output.status(id, Level::Status, "NetStream.Play.Start", "The stream is being played.");
        // Without this, players in a browser plug-in may not look at pixels and samples.
        self.output.data(id, &[text("|RtmpSampleAccess"), Value::Boolean(true), Value::Boolean(true)]);
        self.resume();
    }

    /// Answers `publish` or `play` with no. The connection stays open until its command deadline or the owner's close.
    pub fn reject(&mut self, request: RequestId, refusal: Refusal) {
        self.reject_to(request, refusal, None);
    }

    /// The same, naming the URL where the peer should go instead: in `ex`, as a refused `connect` would.
    pub fn reject_to(&mut self, request: RequestId, refusal: Refusal, redirect: Option<&str>) {
        let is_asked = matches!(
            self.activity,
            Activity::PublishAsked(asked) | Activity::PlayAsked(asked) if asked == request
        );
        if !is_asked || self.is_final() {
            return;
        }
        self.activity = Activity::Idle;
        self.trace.note(self.now, What::Answer(Answer::Refused));
        match redirect {
            None => self.output.status(request.stream_id, Level::Error, refusal.code, refusal.description),
            Some(url) => self.output.status_elsewhere(request.stream_id, refusal.code, refusal.description, url),
        }
        self.resume();
    }

    /// Tells a player that its stream ended: `StreamEOF`, `NetStream.Play.UnpublishNotify`, `Play.Stop`/`Play.Complete`.
    /// The player may then begin another within the command timeout; no [`ServerEvent::Ended`] follows.
    pub fn end_play(&mut self, request: RequestId) {
        if !matches!(self.activity, Activity::Playing(playing) if playing == request) || self.is_final() {
            return;
        }
        let id = request.stream_id;
        self.trace.note(self.now, What::Answer(Answer::PlayEnded));
        self.output.status(id, Level::Status, "NetStream.Play.UnpublishNotify", "The publisher has gone.");
        self.output.data(
            id,
            &[text("onPlayStatus"), object([("level", text("status")), ("code", text("NetStream.Play.Complete"))])],
        );
        self.output.status(id, Level::Status, "NetStream.Play.Stop", "The stream has ended.");
        UserControl::StreamEof(id).write(&mut self.output.bytes);
        self.activity = Activity::Idle;
        self.command_deadline = Some(Deadline::FromNextTick);
    }

    /// Tells a player that its publisher went (true) or came back (false): `UnpublishNotify`/`PublishNotify`.
    pub fn notify_unpublished(&mut self, request: RequestId, gone: bool) {
        if !matches!(self.activity, Activity::Playing(playing) if playing == request) || self.is_final() {
            return;
        }
        let (code, description) = if gone {
            ("NetStream.Play.UnpublishNotify", "The publisher has gone.")
        } else {
            ("NetStream.Play.PublishNotify", "The publisher is here.")
        };
        self.output.status(request.stream_id, Level::Status, code, description);
    }

    /// Tells a publisher or player that it is being ended by us (`NetStream.Publish.Denied`-class or
    /// `NetConnection.Connect.Closed` status), before the owner closes. What the peer sends from here on is ignored.
    pub fn goodbye(&mut self, refusal: Refusal) {
        // Before the handshake is through there is no message that could say it.
        if self.is_final() || matches!(self.stage, Stage::Handshake { .. }) {
            return;
        }
        self.trace.note(self.now, What::Answer(Answer::Goodbye));
        let stream_id = match &self.activity {
            Activity::Idle => 0,
            Activity::PublishAsked(request) | Activity::PlayAsked(request) | Activity::Playing(request) => {
                request.stream_id
            }
            Activity::Publishing(publisher) => publisher.request.stream_id,
        };
        self.output.status(stream_id, Level::Error, refusal.code, refusal.description);
        self.close();
    }

    /// True once the connection is to be closed as soon as the output is sent: we refused `connect` or said goodbye.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.is_final()
    }

    /// What the peer did wrong, once it has: also where it was found in bytes that had waited for a verdict, so that no
    /// call could tell it.
    #[must_use]
    pub fn failure(&self) -> Option<ProtocolError> {
        match self.stage {
            Stage::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Bytes the engine holds for its peer: partial messages, held media, output.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.reader.partial_bytes().saturating_add(self.held_input.len()).saturating_add(self.output.bytes.len())
    }

    /// Glitches since the connection began, forgotten ones included.
    #[must_use]
    pub fn glitches(&self) -> u32 {
        self.glitches
    }

    /// Those since the last call, by what they were.
    pub fn take_glitches(&mut self) -> Glitches {
        mem::take(&mut self.new_glitches)
    }

    /// What happened last on the connection.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Other settings, for a server that is under more pressure or less: deadlines that run end as if their stage had
    /// begun with these.
    pub fn adopt(&mut self, settings: &Arc<Settings>) {
        let before = mem::replace(&mut self.settings, Arc::clone(settings));
        if let Stage::Handshake { deadline, .. } = &mut self.stage {
            *deadline = moved(*deadline, before.handshake_timeout, settings.handshake_timeout);
        }
        if let Some(Deadline::At(deadline)) = &mut self.command_deadline {
            *deadline = moved(*deadline, before.command_timeout, settings.command_timeout);
        }
        if let Activity::Publishing(publisher) = &mut self.activity {
            publisher.adopt(&before, settings);
        }
        self.reader.set_message_timeout(settings.message_timeout);
    }

    /// The buffer a player said it has, in milliseconds, at most ten seconds; zero when it said nothing.
    #[must_use]
    pub fn player_buffer_ms(&self) -> u16 {
        self.player_buffer_ms
    }
}

/// Answers and ends.
impl Server {
    /// `_result` with one value; a transaction of zero asks for none.
    fn answer(&mut self, call: &Call, value: Value) {
        if call.transaction != 0.0 {
            self.output.command(0, "_result", call.transaction, &[Value::Null, value]);
        }
    }

    fn answer_null(&mut self, call: &Call) {
        self.answer(call, Value::Null);
    }

    /// `_error` `NetConnection.Call.Failed`.
    fn fail_call(&mut self, call: &Call, description: &str) {
        if call.transaction != 0.0 {
            let status = info(Level::Error, "NetConnection.Call.Failed", description);
            self.output.command(0, "_error", call.transaction, &[Value::Null, status]);
        }
    }

    /// A status that a user sees, and `_error` for those who asked for an answer.
    fn refuse_call(&mut self, stream_id: u32, call: &Call, refusal: Refusal) {
        self.output.status(stream_id, Level::Error, refusal.code, refusal.description);
        if call.transaction != 0.0 {
            let status = info(Level::Error, refusal.code, refusal.description);
            self.output.command(stream_id, "_error", call.transaction, &[Value::Null, status]);
        }
    }

    fn refuse_connect(&mut self, transaction: f64, refusal: Refusal) {
        self.trace.note(self.now, What::Answer(Answer::ConnectRefused));
        let status = info(Level::Error, refusal.code, refusal.description);
        self.output.command(0, "_error", transaction, &[Value::Null, status]);
        self.close();
    }

    /// A command of ours that reports on one of the peer's (`onFCPublish` and its kin).
    fn notify(&mut self, name: &str, code: &str, description: &str) {
        self.output.command(0, name, 0.0, &[Value::Null, info(Level::Status, code, description)]);
    }

    /// At most one Acknowledgement for one input (RT-28).
    fn acknowledge(&mut self) {
        if self.is_final() || matches!(self.stage, Stage::Handshake { .. }) {
            return;
        }
        if self.received_bytes.wrapping_sub(self.acknowledged_bytes) >= self.ack_window {
            self.acknowledged_bytes = self.received_bytes;
            message::write_acknowledgement(&mut self.output.bytes, self.received_bytes);
        }
    }

    /// A peer that asks and does not read the answers would have us keep them.
    fn check_output(&self) -> Result<(), ProtocolError> {
        if self.output.bytes.len() < OUTPUT_BYTES_MAX { Ok(()) } else { Err(ProtocolError::Limit("output")) }
    }

    fn on_glitches(&mut self, what: Glitch, count: u32) -> Result<(), ProtocolError> {
        if count == 0 {
            return Ok(());
        }
        self.glitches = self.glitches.saturating_add(count);
        self.new_glitches.add(what, count);
        self.trace.note(self.now, What::Glitch(what, u16::try_from(count).unwrap_or(u16::MAX)));
        if self.glitch_meter.add(self.now, count, 1, self.settings.glitches_max.saturating_sub(1)) {
            Ok(())
        } else {
            Err(ProtocolError::Illegal("glitches"))
        }
    }

    /// True while the owner owes an answer: then it is not the peer who is late. The deadline waits, and is not moved.
    fn is_asked(&self) -> bool {
        matches!(self.activity, Activity::PublishAsked(_) | Activity::PlayAsked(_))
    }

    fn check_stage_deadline(&self, now: Instant) -> Result<(), ProtocolError> {
        let (deadline, stage) = match (&self.stage, self.command_deadline) {
            (Stage::Handshake { deadline, .. }, _) => (*deadline, "handshake"),
            (_, Some(Deadline::At(deadline))) if !self.is_asked() => (deadline, "command"),
            _ => return Ok(()),
        };
        if now >= deadline { Err(ProtocolError::Deadline(stage)) } else { Ok(()) }
    }

    /// A message whose rest waits here for a verdict is not late.
    fn message_deadline(&self) -> Option<Instant> {
        if self.held_input.is_empty() { self.reader.message_deadline() } else { None }
    }

    fn fail(&mut self, error: ProtocolError) -> ProtocolError {
        self.stage = Stage::Failed(error);
        self.held_input = Held::default();
        error
    }

    fn close(&mut self) {
        self.stage = Stage::Closing;
        self.held_input = Held::default();
    }

    fn is_final(&self) -> bool {
        matches!(self.stage, Stage::Closing | Stage::Failed(_))
    }
}

/// The bit of a message stream id in [`Server::streams`].
fn stream_bit(id: u32) -> u64 {
    1u64.checked_shl(id.saturating_sub(1)).unwrap_or(0)
}

/// What an Enhanced RTMP v2 server says of itself: it forwards every codec, multitrack and `ModEx` as they come. The
/// reconnect bit (1) is not set, because we never send a `ReconnectRequest`.
fn enhanced_properties() -> [(Vec<u8>, Value); 4] {
    /// `FourCcInfoMask` `CanForward`.
    const CAN_FORWARD: f64 = 4.0;
    /// `CapsExMask` `Multitrack` | `ModEx`.
    const CAPS_EX: f64 = 6.0;
    let any = || object([("*", Value::Number(CAN_FORWARD))]);
    [
        (b"fourCcList".to_vec(), Value::StrictArray(vec![text("*")])),
        (b"videoFourCcInfoMap".to_vec(), any()),
        (b"audioFourCcInfoMap".to_vec(), any()),
        (b"capsEx".to_vec(), Value::Number(CAPS_EX)),
    ]
}

/// The message stream id that `createStream` hands out first, and that packaged frames carry.
pub const PLAY_STREAM_ID: u32 = 1;
