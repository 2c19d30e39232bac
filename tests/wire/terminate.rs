//! Sessions are ended by id and by filter, and refused when they come straight back.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server};

#[test]
fn delete_ends_one_session_and_only_that() {
    let server = Server::start("");
    let mut publisher = Raw::publish(server.rtmp, "live", "kick").start();
    publisher.send_picture(0);
    let mut one = Raw::play(server.rtmp, "live", "kick").start();
    let mut other = Raw::play(server.rtmp, "live", "kick").start();
    let port = one.local().port();
    let sessions = server.wait_for_sessions("kind=play", 2);
    let target = sessions.iter().find(|it| it["remote"].as_str().unwrap().ends_with(&format!(":{port}"))).unwrap();
    let id = target["id"].as_str().unwrap();

    let (status, answer) = server.call("DELETE", &format!("/v1/sessions/{id}"), None);
    assert_eq!(status, 200, "{answer}");
    one.drain();
    assert!(one.refused.is_some(), "no goodbye");
    let session = server.wait_for_end(id);
    assert_eq!(session["reason"], "kicked");
    assert_eq!(session["bytes"]["tx"].as_u64(), Some(one.received), "{session:#}");

    // Again: harmless, and says so. An unknown one is not there.
    let (status, answer) = server.call("DELETE", &format!("/v1/sessions/{id}"), None);
    assert_eq!((status, &answer["already_closed"]), (200, &json!(true)), "{answer}");
    let (status, _) = server.call("DELETE", "/v1/sessions/01890a5d-ac96-774b-bcce-b302099a8057", None);
    assert_eq!(status, 404);

    publisher.send_picture(1);
    let before = other.messages.len();
    assert!(other.pump_until(PATIENCE, |it| it.messages.len() > before), "the neighbour was disturbed");
}

#[test]
fn a_terminated_player_is_refused_for_as_long_as_asked_and_no_longer() {
    let server = Server::start("");
    let mut publisher = Raw::publish(server.rtmp, "live", "banned").start();
    publisher.send_picture(0);
    let _player = Raw::play(server.rtmp, "live", "banned").start();
    let _innocent = Raw::publish(server.rtmp, "live", "elsewhere").start();
    server.wait_for_sessions("kind=play", 1);

    let ask = json!({"filter": {"stream": "banned", "kind": "play"}, "ban_for": "2s", "dry_run": true});
    let (status, answer) = server.call("POST", "/v1/sessions/terminate", Some(&ask));
    assert_eq!((status, &answer["matched"], &answer["closed"]), (200, &json!(1), &json!(0)), "{answer}");
    assert_eq!(server.sessions("kind=play").len(), 1, "a dry run ended a session");

    let ask = json!({"filter": {"stream": "banned", "kind": "play"}, "ban_for": "2s"});
    let banned_at = Instant::now();
    let (status, answer) = server.call("POST", "/v1/sessions/terminate", Some(&ask));
    assert_eq!((status, &answer["matched"], &answer["closed"]), (200, &json!(1), &json!(1)), "{answer}");

    let mut back = Raw::play(server.rtmp, "live", "banned");
    assert!(back.pump_until(PATIENCE, |it| it.started || it.refused.is_some()));
    let refusal = back.refused.clone().expect("the banned player was let in");
    assert!(refusal.1.contains("refused for some time"), "{refusal:?}");
    // The publisher has the same address and another role; another stream is not meant either.
    assert_eq!(server.sessions("kind=publish").len(), 2);
    Raw::play(server.rtmp, "live", "elsewhere").start();

    std::thread::sleep(Duration::from_secs(2).saturating_sub(banned_at.elapsed()) + Duration::from_millis(100));
    Raw::play(server.rtmp, "live", "banned").start();
}

#[test]
fn a_filter_without_conditions_needs_a_confirmation() {
    let server = Server::start("");
    let mut publisher = Raw::publish(server.rtmp, "live", "all").start();
    publisher.send_picture(0);
    let (status, answer) = server.call("POST", "/v1/sessions/terminate", Some(&json!({"filter": {}})));
    assert_eq!(status, 400, "{answer}");
    let (status, answer) =
        server.call("POST", "/v1/sessions/terminate", Some(&json!({"filter": {}, "confirm": "all"})));
    assert_eq!((status, &answer["closed"]), (200, &json!(1)), "{answer}");
    publisher.drain();
}

/// A back end that says yes to everybody as `anna`, on the stream `given`, and to a question with `hold` in its query only
/// when it is let go.
struct BackEnd {
    url: String,
    asked: std::sync::mpsc::Receiver<String>,
    let_go: std::sync::mpsc::Sender<()>,
}

impl BackEnd {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (asked_in, asked) = std::sync::mpsc::channel();
        let (let_go, held) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = std::io::BufReader::new(stream.unwrap());
                let question = read_request(&mut stream);
                let is_held = question.contains("hold=1");
                if asked_in.send(question).is_err() || (is_held && held.recv().is_err()) {
                    return;
                }
                let body = json!({"allow": true, "user": "anna", "stream": "given"}).to_string();
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
                let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                // Who asked may be tired of waiting.
                let _ = std::io::Write::write_all(stream.get_mut(), answer.as_bytes());
            }
        });
        Self { url, asked, let_go }
    }

    fn server(&self) -> Server {
        let hook = format!("[[hook.ask]]\nname = \"desk\"\nurl = \"{}\"\nkinds = [\"play\"]", self.url);
        Server::start(&format!("[hook]\ndecide_timeout = \"8s\"\n{hook}"))
    }
}

/// The body of one request.
fn read_request(stream: &mut std::io::BufReader<std::net::TcpStream>) -> String {
    use std::io::{BufRead as _, Read as _};
    let (mut length, mut line) = (0, String::new());
    while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

#[test]
fn a_ban_holds_for_who_was_given_another_stream_than_it_asked_for() {
    let back_end = BackEnd::start();
    let server = back_end.server();
    let mut player = Raw::play(server.rtmp, "live", "asked").start();
    assert_eq!(server.wait_for_sessions("kind=play", 1)[0]["stream"], "given");
    back_end.asked.recv_timeout(PATIENCE).unwrap();

    let ask = json!({"filter": {"stream": "given"}, "ban_for": "1h"});
    let (status, answer) = server.call("POST", "/v1/sessions/terminate", Some(&ask));
    assert_eq!((status, &answer["closed"]), (200, &json!(1)), "{answer}");
    player.drain();
    // It comes back by the name that it knows, and by the one that it has learned.
    for name in ["asked", "given"] {
        let mut back = Raw::play(server.rtmp, "live", name);
        assert!(back.pump_until(PATIENCE, |it| it.started || it.refused.is_some()));
        assert!(back.refused.is_some() && !back.started, "{name} was let in");
    }
    assert!(back_end.asked.try_recv().is_err(), "nobody asks about who is banned");
    // By a third name it is asked about, and is not let in where it would be sent.
    let mut back = Raw::play(server.rtmp, "live", "third");
    assert!(back.pump_until(PATIENCE, |it| it.started || it.refused.is_some()));
    assert!(back.refused.is_some() && !back.started, "it was let in by another name");
}

#[test]
fn a_ban_holds_for_a_question_that_is_open_when_it_comes() {
    let back_end = BackEnd::start();
    let server = back_end.server();
    let mut player = Raw::play(server.rtmp, "live", "given").start();
    back_end.asked.recv_timeout(PATIENCE).unwrap();
    server.wait_for_sessions("kind=play&user=anna", 1);
    let mut late = Raw::play(server.rtmp, "live", "given?hold=1");
    std::thread::scope(|scope| {
        let pumped = scope.spawn(|| {
            assert!(late.pump_until(PATIENCE, |it| it.started || it.refused.is_some()), "no verdict");
        });
        assert!(back_end.asked.recv_timeout(PATIENCE).unwrap().contains("hold=1"));
        // Nobody knows yet that the newcomer is anna too.
        let ask = json!({"filter": {"user": "anna"}, "ban_for": "1h"});
        let (status, answer) = server.call("POST", "/v1/sessions/terminate", Some(&ask));
        assert_eq!((status, &answer["closed"]), (200, &json!(1)), "{answer}");
        back_end.let_go.send(()).unwrap();
        pumped.join().unwrap();
    });
    assert!(late.refused.is_some() && !late.started, "a banned peer was let in");
    player.drain();
    drop(late);
    server.wait_for_sessions("", 0);
    let closed = server.events("session.closed");
    assert!(closed.iter().any(|(_, it)| it["reason"] == "banned"), "{closed:#?}");
}
