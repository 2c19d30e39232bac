//! The commands of a peer, and what becomes of them.

use std::mem;

use crate::names::Kind;
use crate::proto::rtmp::amf0::Value;
use crate::proto::rtmp::chunk::RawMessage;
use crate::proto::rtmp::server::command::{self, Call};
use crate::proto::rtmp::server::meter::after;
use crate::proto::rtmp::server::output::Level;
use crate::proto::rtmp::server::trace::What;
use crate::proto::rtmp::server::{
    Activity, Deadline, PLAY_STREAM_ID, Refusal, RequestId, STREAMS_MAX, Server, ServerEvent, Stage, stream_bit,
};
use crate::proto::rtmp::{Glitch, ProtocolError};

impl Server {
    pub(super) fn on_command(&mut self, message: &RawMessage, body: &[u8]) -> Result<(), ProtocolError> {
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
            Err(problem) => {
                self.events.push_back(ServerEvent::Refused(Kind::Publish, problem.rule()));
                return refuse(self, "NetStream.Publish.BadName", problem.description());
            }
        };
        // Recording is not the edge's business: `record` and `append` are published live (RT-56).
        let is_known_type = match call.arg(2) {
            None | Some(Value::Null | Value::Undefined) => true,
            Some(kind) => matches!(kind.as_str(), Some("live" | "record" | "append" | "LIVE" | "")),
        };
        if !is_known_type {
            self.events.push_back(ServerEvent::Refused(Kind::Publish, "publish_type"));
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
            Err(problem) => {
                self.events.push_back(ServerEvent::Refused(Kind::Play, problem.rule()));
                refuse(self, "NetStream.Play.StreamNotFound", problem.description());
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
