//! Ending sessions, draining, and the bodies that say so.

use std::time::Duration;

use axum::body::Body;
use sluicegate::api::backend::{ReloadError, Reloaded};
use sluicegate::control::CommandError;
use sluicegate::names::Kind;
use sluicegate::session::Reason;

use crate::desk::{Desk, Order, id, row};

fn desk() -> Desk {
    let desk = Desk::new(16);
    desk.add(row(1, Kind::Publish, "live", "a", "198.51.100.4:1"));
    desk.add(row(2, Kind::Play, "live", "a", "198.51.100.5:1"));
    desk.add(row(3, Kind::Play, "live", "b", "198.51.100.6:1"));
    desk
}

#[tokio::test]
async fn ap_10_ending_a_session_twice_is_no_error_and_an_unknown_one_is_404() {
    let desk = desk();
    let client = desk.client();
    let path = format!("/v1/sessions/{}?ban_for=10s", id(2));
    let first = client.send("DELETE", &path, &[], Body::empty()).await;
    assert_eq!(
        (first.status, &first.json()["already_closed"], &first.json()["banned"]),
        (200, &false.into(), &1.into())
    );
    let again = client.send("DELETE", &path, &[], Body::empty()).await;
    assert_eq!((again.status, &again.json()["already_closed"]), (200, &true.into()));
    let path = format!("/v1/sessions/{}", id(99));
    client.send("DELETE", &path, &[], Body::empty()).await.problem(404);
    let orders = desk.orders();
    let [Order::Terminate(order)] = orders.as_slice() else { panic!("{orders:?}") };
    assert_eq!((order.ban_for, order.reason), (Some(Duration::from_secs(10)), Reason::Banned.into()));
}

#[tokio::test]
async fn ap_11_ending_everything_must_be_confirmed() {
    let desk = desk();
    let client = desk.client();
    for body in ["{}", r#"{"filter":{}}"#, r#"{"filter":{},"ban_for":"1h"}"#, r#"{"confirm":"yes"}"#] {
        assert_eq!(
            client.post("/v1/sessions/terminate", body).await.problem(400).as_deref(),
            Some("confirm"),
            "{body}"
        );
    }
    assert!(desk.orders().is_empty());
    let dry = client.post("/v1/sessions/terminate", r#"{"dry_run":true}"#).await.json();
    assert_eq!((&dry["matched"], &dry["closed"], &dry["dry_run"]), (&3.into(), &0.into(), &true.into()));
    let all = client.post("/v1/sessions/terminate", r#"{"filter":{},"confirm":"all"}"#).await.json();
    assert_eq!((&all["matched"], &all["closed"]), (&3.into(), &3.into()));
}

#[tokio::test]
async fn ap_11_bans_of_no_length_are_refused_and_endless_ones_end() {
    let desk = desk();
    let client = desk.client();
    for bad in ["0", "-1", "\"0s\"", "\"-1s\"", "1.5", "\"x\"", "null", "true", "[]"] {
        let body = format!(r#"{{"filter":{{"stream":"b"}},"dry_run":true,"ban_for":{bad}}}"#);
        assert_eq!(
            client.post("/v1/sessions/terminate", &body).await.problem(400).as_deref(),
            Some("ban_for"),
            "{bad}"
        );
    }
    for long in ["1000000000000", "\"1000000000000s\"", "1e40"] {
        let body = format!(r#"{{"filter":{{"stream":"b"}},"dry_run":true,"ban_for":{long}}}"#);
        assert_eq!(client.post("/v1/sessions/terminate", &body).await.status, 200);
        let Some(Order::Terminate(order)) = desk.orders().pop() else { panic!() };
        assert_eq!(order.ban_for, Some(Duration::from_secs(365 * 86_400)));
    }
}

#[tokio::test]
async fn sessions_end_by_filter() {
    let desk = desk();
    let client = desk.client();
    let body = r#"{"filter":{"stream":"a","kind":"play,push"},"ban_for":30}"#;
    let done = client.post("/v1/sessions/terminate", body).await.json();
    assert_eq!(done["ids"], serde_json::json!([id(2).to_string()]));
    assert_eq!(done["banned"], 1);
    let wrong = client.post("/v1/sessions/terminate", r#"{"filter":{"kind":"viewer"}}"#).await;
    assert_eq!(wrong.problem(400).as_deref(), Some("filter.kind"));
    let wrong = client.post("/v1/sessions/terminate", r#"{"filter":{"strem":"a"}}"#).await;
    assert_eq!(wrong.problem(400).as_deref(), Some("filter.strem"));
    assert!(wrong.text().contains("`stream`"));
}

#[tokio::test]
async fn ap_09_bodies_are_read_strictly() {
    let client = desk().client();
    let path = "/v1/sessions/terminate";
    for bad in [
        String::new(),
        "[]".into(),
        "1".into(),
        "{".into(),
        "{} {}".into(),
        r#"{"dry_run":true,"dry_run":true}"#.into(),
        r#"{"filter":[]}"#.into(),
        r#"{"filter":{"app":1}}"#.into(),
        r#"{"dry_run":"yes"}"#.into(),
        format!(r#"{{"x":{}1{}}}"#, "[".repeat(32), "]".repeat(32)),
    ] {
        client.post(path, &bad).await.problem(400);
    }
    let filler = " ".repeat((1 << 20) - "{\"dry_run\":true}".len());
    assert_eq!(client.post(path, &format!("{filler}{{\"dry_run\":true}}")).await.status, 200);
    client.post(path, &format!("{filler} {{\"dry_run\":true}}")).await.problem(413);
    // The same when nobody says how long it will be.
    let pieces = futures_lite::stream::iter((0..2_000).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1_024])));
    let json = [("content-type", "application/json")];
    client.send("POST", path, &json, Body::from_stream(pieces)).await.problem(413);
    for other in ["application/x-www-form-urlencoded", "text/plain", "application/json; charset=latin1", ""] {
        client.send("POST", path, &[("content-type", other)], "{}").await.problem(415);
    }
    client.send("POST", path, &[], "{}").await.problem(415);
}

#[tokio::test]
async fn a_drain_is_taken_with_its_time() {
    let desk = desk();
    let client = desk.client();
    assert_eq!(client.get("/readyz").await.status, 200);
    for bad in [r#"{"over":"30"}"#, r#"{"over":30}"#, r#"{"over":"2d"}"#, r#"{"ove":"30s"}"#] {
        client.post("/v1/drain", bad).await.problem(400);
    }
    let reply = client.post("/v1/drain", r#"{"over":"5s"}"#).await;
    assert_eq!((reply.status, &reply.json()["over_ms"]), (202, &5_000.into()));
    assert!(matches!(desk.orders().as_slice(), [Order::Drain(over)] if *over == Duration::from_secs(5)));
    let reply = client.post("/v1/drain", "{}").await;
    assert_eq!((reply.status, &reply.json()["over_ms"]), (202, &8_000.into()), "what is configured holds");
    desk.change(|view| view.draining = true);
    let ready = client.get("/readyz?verbose").await;
    assert_eq!((ready.status, &ready.json()["status"]), (503, &"draining".into()));
    assert!(ready.json()["checks"].as_array().unwrap().len() >= 3);
}

#[tokio::test]
async fn a_reload_tells_what_changed_or_what_is_wrong() {
    let desk = desk();
    let client = desk.client();
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    desk.answer_reloads(Ok(Reloaded {
        generation: 2,
        changed: texts(&["log.level"]),
        pending: texts(&["shard.count"]),
        warnings: Vec::new(),
        closed: 3,
    }));
    let reply = client.send("POST", "/v1/reload", &[], "").await;
    let expected = serde_json::json!({"generation": 2, "changed": ["log.level"], "pending": ["shard.count"],
        "warnings": [], "closed": 3});
    assert_eq!((reply.status, reply.json()), (200, expected));
    assert!(matches!(desk.orders().as_slice(), [Order::Reload]));

    desk.answer_reloads(Err(ReloadError::Refused(texts(&["a.toml:1:1: error: x", "a.toml:2:1: error: y"]))));
    let reply = client.send("POST", "/v1/reload", &[], "").await;
    assert_eq!(reply.status, 422);
    assert_eq!(reply.json()["detail"], "a.toml:1:1: error: x\na.toml:2:1: error: y");
    for error in [ReloadError::Busy, ReloadError::Command(CommandError::Timeout)] {
        desk.answer_reloads(Err(error));
        client.send("POST", "/v1/reload", &[], "").await.problem(503);
    }
    client.send("POST", "/v1/reload?when=now", &[], "").await.problem(400);
    client.send("GET", "/v1/reload", &[], "").await.problem(405);
}
