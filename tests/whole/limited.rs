//! How many at once.

use serde_json::json;

use crate::support::back_end::{BackEnd, Say};
use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually};

/// A back end that knows a user from the query, and a server with two seats for each.
fn server(at_limit: &str, dir: &tempfile::TempDir) -> (BackEnd, Server) {
    let back_end = BackEnd::answering(|asked| {
        let user = asked["session"]["query"].as_str().unwrap_or("nobody").to_owned();
        Say::yes(json!({"user": user}))
    });
    let limits = format!("[admission.limits]\nsessions_per_user = 2\nat_limit = \"{at_limit}\"\n");
    let server = Server::start(&format!("{}{limits}{}", Server::ledger_of(dir), back_end.ask("kinds = [\"play\"]")));
    (back_end, server)
}

fn refused(server: &Server, name: &str) -> (String, String) {
    let mut raw = Raw::play(server.rtmp, "live", name);
    assert!(raw.pump_until(PATIENCE, |it| it.started || it.refused.is_some() || it.closed));
    assert!(!raw.started, "one too many is in");
    let remote = raw.local();
    let ends = || server.sessions(&format!("state=finished&remote={remote}"));
    eventually("its end is known", || ends().len() == 1);
    let text = |field: &str| ends()[0][field].as_str().unwrap_or_default().to_owned();
    assert_eq!(Some(&*text("user")), name.split_once('?').map(|(_, user)| user), "who was refused");
    (text("reason"), text("detail"))
}

#[test]
fn the_third_session_of_a_user_is_refused_and_comes_in_when_one_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (_back_end, server) = server("reject_new", &dir);
    let mut publisher = Raw::publish(server.rtmp, "live", "limited").start();
    publisher.send_picture(0);
    let one = Raw::play(server.rtmp, "live", "limited?anna").start();
    let _two = Raw::play(server.rtmp, "live", "limited?anna").start();
    assert_eq!(refused(&server, "limited?anna"), ("concurrency_limit".into(), "user".into()));
    let _other = Raw::play(server.rtmp, "live", "limited?bert").start();
    drop(one);
    server.wait_for_sessions("kind=play&user=anna", 1);
    let _again = Raw::play(server.rtmp, "live", "limited?anna").start();
    assert_eq!(refused(&server, "limited?anna"), ("concurrency_limit".into(), "user".into()));
    // The record and the log name her too.
    eventually("both refusals are on record", || {
        let found = server.get("/v1/history/sessions?reason=concurrency_limit&user=anna").1;
        found["sessions"].as_array().is_some_and(|found| found.len() == 2)
    });
    let log = server.log();
    let denied: Vec<&str> = log.lines().filter(|line| line.contains("session_denied")).collect();
    assert!(
        denied.len() == 2 && denied.iter().all(|line| line.contains("user=\"anna\"") || line.contains("user=anna")),
        "{denied:#?}"
    );
}

#[test]
fn the_oldest_session_of_a_user_makes_room_for_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let (_back_end, server) = server("evict_oldest", &dir);
    let mut publisher = Raw::publish(server.rtmp, "live", "evicting").start();
    publisher.send_picture(0);
    let mut players: Vec<Raw> = Vec::new();
    for number in 0..6 {
        let player = Raw::play(server.rtmp, "live", "evicting?anna").start();
        players.push(player);
        let expected = (number + 1).min(2);
        let here = server.wait_for_sessions("kind=play&user=anna", expected);
        let remotes: Vec<_> = here.iter().map(|it| it["remote"].as_str().unwrap().to_owned()).collect();
        let newest = &players[players.len() - expected..];
        assert_eq!(remotes, newest.iter().map(|it| it.local().to_string()).collect::<Vec<_>>());
    }
    for evicted in &mut players[..4] {
        evicted.drain();
    }
    let ends = server.sessions("state=finished&user=anna");
    let reasons: Vec<_> =
        ends.iter().map(|it| (it["reason"].as_str().unwrap(), it["detail"].as_str().unwrap())).collect();
    assert_eq!(reasons, [("concurrency_limit", "user"); 4], "{ends:#?}");
}
