//! What is listed, in which order, and how pages follow each other.

use std::time::Duration;

use sluicegate::names::Kind;
use sluicegate::session::{Reason, State};

use crate::desk::{Desk, id, key, row};

fn desk_with(count: u64) -> Desk {
    let desk = Desk::new(16);
    for n in 0..count {
        let kind = if n % 10 == 0 { Kind::Publish } else { Kind::Play };
        desk.add(row(n, kind, "live", &format!("s{}", n / 10), "198.51.100.4:40001"));
    }
    desk
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat_while_sessions_come_and_go() {
    let desk = desk_with(250);
    let client = desk.client();
    let mut path = "/v1/sessions?limit=40".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = client.get(&path).await.json();
        for session in page["sessions"].as_array().unwrap() {
            seen.push(session["id"].as_str().unwrap().to_owned());
        }
        // One that has been listed ends, another comes.
        desk.change(|view| {
            view.sessions.pop_first();
        });
        desk.add(row(1_000 + seen.len() as u64, Kind::Play, "live", "new", "198.51.100.4:1"));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut path),
            None => break,
        }
    }
    let old: Vec<_> = seen.iter().filter(|text| **text < id(1_000).to_string()).collect();
    assert_eq!(old.len(), 250);
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "out of order");
}

#[tokio::test]
async fn filters_narrow_and_cursors_belong_to_their_filter() {
    let desk = desk_with(50);
    let client = desk.client();
    let page = client.get("/v1/sessions?kind=publish&limit=2").await.json();
    assert_eq!(page["sessions"].as_array().unwrap().len(), 2);
    let cursor = page["cursor"].as_str().unwrap();
    let rest = client.get(&format!("/v1/sessions?kind=publish&cursor={cursor}")).await.json();
    assert_eq!(rest["sessions"].as_array().unwrap().len(), 3);
    assert_eq!(rest["next"], serde_json::Value::Null);
    let other = client.get(&format!("/v1/sessions?kind=play&cursor={cursor}")).await;
    assert_eq!(other.problem(400).as_deref(), Some("cursor"));
    let both = client.get("/v1/sessions?stream=s1,s2&kind=play").await.json();
    assert_eq!(both["sessions"].as_array().unwrap().len(), 18);
}

#[tokio::test]
async fn ap_05_pages_of_impossible_sizes() {
    let client = desk_with(3).client();
    for bad in ["0", "-1", "text", "1e3"] {
        assert_eq!(client.get(&format!("/v1/sessions?limit={bad}")).await.problem(400).as_deref(), Some("limit"));
    }
    assert_eq!(client.get("/v1/sessions?limit=1000000000").await.json()["sessions"].as_array().unwrap().len(), 3);
    for forged in ["", "00", "zz", "ffffffffffffffffffffffffffffffffffffffffffffffff"] {
        assert_eq!(client.get(&format!("/v1/sessions?cursor={forged}")).await.problem(400).as_deref(), Some("cursor"));
    }
}

#[tokio::test]
async fn ap_06_filters_have_limits() {
    let client = desk_with(3).client();
    let long = "a".repeat(1_025);
    assert_eq!(client.get(&format!("/v1/sessions?app={long}")).await.problem(400).as_deref(), Some("app"));
    let terms = ["a"; 9].join(",");
    assert_eq!(client.get(&format!("/v1/sessions?app={terms}")).await.problem(400).as_deref(), Some("app"));
    for bad in ["kind=viewer", "remote=nowhere", "state=ok", "stream=%25", "id=1", "app=a%00", "app=%ff"] {
        let field = bad.split('=').next().unwrap();
        assert_eq!(client.get(&format!("/v1/sessions?{bad}")).await.problem(400).as_deref(), Some(field), "{bad}");
    }
    let near = client.get("/v1/sessions?strean=a").await;
    assert_eq!(near.problem(400).as_deref(), Some("strean"));
    assert!(near.text().contains("`stream`"), "{}", near.text());
}

#[tokio::test]
async fn a_session_shows_its_facts_and_hides_its_secrets() {
    let desk = Desk::new(16);
    let mut one = row(7, Kind::Publish, "live", "x", "198.51.100.4:40001");
    let facts = std::sync::Arc::make_mut(&mut one.facts);
    facts.query = Some("token=hunter2&quality=high".into());
    facts.tc_url = Some("rtmp://u:hunter2@example.org/live?key=hunter2".into());
    facts.user_agent = Some("OBS".into());
    one.counters.rx_bytes = 1_000;
    one.rates.rx_bps = [1_000.4, 2_000.0, 3_000.0];
    desk.add(one);
    let reply = desk.client().get(&format!("/v1/sessions/{}", id(7))).await;
    assert!(!reply.text().contains("hunter2"), "{}", reply.text());
    let session = reply.json();
    assert_eq!(session["query"], "token=***&quality=high");
    assert_eq!(session["tc_url"], "rtmp://***@example.org/live?key=***");
    assert_eq!(session["opened_at"], "2026-11-20T05:38:41.007Z");
    assert_eq!((&session["kind"], &session["state"]), (&"publish".into(), &"running".into()));
    assert_eq!(session["bytes"]["rx"], 1_000);
    assert_eq!(session["rates"]["rx_bps_1s"], 1_000);
    assert_eq!(session["closed_at"], serde_json::Value::Null);
    assert!(session["duration_ms"].as_u64().unwrap() >= 29_000);
}

#[tokio::test]
async fn a_finished_session_is_found_and_listed_on_request_only() {
    let desk = desk_with(3);
    desk.finish(id(1), Reason::SlowConsumer.into());
    let client = desk.client();
    let session = client.get(&format!("/v1/sessions/{}", id(1))).await.json();
    assert_eq!((&session["state"], &session["reason"]), (&"finished".into(), &"slow_consumer".into()));
    assert_eq!(session["side"], "client");
    let listed = |page: serde_json::Value| page["sessions"].as_array().unwrap().len();
    assert_eq!(listed(client.get("/v1/sessions").await.json()), 2);
    assert_eq!(listed(client.get("/v1/sessions?state=finished").await.json()), 1);
    let both = client.get("/v1/sessions?state=finished,running&limit=2").await.json();
    assert_eq!(both["sessions"][1]["id"], id(1).to_string());
    let rest = client.get(both["next"].as_str().unwrap()).await.json();
    assert_eq!(rest["sessions"][0]["id"], id(2).to_string());
    assert_eq!(listed(rest), 1);
}

#[tokio::test]
async fn ap_12_ids_that_are_none() {
    let client = desk_with(1).client();
    assert_eq!(client.get(&format!("/v1/sessions/{}", id(99))).await.problem(404).as_deref(), Some("id"));
    let long = "a".repeat(10 << 10);
    for bad in ["x", "..%2f..%2fetc", "%00", "%ff", "%zz", &long] {
        assert_eq!(client.get(&format!("/v1/sessions/{bad}")).await.problem(400).as_deref(), Some("id"), "{bad}");
    }
    client.get("/v1/sessions/a/b").await.problem(404);
    client.get("/v1/streams/a").await.problem(404);
    client.get("/v1/streams/%zz/a/b").await.problem(400);
    client.get(&format!("/v1/streams/{}", "a/".repeat(5_000))).await.problem(404);
    client.get("/nowhere").await.problem(404);
}

#[tokio::test]
async fn a_stream_with_slashes_is_found_either_way() {
    let desk = Desk::new(16);
    let key = key("default", "a/b", "c/d");
    desk.change(|view| {
        let sample = sluicegate::stream::StreamSample {
            key: key.clone(),
            published: true,
            players: 2,
            video_codec: "avc1".into(),
            audio_codec: String::new(),
            width: 1_280,
            height: 720,
            frame_rate: 25.000_001,
            sample_rate: 0,
            channels: 0,
            video_bps: 2_000_000,
            audio_bps: 0,
            gop_ms: 2_000,
            gop_frames: 50,
            cache_bytes: 1,
            frames: 1,
            discontinuities: 0,
        };
        let players = [(sluicegate::names::ShardId(0), 2), (sluicegate::names::ShardId(1), 3)].into();
        let row = sluicegate::control::view::StreamRow {
            sample,
            publisher: Some((id(1), sluicegate::names::ShardId(0))),
            online_at: Some(view.started_at + Duration::from_secs(1)),
            players,
        };
        view.streams.insert(key, row);
    });
    let client = desk.client();
    for path in ["default/a/b/c/d", "default/a%2Fb/c%2Fd"] {
        let stream = client.get(&format!("/v1/streams/{path}")).await.json();
        assert_eq!((&stream["app"], &stream["stream"]), (&"a/b".into(), &"c/d".into()));
        assert_eq!((&stream["viewers"], &stream["video"]["gop_frames"]), (&5.into(), &50.into()));
        assert_eq!((&stream["video"]["frame_rate"], &stream["audio"]), (&25.0.into(), &serde_json::Value::Null));
    }
    client.get("/v1/streams/default/a%2Fb%2Fc/d").await.problem(404);
    assert_eq!(client.get("/v1/streams?published=true").await.json()["streams"].as_array().unwrap().len(), 1);
    assert_eq!(client.get("/v1/streams?app=other").await.json()["streams"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn the_summary_counts_active_and_finished() {
    let desk = desk_with(20);
    desk.change(|view| {
        for (n, row) in view.sessions.values_mut().enumerate() {
            row.counters.tx_bytes = 1_000;
            row.rates.tx_bps = [8_000.0; 3];
            if n == 5 {
                row.state = State::Establishing;
            }
        }
    });
    desk.finish(id(1), Reason::Kicked.into());
    let rtmp = desk.client().get("/v1/summary").await.json()["collectors"]["rtmp"].clone();
    assert_eq!((&rtmp["active"]["sessions"], &rtmp["finished"]["sessions"]), (&19.into(), &1.into()));
    assert_eq!(rtmp["active"]["by_kind"]["publish"]["running"], 2);
    assert_eq!(rtmp["active"]["by_kind"]["play"]["establishing"], 1);
    assert_eq!(rtmp["active"]["bytes"]["tx"], 19_000);
    assert_eq!(rtmp["active"]["rates"]["tx_bps_10s"], 19 * 8_000);
    assert_eq!((&rtmp["reasons"][0]["reason"], &rtmp["reasons"][0]["count"]), (&"kicked".into(), &1.into()));
}

#[tokio::test]
async fn the_node_shows_its_shards_and_memory() {
    let node = Desk::new(16).client().get("/v1/node").await.json();
    assert_eq!(node["shards"].as_array().unwrap().len(), 1);
    assert!(node["memory"]["rss_bytes"].as_u64().unwrap() > 100_000);
    assert!(node["descriptors"]["open"].as_u64().unwrap() > 0);
    assert_eq!(node["started_at"], "2026-11-20T05:38:41.000Z");
    assert!(node["uptime_ms"].as_u64().unwrap() >= 60_000);
}
