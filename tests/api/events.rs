//! The event stream: resumed, filtered, and with its gaps told.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body_util::BodyExt as _;
use sluicegate::admission::LoadState;
use sluicegate::event::{Event, ServerEvent, ServerWhat};
use sluicegate::names::Kind;
use sluicegate::session::{Change, Counters, Reason, What};

use crate::desk::{Client, Desk, START_S, facts};

const JSON: &str = "data: ";

fn server(what: ServerWhat) -> Event {
    Event::Server(ServerEvent { at: Instant::now(), what })
}

fn session(n: u64, kind: Kind, stream: &str, what: What) -> Event {
    let facts = facts(n, kind, "live", stream, "198.51.100.4:1").into();
    Event::Session(Change { facts, seq: 1, at: Instant::now(), what })
}

/// Everything that a stream of half a second carries.
async fn read(client: &Client, query: &str, headers: &[(&str, &str)]) -> String {
    let response = client.open(&format!("/v1/events?for=300ms{query}"), headers).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn names(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("event: ")).collect()
}

fn epoch() -> String {
    format!("{:x}", START_S * 1_000)
}

#[tokio::test]
async fn events_carry_what_happened_and_are_resumed_where_they_ended() {
    let desk = Desk::new(16);
    desk.publish(server(ServerWhat::Ready));
    desk.publish(session(1, Kind::Publish, "a", What::Opened));
    let counters = Counters { rx_bytes: 7, ..Counters::default() };
    desk.publish(session(1, Kind::Publish, "a", What::Closed(Reason::Kicked.into(), counters)));
    let client = desk.client();
    let after = format!("&after={}-1", epoch());
    let text = read(&client, &after, &[]).await;
    assert_eq!(names(&text), ["session.opened", "session.closed"]);
    let closed: serde_json::Value =
        serde_json::from_str(text.lines().filter_map(|line| line.strip_prefix(JSON)).next_back().unwrap()).unwrap();
    assert_eq!(
        (&closed["reason"], &closed["side"], &closed["bytes"]["rx"]),
        (&"kicked".into(), &"policy".into(), &7.into())
    );
    // The header of a browser that comes back wins.
    let last = format!("{}-2", epoch());
    let text = read(&client, &after, &[("last-event-id", &last)]).await;
    assert_eq!(names(&text), ["session.closed"]);
    assert!(text.contains(&format!("id: {}-3\n", epoch())));
    // Without a place the stream begins now.
    assert!(names(&read(&client, "", &[]).await).is_empty());
}

#[tokio::test]
async fn events_are_chosen_by_name_and_by_session() {
    let desk = Desk::new(16);
    for (n, stream) in [(1, "a"), (2, "b")] {
        desk.publish(session(n, Kind::Publish, stream, What::Opened));
        desk.publish(session(n, Kind::Publish, stream, What::Started));
    }
    desk.publish(server(ServerWhat::Draining));
    let client = desk.client();
    let from = format!("&after={}-0", epoch());
    assert_eq!(names(&read(&client, &format!("{from}&event=session.started,server"), &[]).await).len(), 3);
    assert_eq!(names(&read(&client, &format!("{from}&stream=b"), &[]).await), ["session.opened", "session.started"]);
    assert_eq!(names(&read(&client, &format!("{from}&kind=play"), &[]).await).len(), 0);
    assert_eq!(client.get("/v1/events?event=session.close").await.problem(400).as_deref(), Some("event"));
}

#[tokio::test]
async fn a_place_that_is_no_longer_held_begins_with_a_gap() {
    let desk = Desk::new(4);
    for n in 0..10 {
        desk.publish(session(n, Kind::Play, "a", What::Opened));
    }
    let client = desk.client();
    let text = read(&client, &format!("&after={}-2", epoch()), &[]).await;
    assert!(text.contains("event: gap\ndata: {\"missed\":4}\n\n"), "{text}");
    assert_eq!(names(&text).len(), 5);
    // Another start of the server: what was missed is beyond counting, and all that is held comes.
    let text = read(&client, "&after=1-5", &[]).await;
    assert!(text.contains("event: gap\ndata: {\"missed\":null}\n\n"), "{text}");
    for bad in ["x", "1", &format!("{}-11", epoch())] {
        assert_eq!(client.get(&format!("/v1/events?after={bad}")).await.problem(400).as_deref(), Some("after"));
    }
    let reply = client.send("GET", "/v1/events", &[("last-event-id", "x")], axum::body::Body::empty()).await;
    assert_eq!(reply.problem(400).as_deref(), Some("Last-Event-ID"));
}

#[tokio::test]
async fn ap_15_a_subscriber_that_stops_reading_gets_a_gap_and_the_end() {
    let desk = Desk::new(8);
    let client = desk.client();
    let mut body = client.open("/v1/events", &[]).await.into_body();
    let mut next = async || -> Option<Bytes> { Some(body.frame().await?.unwrap().into_data().unwrap()) };
    assert_eq!(next().await.unwrap(), ": welcome\n\n");
    desk.publish(session(0, Kind::Play, "a", What::Opened));
    assert!(next().await.unwrap().starts_with(b"id: "));
    for n in 0..100 {
        desk.publish(session(n, Kind::Play, "a", What::Opened));
    }
    let piece = next().await.unwrap();
    assert!(piece.starts_with(b"event: gap\ndata: {\"missed\":92}\n\n"), "{piece:?}");
    assert_eq!(next().await, None);
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_a_comment_every_fifteen_seconds() {
    let desk = Desk::new(8);
    let client = desk.client();
    let mut body = client.open("/v1/events?stream=other", &[]).await.into_body();
    let mut next = async || body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(next().await, ": welcome\n\n");
    for _ in 0..3 {
        let before = tokio::time::Instant::now();
        assert_eq!(next().await, ":\n\n");
        assert_eq!(before.elapsed(), Duration::from_secs(15));
        desk.publish(server(ServerWhat::Ready));
    }
}

#[tokio::test]
async fn event_streams_are_bounded_in_number() {
    let desk = Desk::new(8);
    let client = desk.client();
    let mut open = Vec::new();
    for _ in 0..sluicegate::api::serve::EVENT_STREAMS_MAX {
        open.push(client.open("/v1/events", &[]).await);
    }
    client.get("/v1/events").await.problem(503);
    open.pop();
    assert_eq!(client.open("/v1/events", &[]).await.status(), 200);
}

#[tokio::test]
async fn load_states_are_events_that_say_which() {
    let desk = Desk::new(16);
    desk.publish(server(ServerWhat::Ready));
    for state in [LoadState::Orange, LoadState::Green] {
        desk.publish(server(ServerWhat::Load(state)));
    }
    let text = read(&desk.client(), &format!("&event=server.load_state&after={}-0", epoch()), &[]).await;
    assert_eq!(names(&text), ["server.load_state"; 2]);
    let states: Vec<serde_json::Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix(JSON))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert_eq!((&states[0]["state"], &states[1]["state"]), (&"orange".into(), &"green".into()));
}
