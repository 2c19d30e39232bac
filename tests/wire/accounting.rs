//! Bytes are exact.

use std::time::Duration;

use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually};

#[test]
fn the_sum_a_player_received_is_its_sessions_tx_bytes() {
    let server = Server::start("[stream]\nresume_window = \"500ms\"");
    let mut player = Raw::play(server.rtmp, "live", "exact").start();
    let id = server.wait_for_sessions("kind=play", 1)[0]["id"].as_str().unwrap().to_owned();
    let mut publisher = Raw::publish(server.rtmp, "live", "exact").start();
    let published = server.wait_for_sessions("kind=publish", 1)[0]["id"].as_str().unwrap().to_owned();
    for number in 0..100 {
        publisher.send_picture(number);
    }
    assert!(player.pump_until(PATIENCE, |it| it.messages.len() >= 202), "{} messages", player.messages.len());
    publisher.finish();
    drop_after_close(&mut publisher, &server, &published);
    // The stream ends for the player, which then leaves by itself.
    assert!(player.pump_until(PATIENCE, |it| it.ended));
    let session = server.wait_for_end(&id);
    assert_eq!(session["reason"], "stream_ended");
    assert_eq!(session["bytes"]["tx"].as_u64(), Some(player.received), "{session:#}");
    let media: usize = player.messages.iter().map(|message| message.payload.len()).sum();
    assert_eq!(session["media_bytes"]["tx"].as_u64(), Some(media as u64), "{session:#}");
    assert_eq!(session["frames"]["tx"].as_u64(), Some(player.messages.len() as u64), "{session:#}");
    // What the player sent until then: handshake, commands, acknowledgements.
    assert_eq!(session["bytes"]["rx"].as_u64(), Some(player.sent), "{session:#}");
}

fn drop_after_close(publisher: &mut Raw, server: &Server, id: &str) {
    let session = server.wait_for_end(id);
    assert_eq!(session["reason"], "client_done");
    publisher.pump_until(Duration::from_millis(200), |_| false);
    assert_eq!(session["bytes"]["rx"].as_u64(), Some(publisher.sent), "{session:#}");
    assert_eq!(session["frames"]["rx"].as_u64(), Some(202), "{session:#}");
}

#[test]
fn live_counts_never_fall_and_rates_follow() {
    let server = Server::start("");
    let mut publisher = Raw::publish(server.rtmp, "live", "rates").start();
    let mut player = Raw::play(server.rtmp, "live", "rates");
    let mut last = 0;
    let mut rate: f64 = 0.0;
    for number in 0..75 {
        publisher.send_picture(number);
        player.pump_until(Duration::from_millis(40), |_| false);
        if let Some(session) = server.sessions("kind=play").first() {
            let now = session["bytes"]["tx"].as_u64().unwrap();
            assert!(now >= last, "{now} after {last}");
            last = now;
            rate = rate.max(session["rates"]["tx_bps_1s"].as_f64().unwrap_or(0.0));
        }
    }
    // 25 pictures of 1,000 bytes and as many sounds of 200 a second are 240 kbit/s; the machine may be slow.
    assert!(rate > 50_000.0, "{rate}");
    eventually("the rate falls to zero", || {
        player.pump_until(Duration::from_millis(50), |_| false);
        server.sessions("kind=play")[0]["rates"]["tx_bps_1s"].as_f64() == Some(0.0)
    });
}

#[test]
fn finished_sessions_move_from_active_to_history() {
    let server = Server::start("[api.datarhei]\nip_ignorelist = []");
    let mut publisher = Raw::publish(server.rtmp, "live", "history").start();
    publisher.send_picture(0);
    server.wait_for_sessions("kind=publish&state=running", 1);
    let (_, active) = server.get("/api/v3/session/active?collectors=rtmp");
    assert_eq!(active["rtmp"].as_array().map(Vec::len), Some(1), "{active:#}");
    assert_eq!(active["rtmp"][0]["local"], "publish:/live/history");
    drop(publisher);
    server.wait_for_sessions("", 0);
    eventually("the session is in the summary", || {
        let (_, body) = server.get("/api/v3/session?collectors=rtmp");
        body["rtmp"]["summary"]["sessions"] == 1 && body["rtmp"]["active"]["sessions"] == 0
    });
    let (_, summary) = server.get("/v1/summary");
    assert!(summary.to_string().contains("client_done"), "{summary:#}");
}
