//! From bytes to messages: what is obeyed at once, what waits for a verdict, what is media.

use std::mem;

use crate::proto::rtmp::chunk::RawMessage;
use crate::proto::rtmp::message::{self, Parsed, UserControl, type_id};
use crate::proto::rtmp::server::command::{self};
use crate::proto::rtmp::server::meter::after;
use crate::proto::rtmp::server::trace::What;
use crate::proto::rtmp::server::{
    Activity, CONNECT_HELD_BYTES_MAX, Deadline, PINGS_MAX, READ_OVERSHOOT_MAX, RequestId, Server, ServerEvent, Stage,
};
use crate::proto::rtmp::{Glitch, Glitches, ProtocolError};

impl Server {
    pub(super) fn take_input(&mut self, input: &[u8]) -> Result<(), ProtocolError> {
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
    pub(super) fn go_on(&mut self) -> Result<(), ProtocolError> {
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
    pub(super) fn resume(&mut self) {
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

    pub(super) fn waits_for_verdict(&self) -> bool {
        matches!(self.stage, Stage::ConnectAsked(_)) || matches!(self.activity, Activity::PublishAsked(_))
    }

    pub(super) fn held_input_max(&self) -> usize {
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
