//! Our engines against those of `rml_rtmp`, which were written by others.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType, ServerSession,
    ServerSessionConfig, ServerSessionEvent, ServerSessionResult, StreamMetadata,
};
use rml_rtmp::time::RtmpTimestamp;
use sluicegate::media::Track;
use sluicegate::proto::rtmp::Settings;
use sluicegate::proto::rtmp::chunk::write_message;
use sluicegate::proto::rtmp::client::{Client, ClientEvent, Intent};
use sluicegate::proto::rtmp::message::type_id;
use sluicegate::proto::rtmp::server::{RequestId, Server, ServerEvent};

use crate::support::{AAC_FRAME, AVC_KEYFRAME, metadata, set_data_frame};

/// Their client and our server.
struct TheirClient {
    session: ClientSession,
    server: Server,
    now: Instant,
    their_events: Vec<ClientSessionEvent>,
    our_events: Vec<ServerEvent>,
}

impl TheirClient {
    fn connected() -> Self {
        let now = Instant::now();
        let mut server = Server::new(&Arc::new(Settings::default()), now);
        let mut handshake = Handshake::new(PeerType::Client);
        server.handle_bytes(now, &handshake.generate_outbound_p0_and_p1().unwrap()).unwrap();
        let answer = std::mem::take(server.output());
        let mut done = false;
        match handshake.process_bytes(&answer).unwrap() {
            HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                server.handle_bytes(now, &response_bytes).unwrap();
                assert!(remaining_bytes.is_empty());
                done = true;
            }
            HandshakeProcessResult::InProgress { .. } => {}
        }
        assert!(done, "their handshake accepts ours");
        let mut config = ClientSessionConfig::new();
        config.tc_url = Some("rtmp://edge.example/live".to_owned());
        let (session, results) = ClientSession::new(config).unwrap();
        let mut both = Self { session, server, now, their_events: Vec::new(), our_events: Vec::new() };
        both.take(results);
        let result = both.session.request_connection("live".to_owned()).unwrap();
        both.take(vec![result]);
        match both.our_events.pop() {
            Some(ServerEvent::Connect(info)) => {
                assert_eq!((info.app.as_str(), info.vhost.as_deref()), ("live", Some("edge.example")));
            }
            other => panic!("{other:?}"),
        }
        both.server.accept_connect();
        both.flush();
        assert!(both.their_events.contains(&ClientSessionEvent::ConnectionRequestAccepted), "{:?}", both.their_events);
        both.their_events.clear();
        both
    }

    fn take(&mut self, results: Vec<ClientSessionResult>) {
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(packet) => {
                    self.server.handle_bytes(self.now, &packet.bytes).unwrap();
                }
                ClientSessionResult::RaisedEvent(event) => self.their_events.push(event),
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        while let Some(event) = self.server.poll_event() {
            self.our_events.push(event);
        }
    }

    fn flush(&mut self) {
        loop {
            let bytes = std::mem::take(self.server.output());
            if bytes.is_empty() {
                return;
            }
            let results = self.session.handle_input(&bytes).unwrap();
            self.take(results);
        }
    }

    fn request(&mut self, result: ClientSessionResult) -> RequestId {
        self.take(vec![result]);
        self.flush();
        match self.our_events.pop() {
            Some(ServerEvent::Publish { request, stream, .. } | ServerEvent::Play { request, stream, .. }) => {
                assert_eq!(stream, "cam");
                request
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn their_client_publishes_to_our_server() {
    let mut both = TheirClient::connected();
    let result = both.session.request_publishing("cam".to_owned(), PublishRequestType::Live).unwrap();
    let request = both.request(result);
    both.server.accept_publish(both.now, request);
    both.flush();
    assert_eq!(both.their_events, [ClientSessionEvent::PublishRequestAccepted]);
    let mut data = StreamMetadata::new();
    data.video_width = Some(640);
    let body = Bytes::from([AVC_KEYFRAME, &[5; 50_000]].concat());
    let results = vec![
        both.session.publish_metadata(&data).unwrap(),
        both.session.publish_video_data(body.clone(), RtmpTimestamp::new(40), false).unwrap(),
        both.session.publish_audio_data(Bytes::from_static(AAC_FRAME), RtmpTimestamp::new(43), false).unwrap(),
    ];
    both.take(results);
    let frames: Vec<_> = both
        .our_events
        .drain(..)
        .map(|event| match event {
            ServerEvent::Frame(frame) => frame,
            other => panic!("{other:?}"),
        })
        .collect();
    let seen: Vec<_> = frames.iter().map(|frame| (frame.track, frame.timestamp_ms)).collect();
    assert_eq!(seen, [(Track::Data, frames[0].timestamp_ms), (Track::Video, 40), (Track::Audio, 43)]);
    assert!(frames[0].flags.metadata && frames[1].flags.keyframe);
    assert_eq!(frames[1].payload, body);
    let results = both.session.stop_publishing().unwrap();
    both.take(results);
    assert_eq!(both.our_events, [ServerEvent::Ended(request)]);
}

#[test]
fn their_client_plays_from_our_server() {
    let mut both = TheirClient::connected();
    let result = both.session.request_playback("cam".to_owned()).unwrap();
    let request = both.request(result);
    both.server.accept_play(both.now, request);
    both.flush();
    assert!(both.their_events.contains(&ClientSessionEvent::PlaybackRequestAccepted), "{:?}", both.their_events);
    both.their_events.clear();
    let body = [AVC_KEYFRAME, &[5; 100_000]].concat();
    let output = both.server.output();
    write_message(output, 65_536, 5, type_id::DATA_AMF0, 1, 0, &metadata(640.0));
    write_message(output, 65_536, 6, type_id::VIDEO, 1, 40, &body);
    write_message(output, 65_536, 4, type_id::AUDIO, 1, 43, AAC_FRAME);
    both.flush();
    let [
        ClientSessionEvent::StreamMetadataReceived { metadata },
        ClientSessionEvent::VideoDataReceived { timestamp, data },
        ClientSessionEvent::AudioDataReceived { .. },
    ] = &both.their_events[..]
    else {
        panic!("{:?}", both.their_events)
    };
    assert_eq!((metadata.video_width, timestamp.value, data.len()), (Some(640), 40, body.len()));
    let results = both.session.stop_playback().unwrap();
    both.take(results);
    assert_eq!(both.our_events, [ServerEvent::Ended(request)]);
}

/// Our client and their server.
struct TheirServer {
    session: ServerSession,
    client: Client,
    now: Instant,
    their_events: Vec<ServerSessionEvent>,
    our_events: Vec<ClientEvent>,
}

impl TheirServer {
    fn new(intent: Intent) -> Self {
        let now = Instant::now();
        let mut client = Client::new("rtmp://edge.example/live", "live", "cam", intent);
        let mut handshake = Handshake::new(PeerType::Server);
        let hello = std::mem::take(client.output());
        let HandshakeProcessResult::InProgress { response_bytes } = handshake.process_bytes(&hello).unwrap() else {
            panic!("too early")
        };
        client.handle_bytes(now, &response_bytes).unwrap();
        let bytes = std::mem::take(client.output());
        let HandshakeProcessResult::Completed { remaining_bytes, response_bytes } =
            handshake.process_bytes(&bytes).unwrap()
        else {
            panic!("their handshake does not accept ours")
        };
        client.handle_bytes(now, &response_bytes).unwrap();
        let (session, results) = ServerSession::new(ServerSessionConfig::new()).unwrap();
        let mut both = Self { session, client, now, their_events: Vec::new(), our_events: Vec::new() };
        both.take(results);
        let results = both.session.handle_input(&remaining_bytes).unwrap();
        both.take(results);
        both.settle();
        both
    }

    fn take(&mut self, results: Vec<ServerSessionResult>) {
        for result in results {
            match result {
                ServerSessionResult::OutboundResponse(packet) => {
                    self.client.handle_bytes(self.now, &packet.bytes).unwrap();
                }
                ServerSessionResult::RaisedEvent(event) => self.their_events.push(event),
                ServerSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        while let Some(event) = self.client.poll_event() {
            self.our_events.push(event);
        }
    }

    /// Accepts whatever their server asks about, until nothing moves.
    fn settle(&mut self) {
        loop {
            let bytes = std::mem::take(self.client.output());
            let results = self.session.handle_input(&bytes).unwrap();
            self.take(results);
            let ask = self.their_events.iter().find_map(|event| match event {
                ServerSessionEvent::ConnectionRequested { request_id, .. }
                | ServerSessionEvent::ReleaseStreamRequested { request_id, .. }
                | ServerSessionEvent::PublishStreamRequested { request_id, .. }
                | ServerSessionEvent::PlayStreamRequested { request_id, .. } => Some(*request_id),
                _ => None,
            });
            if let Some(id) = ask {
                self.their_events.clear();
                let results = self.session.accept_request(id).unwrap();
                self.take(results);
            } else if self.client.output().is_empty() {
                return;
            }
        }
    }
}

#[test]
fn our_client_publishes_to_their_server() {
    let mut both = TheirServer::new(Intent::Publish);
    assert!(both.our_events.contains(&ClientEvent::Started), "{:?}", both.our_events);
    both.their_events.clear();
    let body = [AVC_KEYFRAME, &[5; 100_000]].concat();
    both.client.send(type_id::DATA_AMF0, 0, &set_data_frame(640.0));
    both.client.send(type_id::VIDEO, 40, &body);
    both.client.send(type_id::AUDIO, 43, AAC_FRAME);
    both.settle();
    let [
        ServerSessionEvent::StreamMetadataChanged { metadata, .. },
        ServerSessionEvent::VideoDataReceived { data, timestamp, .. },
        ServerSessionEvent::AudioDataReceived { .. },
    ] = &both.their_events[..]
    else {
        panic!("{:?}", both.their_events)
    };
    assert_eq!((metadata.video_width, timestamp.value, data.len()), (Some(640), 40, body.len()));
    both.their_events.clear();
    both.client.finish();
    both.settle();
    let is_end = |event: &ServerSessionEvent| matches!(event, ServerSessionEvent::PublishStreamFinished { .. });
    assert!(both.their_events.iter().any(is_end), "{:?}", both.their_events);
}

#[test]
fn our_client_plays_from_their_server() {
    let mut both = TheirServer::new(Intent::Play);
    assert!(both.our_events.contains(&ClientEvent::Started), "{:?}", both.our_events);
    both.our_events.clear();
    let body = Bytes::from([AVC_KEYFRAME, &[5; 100_000]].concat());
    for time in [40, 80] {
        let packet = both.session.send_video_data(1, body.clone(), RtmpTimestamp::new(time), false).unwrap();
        both.take(vec![ServerSessionResult::OutboundResponse(packet)]);
    }
    let seen: Vec<_> = both
        .our_events
        .iter()
        .map(|event| match event {
            ClientEvent::Message(message) => (message.type_id, message.timestamp_ms, message.payload.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seen, [(type_id::VIDEO, 40, body.len()), (type_id::VIDEO, 80, body.len())]);
    both.our_events.clear();
    let packet = both.session.finish_playing(1).unwrap();
    both.take(vec![ServerSessionResult::OutboundResponse(packet)]);
    assert!(both.our_events.contains(&ClientEvent::Ended), "{:?}", both.our_events);
}
