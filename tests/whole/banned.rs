//! Bans over HTTP end and refuse, outlive the process, and are lifted.

use serde_json::{Value, json};

use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server};

fn ban(server: &Server, ask: Value) -> Value {
    let (status, answer) = server.call("POST", "/v1/bans", Some(&ask));
    assert_eq!(status, 200, "{answer}");
    answer
}

fn is_refused(server: &Server, stream: &str) -> bool {
    let mut raw = Raw::play(server.rtmp, "live", stream);
    assert!(raw.pump_until(PATIENCE, |it| it.started || it.refused.is_some() || it.closed), "no answer");
    !raw.started
}

#[test]
fn a_ban_ends_and_refuses_until_it_is_lifted_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&Server::ledger_of(&dir));
    let mut publisher = Raw::publish(server.rtmp, "live", "banned").start();
    publisher.send_picture(0);
    let mut player = Raw::play(server.rtmp, "live", "banned").start();
    let id = server.wait_for_sessions("kind=play", 1)[0]["id"].as_str().unwrap().to_owned();
    let made = ban(
        &server,
        json!({"address": "127.0.0.1", "kind": "play", "app": "live", "stream": "banned", "ban_for": "1h"}),
    );
    player.drain();
    assert_eq!(server.wait_for_end(&id)["reason"], "banned");
    assert!(is_refused(&server, "banned") && !is_refused(&server, "another"));
    assert_eq!(server.sessions("kind=publish").len(), 1, "the publisher is not meant");
    // Of a peer that is not here.
    ban(&server, json!({"address": "192.0.2.1", "ban_for": "1h"}));

    for how in ["SIGTERM", "SIGKILL"] {
        if how == "SIGTERM" {
            server.signal(libc::SIGINT);
            server.wait(PATIENCE);
        } else {
            server.kill();
        }
        server.start_again();
        let bans = server.get("/v1/bans").1;
        assert_eq!(bans["total"], 2, "{how}: {bans:#}");
        assert!(is_refused(&server, "banned"), "{how}: it is back");
        assert!(!is_refused(&server, "another"), "{how}");
    }

    let path = format!("/v1/bans/{}", made["ban"]["id"].as_str().unwrap());
    assert_eq!(server.call("DELETE", &path, None).0, 200);
    crate::support::eventually("it is let in", || !is_refused(&server, "banned"));
    server.signal(libc::SIGINT);
    server.wait(PATIENCE);
    server.start_again();
    let bans = server.get("/v1/bans").1;
    assert_eq!((&bans["total"], &bans["bans"][0]["address"]), (&1.into(), &"192.0.2.1".into()), "{bans:#}");
    assert!(!is_refused(&server, "banned"));
}
