//! Our client and our server on a virtual link.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use sluicegate::proto::rtmp::Settings;
use sluicegate::proto::rtmp::chunk::write_message;
use sluicegate::proto::rtmp::client::{Client, ClientEvent, Intent};
use sluicegate::proto::rtmp::message::type_id;
use sluicegate::proto::rtmp::server::{ConnectInfo, PLAY_STREAM_ID, Refusal, RequestId, Server, ServerEvent};

use crate::support::{AVC_CONFIG, AVC_KEYFRAME, metadata, set_data_frame};

struct Pair {
    client: Client,
    server: Server,
    now: Instant,
    /// Bytes that cross at once.
    segment: usize,
    events: VecDeque<ServerEvent>,
    connect: Option<ConnectInfo>,
}

impl Pair {
    fn new(intent: Intent, segment: usize) -> Self {
        let now = Instant::now();
        Self {
            client: Client::new("rtmp://edge.example/live", "live", "cam?token=x", intent),
            server: Server::new(&Arc::new(Settings::default()), now),
            now,
            segment,
            events: VecDeque::new(),
            connect: None,
        }
    }

    /// Carries bytes both ways until nothing moves; `connect` is accepted on the way.
    fn settle(&mut self) {
        loop {
            let up: Vec<u8> = std::mem::take(self.client.output());
            for part in up.chunks(self.segment) {
                self.server.handle_bytes(self.now, part).unwrap();
            }
            while let Some(event) = self.server.poll_event() {
                if let ServerEvent::Connect(info) = event {
                    self.connect = Some(*info);
                    self.server.accept_connect();
                } else {
                    self.events.push_back(event);
                }
            }
            let down: Vec<u8> = std::mem::take(self.server.output());
            for part in down.chunks(self.segment) {
                self.client.handle_bytes(self.now, part).unwrap();
            }
            if up.is_empty() && down.is_empty() {
                return;
            }
        }
    }

    fn request(&mut self) -> RequestId {
        self.settle();
        match self.events.pop_front() {
            Some(ServerEvent::Publish { request, stream, query } | ServerEvent::Play { request, stream, query }) => {
                assert_eq!((stream.as_str(), query.as_deref()), ("cam", Some("token=x")));
                request
            }
            other => panic!("no request: {other:?}"),
        }
    }

    fn client_events(&mut self) -> Vec<ClientEvent> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }
}

#[test]
fn a_publish_from_beginning_to_end_in_segments_of_any_size() {
    for segment in [1, 7, 1460, usize::MAX] {
        let mut pair = Pair::new(Intent::Publish, segment);
        let request = pair.request();
        let info = pair.connect.take().unwrap();
        assert_eq!((info.app.as_str(), info.vhost.as_deref()), ("live", Some("edge.example")));
        pair.server.accept_publish(pair.now, request);
        pair.settle();
        assert_eq!(pair.client_events(), [ClientEvent::Started]);
        pair.client.send(type_id::DATA_AMF0, 0, &set_data_frame(9.0));
        pair.client.send(type_id::VIDEO, 0, AVC_CONFIG);
        let mut large = AVC_KEYFRAME.to_vec();
        large.resize(200_000, 3);
        pair.client.send(type_id::VIDEO, u64::from(u32::MAX) - 5, &large);
        pair.client.send(type_id::VIDEO, u64::from(u32::MAX) + 5, AVC_KEYFRAME);
        pair.settle();
        let frames: Vec<_> = pair
            .events
            .drain(..)
            .map(|event| match event {
                ServerEvent::Frame(frame) => (frame.timestamp_ms, frame.payload.to_vec()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(frames.len(), 4);
        assert_eq!(frames[0].1, metadata(9.0));
        assert_eq!(frames[2].1, large);
        assert_eq!(frames[3].0.wrapping_sub(frames[2].0), 10, "the clock goes on behind 32 bits");
        pair.client.finish();
        pair.settle();
        assert_eq!(pair.events, [ServerEvent::Ended(request)]);
    }
}

#[test]
fn a_play_from_beginning_to_end() {
    let mut pair = Pair::new(Intent::Play, 500);
    let request = pair.request();
    assert_eq!(request.stream_id, PLAY_STREAM_ID);
    pair.server.accept_play(pair.now, request);
    pair.settle();
    let started = pair.client_events();
    assert!(started.contains(&ClientEvent::Started), "{started:?}");
    assert_eq!(pair.server.player_buffer_ms(), 3000);
    for time in [0, 40, 80] {
        let body = [AVC_KEYFRAME, &[7; 70_000]].concat();
        write_message(pair.server.output(), 65_536, 6, type_id::VIDEO, PLAY_STREAM_ID, time, &body);
    }
    pair.settle();
    let times: Vec<_> = pair
        .client_events()
        .into_iter()
        .map(|event| match event {
            ClientEvent::Message(message) => (message.type_id, message.timestamp_ms, message.payload.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(times, [0, 40, 80].map(|time| (type_id::VIDEO, time, 70_000 + AVC_KEYFRAME.len())));
    pair.server.end_play(request);
    pair.settle();
    let ended = pair.client_events();
    assert_eq!(ended.iter().filter(|event| **event == ClientEvent::Ended).count(), 1, "{ended:?}");
}

#[test]
fn media_that_is_only_counted_makes_no_events() {
    let mut pair = Pair::new(Intent::Play, usize::MAX);
    pair.client.set_media_delivery(false);
    let request = pair.request();
    pair.server.accept_play(pair.now, request);
    pair.settle();
    pair.client_events();
    let before = (pair.client.media_messages(), pair.client.media_bytes());
    write_message(pair.server.output(), 65_536, 6, type_id::VIDEO, 1, 0, AVC_KEYFRAME);
    pair.settle();
    assert!(pair.client_events().is_empty());
    let after = (pair.client.media_messages(), pair.client.media_bytes());
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, AVC_KEYFRAME.len() as u64));
}

#[test]
fn the_client_answers_pings_and_acknowledges_what_it_received() {
    let mut pair = Pair::new(Intent::Play, usize::MAX);
    let request = pair.request();
    pair.server.accept_play(pair.now, request);
    pair.settle();
    write_message(pair.server.output(), 65_536, 2, type_id::USER_CONTROL, 0, 0, &[0, 6, 0, 0, 0, 42]);
    let down = std::mem::take(pair.server.output());
    pair.client.handle_bytes(pair.now, &down).unwrap();
    let pong = std::mem::take(pair.client.output());
    assert!(pong.ends_with(&[0, 7, 0, 0, 0, 42]));
    // The server named five megabytes.
    let mut bytes = Vec::new();
    write_message(&mut bytes, 65_536, 6, type_id::VIDEO, 1, 0, &vec![0x17; 5_100_000]);
    pair.client.handle_bytes(pair.now, &bytes).unwrap();
    let received = pair.client.received_bytes() as u32;
    assert!(pair.client.output().ends_with(&received.to_be_bytes()));
}

#[test]
fn refusals_reach_the_clients_user() {
    let refusal = Refusal { code: "NetStream.Publish.Denied", description: "You may not." };
    let refused = ClientEvent::Refused(refusal.code.to_owned(), refusal.description.to_owned());
    let mut pair = Pair::new(Intent::Publish, usize::MAX);
    let request = pair.request();
    pair.server.reject(request, refusal);
    pair.settle();
    assert_eq!(pair.client_events(), std::slice::from_ref(&refused));
    pair.client.send(type_id::VIDEO, 0, AVC_KEYFRAME);
    assert!(pair.client.output().is_empty(), "a refused client sends no media");

    let mut pair = Pair::new(Intent::Publish, usize::MAX);
    let request = pair.request();
    pair.server.accept_publish(pair.now, request);
    pair.settle();
    pair.client_events();
    pair.server.goodbye(refusal);
    pair.settle();
    assert_eq!(pair.client_events(), [refused]);
}

#[test]
fn a_player_that_finishes_ends_its_play() {
    let mut pair = Pair::new(Intent::Play, usize::MAX);
    let request = pair.request();
    pair.server.accept_play(pair.now, request);
    pair.settle();
    pair.client.finish();
    pair.settle();
    assert_eq!(pair.events, [ServerEvent::Ended(request)]);
}
