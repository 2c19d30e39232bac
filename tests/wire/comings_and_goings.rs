//! Publishers that flap, peers that are there in name only.

use std::time::Duration;

use crate::support::calm::Calm;
use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually};

#[test]
fn fa_06_a_flapping_publisher_leaves_a_record_for_each_time_and_nothing_else() {
    const TIMES: u64 = 40;
    let server = Server::start("[shard]\ncount = 2\nreport_every = \"50ms\"\n[stream]\nresume_window = \"10s\"");
    let mut calm = Calm::start(&server, "calm");
    let mut viewer = Raw::play(server.rtmp, "live", "flaps").start();
    let viewer_id = server.wait_for_sessions("stream=flaps&kind=play", 1)[0]["id"].as_str().unwrap().to_owned();
    let mut settled = None;
    for time in 0..TIMES {
        let mut publisher = Raw::publish(server.rtmp, "live", "flaps").start();
        let seen = pictures(&viewer);
        publisher.send_picture(0);
        assert!(viewer.pump_until(PATIENCE, |it| pictures(it) > seen), "time {time}: the viewer got nothing");
        // In good order, or just gone.
        if time % 2 == 0 {
            publisher.finish();
            publisher.pump_until(PATIENCE, |it| it.statuses.iter().any(|code| code == "NetStream.Unpublish.Success"));
        }
        drop(publisher);
        server.wait_for_sessions("stream=flaps&kind=publish", 0);
        calm.beat();
        if time == TIMES / 4 {
            settled = Some((server.resident_bytes(), descriptors(&server)));
        }
    }
    assert!(!viewer.ended && !viewer.closed, "{:?}", viewer.statuses);
    assert_eq!(server.wait_for_sessions("stream=flaps", 1)[0]["id"], viewer_id.as_str());

    let events = server.events("session,stream");
    let of = |name: &str| -> Vec<&serde_json::Value> {
        let is_meant =
            |it: &&(String, serde_json::Value)| it.0 == name && it.1["stream"] == "flaps" && it.1["kind"] != "play";
        events.iter().filter(is_meant).map(|(_, data)| data).collect()
    };
    for name in ["session.opened", "session.started", "session.closed", "stream.online"] {
        assert_eq!(of(name).len() as u64, TIMES, "{name}");
    }
    assert!(of("stream.offline").is_empty(), "the resume window was open all the time");
    // Each record is opened once and closed once, in this order.
    let ids = |name: &str| -> Vec<String> { of(name).iter().map(|it| it["session"].to_string()).collect() };
    assert_eq!(ids("session.opened"), ids("session.closed"));
    assert!(of("session.closed").iter().all(|it| it["reason"] == "client_done"), "{:#?}", of("session.closed"));

    eventually("its connections are gone", || server.shards("connections") == 3);
    let (memory, open) = settled.unwrap();
    assert!(descriptors(&server) <= open + 2, "{} descriptors, {open} before", descriptors(&server));
    let grown = server.resident_bytes().saturating_sub(memory);
    assert!(grown < 8 << 20, "{grown} bytes in {} publishes", TIMES * 3 / 4);
    calm.assert_undisturbed(&server);
}

fn pictures(viewer: &Raw) -> usize {
    viewer.messages.iter().filter(|message| message.type_id == 9 && message.payload.len() == 1_000).count()
}

fn descriptors(server: &Server) -> u64 {
    server.node()["descriptors"]["open"].as_u64().expect("a count")
}

#[test]
fn fa_08_publishers_without_media_are_closed_and_their_viewers_held() {
    let server = Server::start(
        "[rtmp]\nmedia_timeout = \"1s\"\nfirst_media_timeout = \"1s\"\n[stream]\nresume_window = \"30s\"",
    );
    // Neither of them ends its connection: to the server they look as after a cable was pulled.
    let mut silent = Raw::publish(server.rtmp, "live", "silent").start();
    let mute = Raw::publish(server.rtmp, "live", "mute").start();
    silent.send_picture(0);
    let mut viewer = Raw::play(server.rtmp, "live", "silent").start();
    assert!(viewer.pump_until(PATIENCE, |it| it.messages.iter().any(|m| m.type_id == 9)));
    for (raw, reason, side) in [(&silent, "media_timeout", "network"), (&mute, "first_media_timeout", "client")] {
        let events = || {
            let all = server.events("session.closed");
            all.into_iter().find(|(_, it)| it["remote"] == raw.local().to_string()).map(|(_, it)| it)
        };
        eventually(reason, || events().is_some());
        let closed = events().unwrap();
        assert_eq!((&closed["reason"], &closed["side"]), (&reason.into(), &side.into()), "{closed:#}");
    }
    silent.drain();
    viewer.pump_until(Duration::from_millis(200), |_| false);
    assert!(!viewer.ended && !viewer.closed, "the resume window is open: {:?}", viewer.statuses);
    let mut back = Raw::publish(server.rtmp, "live", "silent").start();
    let before = viewer.messages.len();
    back.send_picture(0);
    assert!(viewer.pump_until(PATIENCE, |it| it.messages.len() > before));
}

#[test]
fn fa_08_every_connection_is_probed_by_the_kernel() {
    let server = Server::start("");
    let mut calm = Calm::start(&server, "calm");
    let idle = Raw::play(server.rtmp, "live", "nobody").start();
    // A viewer that is gone without a word reads nothing and owes nothing: only a probe finds it. The kernel tells its
    // timer for a connection: 2 is the one of keep-alive, and what is left of its 15 seconds is in hundredths.
    let timer = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let ports = format!(":{:04X} 0100007F:{:04X} ", server.rtmp.port(), idle.local().port());
        let line = table.lines().find(|line| line.contains(&ports)).expect("the server's end").to_owned();
        let (kind, left) = line.split_whitespace().nth(5).unwrap().split_once(':').unwrap();
        (kind.to_owned(), u64::from_str_radix(left, 16).unwrap())
    };
    eventually("the probe is the only timer", || timer().0 == "02");
    let (_, left) = timer();
    assert!((1..=1_500).contains(&left), "the next probe is in {left} hundredths of a second");
    calm.assert_undisturbed(&server);
}
