//! The back end refuses a peer and says where to go instead: to another stream here, to another server that the
//! configuration names, and to a place that it does not name.

use std::net::{SocketAddr, ToSocketAddrs as _};

use sluicegate::proto::rtmp::amf0::Value;

use crate::support::back_end::{BackEnd, Say};
use crate::support::calm::Calm;
use crate::support::hand::Hand;
use crate::support::peers::{self, Running};
use crate::support::{Server, eventually, scratch};

/// Where a refusal sends the peer: what its status has in `ex`.
fn redirect(hand: &Hand, code: &str) -> Option<String> {
    let status = hand.replies.iter().find(|reply| reply.code() == code).expect("the refusal came");
    assert_eq!((status.name.as_str(), status.stream_id), ("onStatus", 1));
    let info = status.args.last().unwrap();
    assert_eq!(info.get("level").and_then(Value::as_str), Some("error"));
    assert_eq!(info.get("description").and_then(Value::as_str), Some("it has moved"));
    let ex = info.get("ex")?;
    assert_eq!(ex.get("code").and_then(Value::as_number), Some(302.0));
    Some(ex.get("redirect").and_then(Value::as_str).expect("a redirect says where to").to_owned())
}

/// Server, app and stream of a URL, as a peer reads it.
fn parts(url: &str) -> (SocketAddr, &str, &str) {
    let mut parts = url.strip_prefix("rtmp://").unwrap().splitn(3, '/');
    let mut next = || parts.next().unwrap();
    let mut addresses = next().to_socket_addrs().unwrap();
    (addresses.find(SocketAddr::is_ipv4).unwrap(), next(), next())
}

/// Asks for a stream, is refused, and gives back where it was sent. What the session ended with is `auth_denied`.
fn refused(server: &Server, kind: &str) -> Option<String> {
    let mut hand = Hand::connected(server.rtmp, "live");
    let code = match kind {
        "publish" => {
            hand.publish("moved");
            "NetStream.Publish.Denied"
        }
        _ => {
            hand.play("moved");
            "NetStream.Play.Failed"
        }
    };
    hand.expect_code(code);
    let ends = || server.sessions(&format!("state=finished&kind={kind}&remote={}", hand.local()));
    eventually("its end is known", || ends().len() == 1);
    assert_eq!(ends()[0]["reason"], "auth_denied");
    redirect(&hand, code)
}

fn told(server: &Server, result: &str) -> u64 {
    server.metrics().sum("sluicegate_redirects_total", &format!("result=\"{result}\""))
}

/// A back end that sends everybody who asks for `moved` to what `to` makes of the address that the peer came to.
fn sending(to: impl Fn(&str) -> String + Send + Sync + 'static) -> BackEnd {
    BackEnd::answering(move |asked| match asked["session"]["stream"].as_str() {
        Some("moved") => Say::elsewhere("it has moved", &to(asked["session"]["local"].as_str().unwrap())),
        _ => Say::yes(serde_json::json!({})),
    })
}

#[test]
fn hk_09_a_peer_is_sent_to_another_stream_of_this_server_and_gets_in_there() {
    let back_end = sending(|here| format!("rtmp://{here}/live/there"));
    let server = Server::start(&back_end.ask(""));
    let to = refused(&server, "publish").expect("it is told where to");
    let (address, app, stream) = parts(&to);
    assert_eq!((address, app, stream), (server.rtmp, "live", "there"));
    let _publisher = Hand::publishing(address, app, stream);
    assert_eq!(refused(&server, "play").as_deref(), Some(to.as_str()));
    let _player = Hand::playing(address, app, stream);
    server.wait_for_sessions("stream=there", 2);
    eventually("both are counted", || (told(&server, "told"), told(&server, "refused")) == (2, 0));
}

#[test]
fn hk_09_a_peer_is_sent_to_a_server_that_the_configuration_names_and_plays_there() {
    let other = Server::start("");
    let mut there = Calm::start(&other, "there");
    let port = other.rtmp.port();
    let back_end = sending(move |_| format!("rtmp://localhost:{port}/live/there"));
    let server = Server::start(&format!("[admission]\nredirect_hosts = [\"localhost\"]\n{}", back_end.ask("")));
    let to = refused(&server, "play").expect("it is told where to");
    let (address, app, stream) = parts(&to);
    assert_eq!((address, app, stream), (other.rtmp, "live", "there"));
    let mut player = Hand::playing(address, app, stream);
    there.beat();
    player.expect("a picture", |it| it.messages.iter().any(|message| message.type_id == 9));
    there.assert_undisturbed(&other);
}

#[test]
fn hk_09_a_place_that_the_configuration_does_not_name_is_left_out_counted_and_logged() {
    let back_end = sending(|_| "rtmp://evil.example/live/there".into());
    let server = Server::start(&format!("[admission]\nredirect_hosts = [\"edge.example\"]\n{}", back_end.ask("")));
    for (kind, count) in [("publish", 1), ("play", 2)] {
        assert_eq!(refused(&server, kind), None, "{kind}");
        eventually("the redirect is counted", || told(&server, "refused") == count);
        let role = format!("role=\"{kind}\",reason=\"auth_denied\"");
        eventually("the refusal is counted", || server.metrics().sum("sluicegate_session_closes_total", &role) == 1);
    }
    eventually("the log tells", || server.log().matches("redirect_refused").count() == 2);
    assert_eq!(told(&server, "told"), 0);
}

#[test]
fn ffmpeg_does_not_follow_a_redirect_and_shows_the_words_that_came_with_it() {
    let back_end = sending(|here| format!("rtmp://{here}/live/there"));
    let server = Server::start(&back_end.ask(""));
    let (_dir, dir) = scratch();
    let clip = dir.join("clip.flv");
    peers::make_clip(&clip, 1);
    let url = server.url("live/moved");
    for mut ffmpeg in [peers::ffmpeg(), peers::new_ffmpeg()] {
        let mut publisher =
            Running::start(ffmpeg.args(["-re", "-i"]).arg(&clip).args(["-c", "copy", "-f", "flv", &url]));
        assert!(!publisher.wait(), "the publish was accepted");
        assert!(publisher.errors().contains("Server error: it has moved"), "{}", publisher.errors());
    }
    assert_eq!(back_end.asked().len(), 2, "somebody came again");
}
