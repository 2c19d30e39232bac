//! The server's side of one RTMP connection: bytes in, events and bytes out, time as an argument.

mod command;
mod held;
mod meter;
mod output;
mod publisher;
mod trace;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use crate::media::Frame;
use crate::proto::rtmp::amf0::Value;
use crate::proto::rtmp::chunk::{self, RawMessage};
use crate::proto::rtmp::handshake::Handshake;
use crate::proto::rtmp::message::{self, LimitType, Parsed, UserControl, type_id};
use crate::proto::rtmp::{Glitch, Glitches, ProtocolError, Settings};

use command::{Call, ConnectCall, NameProblem};
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

/// Input, from bytes to messages.
impl Server {
    fn take_input(&mut self, input: &[u8]) -> Result<(), ProtocolError> {
        let Stage::Handshake { handshake, .. } = &mut self.stage else { return self.read(input) };
        let progress = handshake.handle(input, &mut self.output.bytes)?;
        if !progress.done {
            return Ok(());
        }
        self.stage = Stage::AwaitConnect;
        self.trace.note(self.now, What::Handshake);
        self.command_deadline = Some(Deadline::At(after(self.now, self.settings.command_timeout)));
        self.read(input.get(progress.consumed..).unwrap_or_default())
    }

    /// Reads messages as long as neither a verdict nor the end of the turn stands in the way, and keeps the rest.
    fn read(&mut self, input: &[u8]) -> Result<(), ProtocolError> {
        if !self.held_input.is_empty() {
            self.hold(input)?;
            return self.go_on();
        }
        let mut rest = input;
        self.obey(&mut rest)?;
        self.hold(rest)
    }

    /// Reads on in what was kept.
    fn go_on(&mut self) -> Result<(), ProtocolError> {
        // Nothing is added to it meanwhile: obeying a message makes events and answers and no input.
        let mut held = mem::take(&mut self.held_input);
        let mut rest = held.rest();
        let outcome = self.obey(&mut rest);
        let left = if self.is_final() { 0 } else { rest.len() };
        held.keep_last(left);
        self.held_input = held;
        outcome
    }

    /// Goes on after a verdict. An error is kept and told by the next call that can.
    fn resume(&mut self) {
        if let Err(error) = self.go_on() {
            self.fail(error);
        }
    }

    /// Obeys messages from the front of `input`, and leaves what must wait.
    fn obey(&mut self, input: &mut &[u8]) -> Result<(), ProtocolError> {
        while !input.is_empty() && !self.is_final() && !self.waits_for_verdict() && self.turn_left != Some(0) {
            let outcome = self.reader.poll_message(self.now, input);
            let glitches = self.reader.has_glitches().then(|| self.reader.take_glitches());
            if let Some(message) = outcome? {
                let events = self.events.len();
                self.on_message(message)?;
                let frames = u32::try_from(self.events.len().saturating_sub(events)).unwrap_or(u32::MAX);
                self.turn_left = self.turn_left.map(|left| left.saturating_sub(frames.max(1)));
            }
            for (what, count) in glitches.iter().flat_map(Glitches::iter) {
                self.on_glitches(what, count)?;
            }
        }
        Ok(())
    }

    fn hold(&mut self, input: &[u8]) -> Result<(), ProtocolError> {
        if input.is_empty() || self.is_final() {
            return Ok(());
        }
        self.held_input.extend(input);
        if self.held_input.len() > self.held_input_max().saturating_add(READ_OVERSHOOT_MAX) {
            return Err(ProtocolError::Limit("verdict_buffer"));
        }
        Ok(())
    }

    fn waits_for_verdict(&self) -> bool {
        matches!(self.stage, Stage::ConnectAsked(_)) || matches!(self.activity, Activity::PublishAsked(_))
    }

    fn held_input_max(&self) -> usize {
        match self.stage {
            Stage::ConnectAsked(_) => CONNECT_HELD_BYTES_MAX,
            _ => usize::try_from(self.settings.verdict_buffer).unwrap_or(usize::MAX),
        }
    }

    fn on_message(&mut self, message: RawMessage) -> Result<(), ProtocolError> {
        if self.is_final() {
            return Ok(());
        }
        if !matches!(message.type_id, type_id::COMMAND_AMF0 | type_id::COMMAND_AMF3) {
            let what = What::message(message.type_id, message.payload.len(), message.timestamp_ms);
            self.trace.note(self.now, what);
        }
        match message.type_id {
            // Statistics only: sending never waits for it (RT-27).
            type_id::ACKNOWLEDGEMENT => {
                let Parsed { longer, .. } = message::parse_u32(&message.payload)?;
                self.on_glitches(Glitch::Longer, u32::from(longer))
            }
            type_id::WINDOW_ACK_SIZE => {
                let Parsed { value, longer } = message::parse_window_ack_size(&message.payload, &self.settings)?;
                self.ack_window = u64::from(value);
                self.on_glitches(Glitch::Longer, u32::from(longer))
            }
            // Our sending is bounded by what the peer reads, whatever bandwidth it names (RT-29).
            type_id::SET_PEER_BANDWIDTH => {
                let Parsed { longer, .. } = message::parse_peer_bandwidth(&message.payload)?;
                self.on_glitches(Glitch::Longer, u32::from(longer))
            }
            type_id::USER_CONTROL => self.on_user_control(&message.payload),
            type_id::COMMAND_AMF0 => self.on_command(&message, &message.payload),
            type_id::COMMAND_AMF3 => match message.payload.split_first() {
                Some((0, body)) => self.on_command(&message, body),
                _ if matches!(self.stage, Stage::AwaitConnect) => {
                    self.refuse_connect(1.0, command::UNREADABLE_CONNECT);
                    Ok(())
                }
                _ => self.on_glitches(Glitch::Command, 1),
            },
            type_id::AUDIO | type_id::VIDEO | type_id::AGGREGATE | type_id::DATA_AMF0 => self.on_media(message),
            // AMF3 data and shared objects have no reader here (RT-33); what is unknown was counted by the chunk
            // reader (RT-31).
            _ => Ok(()),
        }
    }

    fn on_user_control(&mut self, body: &[u8]) -> Result<(), ProtocolError> {
        let Parsed { value, longer } = UserControl::parse(body)?;
        match value {
            UserControl::PingRequest(time) if self.ping_meter.add(self.now, 1, PINGS_MAX, PINGS_MAX) => {
                self.check_output()?;
                UserControl::PingResponse(time).write(&mut self.output.bytes);
            }
            UserControl::SetBufferLength { buffer_ms, .. } => {
                self.player_buffer_ms = u16::try_from(buffer_ms).unwrap_or(u16::MAX);
            }
            _ => {}
        }
        self.on_glitches(Glitch::Longer, u32::from(longer))
    }

    fn on_media(&mut self, message: RawMessage) -> Result<(), ProtocolError> {
        let is_data = message.type_id == type_id::DATA_AMF0;
        let on_stream = |request: RequestId| {
            // Some encoders send their metadata on message stream 0.
            message.stream_id == request.stream_id || (is_data && message.stream_id == 0)
        };
        match &mut self.activity {
            Activity::Publishing(publisher) if on_stream(publisher.request) => {
                let events = &mut self.events;
                let mut emit = |frame| events.push_back(ServerEvent::Frame(frame));
                let glitches = publisher.handle(&self.settings, self.now, message, &mut emit)?;
                self.on_glitches(Glitch::Media, glitches)
            }
            // On another message stream than the one published (RT-35).
            Activity::Publishing(_) => self.on_glitches(Glitch::Stream, 1),
            // What was under way when a publish was refused or ended may still arrive; the command deadline bounds it.
            Activity::Idle if self.sequence > 0 => Ok(()),
            _ if is_data => self.on_glitches(Glitch::Stream, 1),
            _ => Err(ProtocolError::Illegal("media_before_publish")),
        }
    }
}

/// Commands.
impl Server {
    fn on_command(&mut self, message: &RawMessage, body: &[u8]) -> Result<(), ProtocolError> {
        let rate = self.settings.command_rate;
        if !self.command_meter.add(self.now, 1, rate, rate.saturating_mul(2)) {
            return Err(ProtocolError::Limit("command_rate"));
        }
        self.check_output()?;
        let Some(call) = Call::read(body) else { return self.on_glitches(Glitch::Command, 1) };
        self.trace.note(self.now, What::command(&call.name));
        match (&self.stage, call.name.as_str()) {
            (Stage::AwaitConnect, "connect") => {
                match command::read_connect(&call) {
                    Ok((connect, asked)) => {
                        self.stage = Stage::ConnectAsked(Box::new(asked));
                        self.events.push_back(ServerEvent::Connect(Box::new(connect)));
                    }
                    Err(refusal) => self.refuse_connect(call.transaction, refusal),
                }
                return Ok(());
            }
            (Stage::AwaitConnect, _) => return Err(ProtocolError::Illegal("connect_first")),
            (_, "connect") => {
                let refusal = Refusal {
                    code: "NetConnection.Connect.Rejected",
                    description: "This connection is connected already.",
                };
                self.refuse_connect(call.transaction, refusal);
                return Ok(());
            }
            _ => {}
        }
        if call.is_broken {
            self.fail_call(&call, "The arguments cannot be read.");
            return self.on_glitches(Glitch::Command, 1);
        }
        self.on_call(message.stream_id, &call);
        Ok(())
    }

    /// Obeys a readable command of a connected peer.
    fn on_call(&mut self, stream_id: u32, call: &Call) {
        match call.name.as_str() {
            "createStream" => self.on_create_stream(call),
            "publish" => self.on_publish(stream_id, call),
            "play" => self.on_play(stream_id, call),
            "FCPublish" => {
                self.notify("onFCPublish", "NetStream.Publish.Start", "FCPublish was received.");
                self.answer_null(call);
            }
            "FCUnpublish" => {
                self.notify("onFCUnpublish", "NetStream.Unpublish.Success", "FCUnpublish was received.");
                self.answer_null(call);
                if let Some(id) = self.publish_stream_id() {
                    self.end(id);
                }
            }
            "FCSubscribe" => {
                self.notify("onFCSubscribe", "NetStream.Play.Start", "FCSubscribe was received.");
                self.answer_null(call);
            }
            "closeStream" => {
                // Stream 0 is the connection itself: what is meant can only be the one stream in use.
                let id = if stream_id == 0 { self.active_stream_id().unwrap_or(0) } else { stream_id };
                self.end(id);
            }
            "deleteStream" => {
                if let Some(id) = call.stream_id(1) {
                    self.end(id);
                    self.streams &= !stream_bit(id);
                }
            }
            "getStreamLength" => self.answer(call, Value::Number(0.0)),
            "pause" | "pauseRaw" => self.on_pause(stream_id, call),
            "seek" => {
                if self.playing_on(stream_id).is_some() {
                    let description = "A live stream goes on where it is.";
                    self.output.status(stream_id, Level::Status, "NetStream.Seek.Notify", description);
                }
            }
            "receiveAudio" => {
                if let (Some(request), Some(flag)) = (self.playing_on(stream_id), call.flag(1)) {
                    self.events.push_back(ServerEvent::ReceiveAudio(request, flag));
                }
            }
            "receiveVideo" => {
                if let (Some(request), Some(flag)) = (self.playing_on(stream_id), call.flag(1)) {
                    self.events.push_back(ServerEvent::ReceiveVideo(request, flag));
                }
            }
            // Answers to what we never asked, and a switch between recordings that a live server does not have.
            "_result" | "_error" | "onStatus" | "play2" => {}
            _ => self.answer_null(call),
        }
    }

    fn on_create_stream(&mut self, call: &Call) {
        let most = u32::try_from(self.settings.streams_per_connection).unwrap_or(STREAMS_MAX).min(STREAMS_MAX);
        let Some(id) = (1..=most).find(|id| self.streams & stream_bit(*id) == 0) else {
            self.fail_call(call, "This connection has as many streams as it may have.");
            return;
        };
        self.streams |= stream_bit(id);
        self.answer(call, Value::Number(f64::from(id)));
    }

    fn on_publish(&mut self, stream_id: u32, call: &Call) {
        let refuse = |server: &mut Self, code, description| {
            server.refuse_call(stream_id, call, Refusal { code, description });
        };
        if !matches!(self.activity, Activity::Idle) {
            return refuse(self, "NetStream.Publish.BadConnection", "This connection publishes or plays already.");
        }
        let (stream, query) = match command::read_stream(call.arg(1)) {
            Ok(named) => named,
            Err(NameProblem::Name) => {
                return refuse(self, "NetStream.Publish.BadName", "The stream's name is not a valid name.");
            }
            Err(NameProblem::Query) => {
                return refuse(
                    self,
                    "NetStream.Publish.BadName",
                    "The stream's query is too long or says a parameter twice.",
                );
            }
        };
        // Recording is not the edge's business: `record` and `append` are published live (RT-56).
        let is_known_type = match call.arg(2) {
            None | Some(Value::Null | Value::Undefined) => true,
            Some(kind) => matches!(kind.as_str(), Some("live" | "record" | "append" | "LIVE" | "")),
        };
        if !is_known_type {
            return refuse(self, "NetStream.Publish.Failed", "The publish type is none of live, record and append.");
        }
        let request = self.next_request(stream_id);
        self.activity = Activity::PublishAsked(request);
        self.events.push_back(ServerEvent::Publish { request, stream, query });
    }

    fn on_play(&mut self, stream_id: u32, call: &Call) {
        let refuse = |server: &mut Self, code, description| {
            server.refuse_call(stream_id, call, Refusal { code, description });
        };
        if !matches!(self.activity, Activity::Idle) {
            return refuse(self, "NetStream.Play.Failed", "This connection publishes or plays already.");
        }
        if stream_id != PLAY_STREAM_ID {
            return refuse(
                self,
                "NetStream.Play.Failed",
                "Play on message stream 1: create it first, or delete the stream that has it.",
            );
        }
        // Start, duration and reset mean recordings; a live stream begins now, whatever they say (RT-57).
        match command::read_stream(call.arg(1)) {
            Ok((stream, query)) => {
                let request = self.next_request(stream_id);
                self.activity = Activity::PlayAsked(request);
                self.events.push_back(ServerEvent::Play { request, stream, query });
            }
            Err(NameProblem::Name) => {
                refuse(self, "NetStream.Play.StreamNotFound", "The stream's name is not a valid name.");
            }
            Err(NameProblem::Query) => {
                refuse(
                    self,
                    "NetStream.Play.StreamNotFound",
                    "The stream's query is too long or says a parameter twice.",
                );
            }
        }
    }

    fn on_pause(&mut self, stream_id: u32, call: &Call) {
        let (Some(request), Some(is_paused)) = (self.playing_on(stream_id), call.flag(1)) else { return };
        let (code, description) = if is_paused {
            ("NetStream.Pause.Notify", "The stream is paused.")
        } else {
            ("NetStream.Unpause.Notify", "The stream goes on.")
        };
        self.output.status(stream_id, Level::Status, code, description);
        self.events.push_back(ServerEvent::Pause(request, is_paused));
    }

    /// Ends what is done or asked on a message stream; harmless where there is nothing.
    fn end(&mut self, stream_id: u32) {
        let request = match &self.activity {
            Activity::PublishAsked(request) | Activity::PlayAsked(request) | Activity::Playing(request) => *request,
            Activity::Publishing(publisher) => publisher.request,
            Activity::Idle => return,
        };
        if request.stream_id != stream_id {
            return;
        }
        let ended = mem::replace(&mut self.activity, Activity::Idle);
        self.events.push_back(ServerEvent::Ended(request));
        match ended {
            Activity::Publishing(_) => {
                let description = "The stream is no longer published.";
                self.output.status(stream_id, Level::Status, "NetStream.Unpublish.Success", description);
            }
            Activity::Playing(_) => {
                self.output.status(stream_id, Level::Status, "NetStream.Play.Stop", "The stream was stopped.");
            }
            // Nothing was accepted, so the deadline for that still runs.
            _ => return,
        }
        self.command_deadline = Some(Deadline::At(after(self.now, self.settings.command_timeout)));
    }

    fn next_request(&mut self, stream_id: u32) -> RequestId {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        RequestId { stream_id, sequence: self.sequence }
    }

    fn playing_on(&self, stream_id: u32) -> Option<RequestId> {
        match self.activity {
            Activity::Playing(request) if request.stream_id == stream_id => Some(request),
            _ => None,
        }
    }

    fn publish_stream_id(&self) -> Option<u32> {
        match &self.activity {
            Activity::PublishAsked(request) => Some(request.stream_id),
            Activity::Publishing(publisher) => Some(publisher.request.stream_id),
            _ => None,
        }
    }

    fn active_stream_id(&self) -> Option<u32> {
        match &self.activity {
            Activity::PlayAsked(request) | Activity::Playing(request) => Some(request.stream_id),
            _ => self.publish_stream_id(),
        }
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
