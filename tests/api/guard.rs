//! The door as seen from outside: statuses, headers and the shape of refusals.

use axum::body::Body;
use sluicegate::api::Settings;
use sluicegate::api::settings::{Role, Token};
use sluicegate::stdx::units::Secret;

use crate::desk::Desk;

const TOKEN: &str = "read-0123456789abcdefghij";

fn guarded() -> Settings {
    let tokens = vec![Token { token: Secret::new(TOKEN.into()), role: Role::Read }];
    Settings { tokens, rate: 1_000, ..Settings::default() }
}

#[tokio::test]
async fn ap_01_a_request_without_a_token_is_told_how_to_bring_one() {
    let client = Desk::new(1).client_with(&guarded());
    let reply = client.get("/v1/sessions").await;
    assert_eq!(reply.problem(401).as_deref(), Some("Authorization"));
    assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    // Paths that do not exist are not told apart.
    client.get("/v1/nowhere").await.problem(401);
    let bearer = format!("Bearer {TOKEN}");
    let with = [("authorization", bearer.as_str())];
    assert_eq!(client.send("GET", "/v1/sessions", &with, Body::empty()).await.status, 200);
    client.send("DELETE", "/v1/sessions/x", &with, Body::empty()).await.problem(403);
    assert_eq!(client.get("/healthz").await.status, 200);
    assert_eq!(client.get("/readyz").await.status, 200);
    client.get("/readyz?verbose").await.problem(401);
}

#[tokio::test]
async fn ap_04_a_rebound_name_is_misdirected_and_nothing_is_jsonp() {
    let client = Desk::new(1).client();
    let reply = client.send("GET", "/v1/sessions", &[("host", "evil.example")], Body::empty()).await;
    assert_eq!(reply.problem(421).as_deref(), Some("Host"));
    let cross = [("origin", "https://evil.example"), ("content-type", "application/json")];
    client.send("POST", "/v1/sessions/terminate", &cross, "{}").await.problem(403);
    client.get("/v1/sessions?callback=x").await.problem(400);
}

#[tokio::test]
async fn ap_13_too_many_requests_are_told_to_wait() {
    let client = Desk::new(1).client_with(&Settings { rate: 1, ..Settings::default() });
    for _ in 0..4 {
        assert_eq!(client.get("/v1/sessions").await.status, 200);
    }
    let reply = client.get("/v1/sessions").await;
    reply.problem(429);
    assert_eq!(reply.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn answers_are_not_stored_and_do_not_tell_a_version() {
    let client = Desk::new(1).client();
    for path in ["/v1/sessions", "/healthz", "/nowhere", "/api/v3/session"] {
        let reply = client.get(path).await;
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(reply.header("server"), None);
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones_and_head_has_no_body() {
    let client = Desk::new(1).client();
    let reply = client.send("PUT", "/v1/sessions", &[], Body::empty()).await;
    reply.problem(405);
    assert_eq!(reply.header("allow"), Some("GET,HEAD"));
    let reply = client.send("HEAD", "/v1/sessions", &[], Body::empty()).await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    client.send("GET", "/v1/sessions/terminate", &[], Body::empty()).await.problem(405);
    client.send("OPTIONS", "/v1/sessions", &[], Body::empty()).await.problem(405);
}

#[tokio::test]
async fn metrics_are_a_page_for_scraping() {
    let reply = Desk::new(1).client().get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(reply.text().contains("sluicegate_ready 1"), "{}", reply.text());
}

#[tokio::test]
async fn a_shard_that_does_not_answer_makes_the_server_unhealthy() {
    let desk = Desk::new(1);
    let client = desk.client();
    assert_eq!(client.get("/healthz").await.status, 200);
    desk.change(|view| view.shards[0].reported_at = Some(view.started_at));
    let reply = client.get("/healthz").await;
    assert_eq!((reply.status, &reply.json()["status"]), (503, &"shard_silent".into()));
}

#[tokio::test]
async fn an_api_that_other_machines_reach_is_told_to_be_plain() {
    let page = Desk::new(1).client().get("/metrics").await;
    let page = page.text();
    assert!(page.contains("\nsluicegate_api_plaintext 0\n"), "{page}");
    let client = Desk::new(1).client_with(&Settings { listen: "0.0.0.0:8081".parse().unwrap(), ..guarded() });
    let bearer = format!("Bearer {TOKEN}");
    let page = client.send("GET", "/metrics", &[("authorization", bearer.as_str())], Body::empty()).await;
    let page = page.text();
    assert!(page.contains("\nsluicegate_api_plaintext 1\n"), "{page}");
}

#[tokio::test]
async fn ap_16_debug_endpoints_are_absent() {
    let client = Desk::new(1).client();
    let paths = ["/debug", "/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile", "/debug/vars"];
    for path in paths.into_iter().chain(["/v1/debug", "/profile", "/profiling", "/tasks", "/console", "/swagger"]) {
        client.get(path).await.problem(404);
        client.send("POST", path, &[("content-type", "application/json")], "{}").await.problem(404);
    }
}
