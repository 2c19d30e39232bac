//! The history over HTTP: what it shows, what it hides, and what it refuses.

use axum::body::Body;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sluicegate::api::Settings;
use sluicegate::api::native::history::EXPORTS_MAX;
use sluicegate::api::settings::{Role, Token};
use sluicegate::ledger::Files;
use sluicegate::ledger::history::History;
use sluicegate::stdx::units::Secret;
use tempfile::TempDir;

use crate::days::{self, Row, id, row};
use crate::desk::{Client, Desk, START_S};

/// 2026-11-20T00:00:00Z; the server of these tests started that morning.
const DAY: u64 = 1_795_132_800_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

pub fn history(rows: &[Row]) -> (TempDir, History) {
    let folder = tempfile::tempdir().unwrap();
    days::write(folder.path(), rows);
    let history = History::new(std::sync::Arc::new(Files::offline(folder.path())));
    (folder, history)
}

fn client(rows: &[Row]) -> (TempDir, Client) {
    let (folder, history) = history(rows);
    (folder, Desk::new(1).client_of(history))
}

/// Three days of sessions, one an hour.
fn three_days() -> Vec<Row> {
    (0..72)
        .map(|n| {
            let at = DAY - 2 * DAY_MS + n * HOUR_MS;
            let mut one = row(n, at, Some(at + HOUR_MS / 2));
            one.user = Some(["ann", "bob", "eve"][n as usize % 3].into());
            one.kind = if n % 12 == 0 { "publish" } else { "play" };
            one.tx_bytes = 1_000;
            one
        })
        .collect()
}

fn ids(page: &Value) -> Vec<String> {
    page["sessions"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn pages_follow_each_other_from_the_newest_to_the_oldest() {
    let (_folder, client) = client(&three_days());
    let (mut path, mut seen) = ("/v1/history/sessions?user=ann,bob&limit=7".to_owned(), Vec::new());
    loop {
        let page = client.get(&path).await.json();
        seen.extend(ids(&page));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut path),
            None => break,
        }
    }
    assert_eq!(seen.len(), 48);
    assert!(seen.windows(2).all(|two| two[0] > two[1]), "out of order");
}

#[tokio::test]
async fn a_session_shows_what_is_on_record_and_hides_its_secrets() {
    let mut one = row(7, DAY, Some(DAY + 90_000));
    one.query = Some("token=hunter2".into());
    one.tc_url = Some("rtmp://u:hunter2@example.org/live?key=hunter2".into());
    one.labels = Some(r#"{"plan":"gold"}"#.into());
    one.remote_ip = "2001:db8::1".into();
    one.rx_bytes = 1_000;
    let mut running = row(8, DAY + 1, None);
    running.updated_ms = DAY + 5_001;
    let (_folder, client) = client(&[one.clone(), running.clone()]);
    let reply = client.get(&format!("/v1/history/sessions/{}", days::text(one.id))).await;
    assert!(!reply.text().contains("hunter2"), "{}", reply.text());
    let session = reply.json();
    assert_eq!(session.get("query"), None);
    assert_eq!(session["tc_url"], "rtmp://***@example.org/live?key=***");
    assert_eq!((&session["state"], &session["remote"]), (&"closed".into(), &"[2001:db8::1]:40000".into()));
    assert_eq!((&session["opened_at"], &session["as_of"]), (&"2026-11-20T00:00:00.000Z".into(), &session["closed_at"]));
    assert_eq!((&session["duration_ms"], &session["bytes"]["rx"]), (&90_000.into(), &1_000.into()));
    assert_eq!(
        (&session["reason"], &session["side"], &session["detail"]),
        (&"client_done".into(), &"client".into(), &Value::Null)
    );
    assert_eq!((&session["labels"], &session["connection"]), (&json!({"plan": "gold"}), &"1-2".into()));
    // What runs is as it was at its last checkpoint, and says so.
    let page = client.get("/v1/history/sessions?state=open").await.json();
    assert_eq!(ids(&page), [days::text(running.id)]);
    let session = &page["sessions"][0];
    assert_eq!((&session["state"], &session["closed_at"]), (&"open".into(), &Value::Null));
    assert_eq!((&session["as_of"], &session["duration_ms"]), (&"2026-11-20T00:00:05.001Z".into(), &5_000.into()));
    for path in ["/v1/history/sessions", "/v1/history/export", "/v1/history/export?format=csv"] {
        let reply = client.get(path).await;
        assert!(reply.text().contains("gold") && !reply.text().contains("hunter2"), "{path}: {}", reply.text());
    }
}

#[tokio::test]
async fn sums_are_grouped_and_split() {
    let (_folder, client) = client(&three_days());
    let path = "/v1/history/summary?group_by=user,kind&every=day&from=2026-11-19T00:00:00Z&to=2026-11-20&limit=2";
    let summary = client.get(path).await.json();
    assert_eq!(
        (&summary["from"], &summary["to"]),
        (&"2026-11-19T00:00:00.000Z".into(), &"2026-11-20T00:00:00.000Z".into())
    );
    let total = &summary["total"]["sums"];
    assert_eq!((&total["sessions"], &total["users"], &total["peak"]), (&24.into(), &3.into(), &1.into()));
    assert_eq!(total["duration_ms"], 12 * HOUR_MS);
    assert_eq!(total["watch_ms"], 11 * HOUR_MS);
    let groups = summary["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[0]["key"], json!({"user": "bob", "kind": "play"}));
    assert_eq!(groups[0]["times"][0]["from"], "2026-11-19T00:00:00.000Z");
    assert_eq!(groups[0]["times"][0]["sums"], groups[0]["sums"]);
    assert_eq!((&summary["other"]["groups"], &summary["other"]["sums"]["sessions"]), (&2.into(), &8.into()));
    assert_eq!(summary["other"]["sums"]["peak"], Value::Null);
    let streams = client.get("/v1/history/summary?group_by=stream&order=bytes").await.json();
    assert_eq!(streams["groups"][0]["key"], json!({"vhost": "default", "app": "live", "stream": "cam"}));
    assert_eq!(streams["total"]["sums"]["bytes"], json!({"rx": 0, "tx": 72_000}));
    assert_eq!((&streams["other"], &streams["from"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_timeline_ends_now_unless_it_is_told_when() {
    let (_folder, client) = client(&three_days());
    let line = client.get("/v1/history/timeline").await.json();
    assert_eq!((&line["bucket_ms"], &line["to"]), (&300_000.into(), &line["as_of"]));
    // The server of the desk has run for a minute, and something.
    assert!(line["to"].as_str().unwrap().starts_with("2026-11-20T05:"), "{}", line["to"]);
    assert_eq!(START_S, 1_795_153_121);
    assert_eq!(line["points"].as_array().unwrap().len(), 288);
    let line =
        client.get("/v1/history/timeline?from=2026-11-19T10:00:00Z&to=2026-11-19T11:00:00Z&bucket=20m").await.json();
    let of = |name: &str| -> Vec<Value> {
        line["points"].as_array().unwrap().iter().map(|point| point[name].clone()).collect()
    };
    assert_eq!(of("mean"), [1.0, 0.5, 0.0]);
    assert_eq!(
        (of("opened"), of("closed"), of("peak")),
        (vec![1.into(), 0.into(), 0.into()], vec![0.into(), 1.into(), 0.into()], vec![1.into(), 1.into(), 0.into()])
    );
    // 1,000 bytes in half an hour.
    assert_eq!(line["points"][0]["bps"]["tx"], 666 * 8 / 1_200);
    // More points than there may be are fewer and longer.
    let line = client.get("/v1/history/timeline?from=2026-01-01&to=2026-11-19&bucket=1s").await.json();
    assert_eq!(line["bucket_ms"], (322 * DAY_MS).div_ceil(2_000));
}

#[tokio::test]
async fn an_export_has_every_session_and_is_read_as_the_client_takes_it() {
    let rows: Vec<Row> = (0..1_234).map(|n| row(n, DAY + n, Some(DAY + n + 5))).collect();
    let (_folder, client) = client(&rows);
    let reply = client.get("/v1/history/export").await;
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1_234);
    assert_eq!(lines[0]["id"], days::text(id(DAY + 1_233, 1_233)));
    let reply = client.get("/v1/history/export?format=csv&from=2026-11-20").await;
    assert_eq!(reply.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    let lines: Vec<&str> = reply.text().split("\r\n").collect();
    assert_eq!((lines.len(), lines[1_235]), (1_236, ""));
    assert!(lines[0].starts_with("id,kind,protocol,"), "{}", lines[0]);
    let cells = |line: &str| line.split(',').count();
    assert!(lines[..1_235].iter().all(|line| cells(line) == cells(lines[0])));
    // A client that does not read holds one batch: nothing more comes until it does.
    let mut body = client.open("/v1/history/export", &[]).await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first.iter().filter(|byte| **byte == b'\n').count(), 500);
    let empty = client.get("/v1/history/export?user=nobody&format=csv").await;
    assert_eq!(empty.text().split("\r\n").count(), 2);
    assert_eq!(client.get("/v1/history/export?user=nobody").await.text(), "");
}

#[tokio::test]
async fn what_strangers_chose_does_not_run_in_a_table() {
    let mut one = row(1, DAY, Some(DAY + 1));
    one.user = Some("=HYPERLINK(\"http://evil.example\",\"x\")".into());
    one.user_agent = Some("a\r\nb,c".into());
    let (_folder, client) = client(&[one]);
    let text = client.get("/v1/history/export?format=csv").await.text().to_owned();
    assert!(text.contains(",\"'=HYPERLINK(\"\"http://evil.example\"\",\"\"x\"\")\","), "{text}");
    assert!(text.contains(",\"a\r\nb,c\","), "{text}");
}

#[tokio::test]
async fn an_export_that_breaks_off_does_not_end_as_one_that_is_complete() {
    let rows: Vec<Row> = (0..600).map(|n| row(n, DAY + n, Some(DAY + n + 5))).collect();
    let (folder, client) = client(&rows);
    let mut body = client.open("/v1/history/export", &[]).await.into_body();
    body.frame().await.unwrap().unwrap();
    // The file's place is taken by one that cannot be read.
    for name in ["2026-11-20.db", "2026-11-20.db-wal", "2026-11-20.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join(name));
    }
    std::fs::write(folder.path().join("2026-11-20.db"), vec![0x5a; 8_192]).unwrap();
    assert!(body.frame().await.unwrap().is_err());
    assert!(body.frame().await.is_none());
    let reply = client.get("/v1/history/export").await;
    reply.problem(503);
    assert_eq!(reply.json()["type"], "urn:sluicegate:problem:ledger-damaged");
    assert!(reply.text().contains("2026-11-20.db"), "{}", reply.text());
}

#[tokio::test]
async fn exports_are_bounded_in_number() {
    let (_folder, client) = client(&[row(1, DAY, None)]);
    let mut open = Vec::new();
    for _ in 0..EXPORTS_MAX {
        open.push(client.open("/v1/history/export", &[]).await);
    }
    let reply = client.get("/v1/history/export").await;
    reply.problem(503);
    assert_eq!(reply.header("retry-after"), Some("10"));
    open.pop();
    assert_eq!(client.get("/v1/history/export").await.status, 200);
}

#[tokio::test]
async fn ap_05_pages_of_impossible_sizes_and_cursors_of_other_lists() {
    let (_folder, client) = client(&three_days());
    let field = async |query: &str| client.get(&format!("/v1/history/sessions?{query}")).await.problem(400);
    for bad in ["0", "-1", "text", "1e3", ""] {
        assert_eq!(field(&format!("limit={bad}")).await.as_deref(), Some("limit"), "{bad}");
    }
    let page = client.get("/v1/history/sessions?limit=1000000000").await.json();
    assert_eq!((ids(&page).len(), &page["next"]), (72, &Value::Null));
    let page = client.get("/v1/history/sessions?user=ann&limit=2").await.json();
    let cursor = page["cursor"].as_str().unwrap();
    for query in ["", "user=bob&", "user=ann&from=2026-11-20&"] {
        assert_eq!(field(&format!("{query}cursor={cursor}")).await.as_deref(), Some("cursor"), "{query}");
    }
    let live = Desk::new(1).client().get(&format!("/v1/sessions?user=ann&cursor={cursor}")).await;
    assert_eq!(live.problem(400).as_deref(), Some("cursor"));
    for forged in ["", "00", "zz", &"f".repeat(48), &"0".repeat(10_000)] {
        assert_eq!(field(&format!("user=ann&cursor={forged}")).await.as_deref(), Some("cursor"));
    }
}

#[tokio::test]
async fn ap_06_hostile_parameters_are_named() {
    let (_folder, client) = client(&[row(1, DAY, None)]);
    let (long, many) = ("a".repeat(1_025), ["a"; 9].join(","));
    for (path, parameter, value) in [
        ("sessions", "app", long.as_str()),
        ("sessions", "app", &many),
        ("sessions", "stream", "%25"),
        ("sessions", "stream", "a//b"),
        ("sessions", "user", "a%00"),
        ("sessions", "remote", "nowhere"),
        ("sessions", "state", "finished"),
        ("sessions", "reason", "because"),
        ("sessions", "from", "2026-13-01"),
        ("sessions", "to", "%ff"),
        ("sessions", "id", "x"),
        ("sessions", "query", "x"),
        ("summary", "group_by", "query"),
        ("summary", "group_by", "user,user"),
        ("summary", "group_by", ""),
        ("summary", "every", "minute"),
        ("summary", "order", "id"),
        ("summary", "limit", "0"),
        ("summary", "cursor", "00"),
        ("timeline", "bucket", "0s"),
        ("timeline", "bucket", "60"),
        ("timeline", "bucket", "1ms"),
        ("timeline", "limit", "1"),
        ("export", "format", "xlsx"),
        ("export", "limit", "1"),
    ] {
        let reply = client.get(&format!("/v1/history/{path}?{parameter}={value}")).await;
        assert_eq!(reply.problem(400).as_deref(), Some(parameter), "{path}?{parameter}");
    }
    let near = client.get("/v1/history/summary?group_by=usr").await;
    assert!(near.text().contains("`user`"), "{}", near.text());
    // Slashes make many readings of a path, and none of them costs more than a look at each row.
    let slashes = vec!["a"; 300].join("/");
    assert_eq!(ids(&client.get(&format!("/v1/history/sessions?stream={slashes}")).await.json()).len(), 0);
}

#[tokio::test]
async fn ap_12_ids_that_are_none() {
    let (_folder, client) = client(&[row(1, DAY, None)]);
    let long = "a".repeat(10 << 10);
    for bad in ["x", "..%2f..%2fetc", "%00", "%ff", "%zz", &long] {
        let reply = client.get(&format!("/v1/history/sessions/{bad}")).await;
        assert_eq!(reply.problem(400).as_deref(), Some("id"), "{bad}");
    }
    for unknown in [id(DAY, 2), id(0, 0), u128::MAX, 0] {
        let reply = client.get(&format!("/v1/history/sessions/{}", days::text(unknown))).await;
        assert_eq!(reply.problem(404).as_deref(), Some("id"));
    }
    client.get("/v1/history/sessions/a/b").await.problem(404);
    client.get("/v1/history").await.problem(404);
    client
        .send("DELETE", &format!("/v1/history/sessions/{}", days::text(id(DAY, 1))), &[], Body::empty())
        .await
        .problem(405);
}

#[tokio::test]
async fn ap_03_a_token_that_may_read_may_read_the_history() {
    let (_folder, history) = history(&[row(1, DAY, None)]);
    const TOKEN: &str = "read-0123456789abcdefghij";
    let tokens = vec![Token { token: Secret::new(TOKEN.into()), role: Role::Read }];
    let settings = Settings { tokens, rate: 1_000, ..Settings::default() };
    let client = Desk::new(1).client_at(history, &settings);
    let bearer = format!("Bearer {TOKEN}");
    for path in ["sessions", "summary", "timeline", "export"] {
        let path = format!("/v1/history/{path}");
        client.get(&path).await.problem(401);
        assert_eq!(client.send("GET", &path, &[("authorization", &bearer)], Body::empty()).await.status, 200, "{path}");
        let head = client.send("HEAD", &path, &[("authorization", &bearer)], Body::empty()).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
    }
}

#[tokio::test]
async fn without_a_ledger_there_is_no_history_and_the_answer_says_why() {
    let client = Desk::new(1).client();
    for path in ["sessions", &format!("sessions/{}", days::text(id(DAY, 1))), "summary", "timeline", "export"] {
        let reply = client.get(&format!("/v1/history/{path}")).await;
        reply.problem(503);
        assert_eq!(reply.json()["type"], "urn:sluicegate:problem:ledger-off", "{path}");
    }
    // A mistake in the question is told first.
    client.get("/v1/history/sessions?strem=x").await.problem(400);
}
