//! Everybody comes and goes at once, over limits, take-overs, other names and slow answers: nothing is lost or left over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sluicegate::stdx::ids::SplitMix;

use crate::support::back_end::{BackEnd, Say};
use crate::support::raw::Raw;
use crate::support::{Server, eventually};

const USERS: u64 = 4;

/// Comes and goes until told to stop, as a publisher or a player of one of two streams.
fn come_and_go(rtmp: std::net::SocketAddr, seed: u64, stop: &AtomicBool, came: &AtomicU64) {
    let mut dice = SplitMix::new(seed);
    while !stop.load(Ordering::Relaxed) {
        let user = dice.below(USERS);
        let stream = dice.below(2);
        let is_publisher = dice.below(3) == 0;
        let mut raw = if is_publisher {
            Raw::publish(rtmp, "live", &format!("asked-{stream}?user=u{user}"))
        } else {
            Raw::play(rtmp, "live", &format!("crowd-{stream}?user=u{user}"))
        };
        came.fetch_add(1, Ordering::Relaxed);
        // Some leave before they are answered, some while they wait for media, some later.
        let patience = Duration::from_millis(dice.below(120));
        raw.pump_until(patience, |it| it.started || it.refused.is_some() || it.closed);
        for number in 0..dice.below(20) {
            if raw.closed || !raw.started {
                break;
            }
            if is_publisher {
                raw.send_picture(number);
            }
            raw.pump_until(Duration::from_millis(3), |it| it.closed);
        }
        if raw.started && dice.below(2) == 0 {
            raw.finish();
            raw.pump_until(Duration::from_millis(5), |it| it.closed);
        }
    }
}

#[test]
fn fa_09_in_a_crowd_every_start_has_its_stop_and_every_seat_is_given_back() {
    let back_end = BackEnd::answering(|asked| {
        let session = &asked["session"];
        let user = session["query"].as_str().and_then(|query| query.strip_prefix("user=")).unwrap_or("").to_owned();
        let mut terms = json!({"user": user});
        if let Some(number) = session["stream"].as_str().and_then(|name| name.strip_prefix("asked-")) {
            terms["stream"] = format!("crowd-{number}").into();
        }
        let noise =
            asked["event_id"].as_str().unwrap().bytes().fold(0_u64, |sum, byte| sum * 31 % 997 + u64::from(byte));
        match noise % 10 {
            0 => Say::no("not you"),
            1 => Say::status(500),
            other => Say::yes(terms).after(Duration::from_millis(other * 6)),
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&format!(
        "[shard]\ncount = 2\nauth_failures_per_ip = 0\n[admission]\nduplicate_publish = \"takeover\"\n[stream]\nresume_window = \"100ms\"\n\
         [admission.limits]\nsessions_per_user = 2\nat_limit = \"evict_oldest\"\n{}{}{}",
        Server::ledger_of(&dir),
        back_end.ask(""),
        back_end.tell("batch_max = 50"),
    ));
    let (stop, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let crowd: Vec<_> = (0..12)
        .map(|seed| {
            let (rtmp, stop, came) = (server.rtmp, Arc::clone(&stop), Arc::clone(&came));
            std::thread::spawn(move || come_and_go(rtmp, seed, &stop, &came))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    stop.store(true, Ordering::Relaxed);
    for one in crowd {
        one.join().unwrap();
    }
    let came = came.load(Ordering::Relaxed);
    assert!(came > 100, "{came} came");
    server.wait_for_sessions("", 0);
    assert_eq!(server.metrics().sum("sluicegate_internal_errors_total", ""), 0);
    // Every seat is free: two of each user come in, and nobody has to go for them.
    back_end.answer(|asked| {
        let query = asked["session"]["query"].as_str().unwrap();
        Say::yes(json!({"user": query.strip_prefix("user=").unwrap()}))
    });
    // The breaker may be open from the failures before.
    eventually("the back end answers", || {
        let mut raw = Raw::play(server.rtmp, "live", "crowd-0?user=somebody");
        raw.pump_until(Duration::from_secs(5), |it| it.started || it.refused.is_some() || it.closed);
        raw.started
    });
    server.wait_for_sessions("", 0);
    let mut players: Vec<Raw> = (0..2 * USERS)
        .map(|number| Raw::play(server.rtmp, "live", &format!("crowd-0?user=u{}", number % USERS)).start())
        .collect();
    let _publisher = Raw::publish(server.rtmp, "live", "crowd-0?user=u0").start();
    server.settle();
    for player in &mut players {
        player.pump_until(Duration::from_millis(1), |_| false);
        assert!(!player.closed, "a seat was still taken");
    }
    drop((players, _publisher));
    server.wait_for_sessions("", 0);

    let opened = |events: &[(String, Value)]| events.iter().filter(|(name, _)| name == "session.opened").count();
    let events = server.events("session.opened,session.closed");
    assert_eq!(opened(&events) * 2, events.len(), "starts and stops");
    back_end.wait_for_ends(opened(&events));
    assert_eq!(back_end.assert_whole().len(), opened(&events));
    // The history has all of them, and of those that began the sums of this life of the server.
    let (_, live) = server.get("/v1/summary");
    let live = &live["collectors"]["rtmp"];
    assert_eq!(live["opened"], opened(&events));
    let (status, export) = server.call_text("GET", "/v1/history/export", None);
    assert_eq!(status, 200);
    let rows: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), opened(&events));
    let began: Vec<&Value> = rows.iter().filter(|row| row["started_at"].is_string()).collect();
    let sum = |way: &str| began.iter().map(|row| row["bytes"][way].as_u64().unwrap()).sum::<u64>();
    let finished = &live["finished"];
    assert_eq!(finished["sessions"], began.len());
    assert_eq!(finished["bytes"], json!({"rx": sum("rx"), "tx": sum("tx")}));
    // Nobody publishes any more, and the registry has forgotten the streams.
    eventually("the streams are gone", || server.get("/v1/streams").1["streams"].as_array().is_some_and(Vec::is_empty));
    let streams = server.events("stream.online,stream.offline");
    let count = |name: &str| streams.iter().filter(|(it, _)| it == name).count();
    assert!(count("stream.online") > 0 && count("stream.offline") > 0, "{streams:#?}");
    assert_eq!(streams.iter().rev().find(|(_, data)| data["stream"] == "crowd-1").unwrap().0, "stream.offline");
}
