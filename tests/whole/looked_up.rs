//! The history answers who watched what, when, for how long and how much, and its sums are what players counted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::back_end::{BackEnd, Say};
use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually};

fn unix_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A server that knows a user from the query.
fn server(dir: &tempfile::TempDir) -> (BackEnd, Server) {
    let back_end = BackEnd::answering(|asked| {
        let user = asked["session"]["query"].as_str().unwrap_or("studio").to_owned();
        Say::yes(json!({"user": user, "labels": {"plan": "gold"}}))
    });
    let server =
        Server::start(&format!("[stream]\nresume_window = \"200ms\"\n{}{}", Server::ledger_of(dir), back_end.ask("")));
    (back_end, server)
}

fn rows(server: &Server, filter: &str) -> Vec<Value> {
    let (status, page) = server.get(&format!("/v1/history/sessions?limit=1000&{filter}"));
    assert_eq!(status, 200, "{page}");
    page["sessions"].as_array().unwrap().clone()
}

#[test]
fn who_watched_when_how_long_and_how_much_is_what_the_players_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (_back_end, server) = server(&dir);
    let began = unix_ms();
    let users = ["anna", "bert", "anna", "carl", "bert", "anna"];
    let mut publisher = Raw::publish(server.rtmp, "live", "show").start();
    let mut players: Vec<Raw> =
        users.iter().map(|user| Raw::play(server.rtmp, "live", &format!("show?{user}")).start()).collect();
    for number in 0..60 {
        publisher.send_picture(number);
        for player in &mut players {
            player.pump_until(Duration::from_millis(1), |_| false);
        }
    }
    // While they watch, they are on record as being there.
    eventually("all are on record", || rows(&server, "stream=show&state=open").len() == 7);
    publisher.finish();
    publisher.pump_until(Duration::from_millis(50), |_| false);
    drop(publisher);
    for player in &mut players {
        assert!(player.pump_until(PATIENCE, |it| it.ended), "the stream does not end");
    }
    server.wait_for_sessions("", 0);
    eventually("their ends are on record", || rows(&server, "stream=show&state=closed").len() == 7);
    let ended = unix_ms();

    let counted = |user: &str| -> Vec<&Raw> {
        players.iter().zip(users).filter(|(_, of)| *of == user).map(|(player, _)| player).collect()
    };
    for user in ["anna", "bert", "carl"] {
        let theirs = rows(&server, &format!("user={user}"));
        assert_eq!(theirs.len(), counted(user).len());
        for player in counted(user) {
            let row = theirs.iter().find(|row| row["remote"] == player.local().to_string()).unwrap();
            assert_eq!(row["bytes"]["tx"], player.received, "{row:#}");
            assert_eq!(row["bytes"]["rx"], player.sent, "{row:#}");
            assert_eq!((&row["reason"], &row["labels"]["plan"]), (&"stream_ended".into(), &"gold".into()), "{row:#}");
            assert!(row["started_at"].is_string() && row["duration_ms"].as_u64().unwrap() <= ended - began, "{row:#}");
        }
        let sum: u64 = counted(user).iter().map(|player| player.received).sum();
        let (_, summary) = server.get(&format!("/v1/history/summary?user={user}&kind=play"));
        let sums = &summary["total"]["sums"];
        assert_eq!((&sums["bytes"]["tx"], &sums["sessions"]), (&sum.into(), &counted(user).len().into()), "{sums:#}");
    }
    let received: u64 = players.iter().map(|player| player.received).sum();
    let (_, summary) = server.get("/v1/history/summary?kind=play&group_by=user");
    let sums = &summary["total"]["sums"];
    assert_eq!(
        (&sums["bytes"]["tx"], &sums["users"], &sums["peak"]),
        (&received.into(), &3.into(), &6.into()),
        "{summary:#}"
    );
    let groups: u64 =
        summary["groups"].as_array().unwrap().iter().map(|it| it["sums"]["bytes"]["tx"].as_u64().unwrap()).sum();
    assert_eq!(groups, received, "{summary:#}");
    // The live summary says the same of the same life of the server.
    let (_, live) = server.get("/v1/summary");
    let (_, summary) = server.get("/v1/history/summary");
    let (live, sums) = (&live["collectors"]["rtmp"]["finished"], &summary["total"]["sums"]);
    assert_eq!((&live["sessions"], &live["bytes"]), (&sums["sessions"], &sums["bytes"]));
    // And so does the export, line by line.
    let (status, export) = server.call_text("GET", "/v1/history/export?kind=play", None);
    assert_eq!(status, 200);
    let lines: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let exported: u64 = lines.iter().map(|row| row["bytes"]["tx"].as_u64().unwrap()).sum();
    assert_eq!((lines.len(), exported), (6, received));
}

#[test]
fn who_was_refused_is_on_record_with_the_reason_and_without_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let back_end = BackEnd::answering(|_| Say::no("no"));
    let server = Server::start(&format!("{}{}", Server::ledger_of(&dir), back_end.ask("")));
    let mut refused = Raw::publish(server.rtmp, "live", "cam?token=hunter2");
    assert!(refused.pump_until(PATIENCE, |it| it.refused.is_some() || it.closed));
    eventually("its end is on record", || rows(&server, "state=closed").len() == 1);
    let text = server.call_text("GET", "/v1/history/sessions", None).1;
    assert!(!text.contains("hunter2"), "{text}");
    let row = &rows(&server, "")[0];
    assert_eq!(
        (&row["reason"], &row["stream"], &row["started_at"]),
        (&"auth_denied".into(), &"cam".into(), &Value::Null)
    );
}
