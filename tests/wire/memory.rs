//! A server that is short of memory: whom it refuses, that it stays below what it may use, and how it comes back.

use std::time::Duration;

use sluicegate::proto::rtmp::amf0::Value;
use sluicegate::proto::rtmp::message::type_id::VIDEO;

use crate::support::calm::Calm;
use crate::support::hand::{Hand, picture};
use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually};

/// What the server may use; half of it is taken when it has just started, most of that by its program.
const LIMIT: u64 = 128 << 20;

/// A line of what the kernel says about the process.
fn status(server: &Server, key: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {key} in:\n{status}")).trim().to_owned()
}

/// The most that the process ever had in memory, as the kernel counts it.
fn peak_bytes(server: &Server) -> u64 {
    status(server, "VmHWM").strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1_024
}

fn state(server: &Server) -> String {
    server.node()["load_state"].as_str().unwrap().to_owned()
}

/// Publishes a group of pictures of a mebibyte, which is kept for viewers who may come, and waits until it was read.
fn publisher(server: &Server, number: usize) -> Hand {
    let mut hand = Hand::publishing(server.rtmp, "live", &format!("flood-{number}"));
    hand.set_chunk_size(65_536);
    for number in 0..52 {
        hand.message(VIDEO, 1, number * 40, &picture(number == 0, number, 20_000));
    }
    // What comes after it is answered after it.
    hand.command(0, "createStream", 9.0, &[Value::Null]);
    hand.expect("all of it is read", |it| it.answer("_result", 9.0).is_some());
    hand
}

/// Publishers come until the server is in this state; a viewer sees all the while what it came for. They bring less between
/// two looks of the server, which are a quarter of a second apart, than lies between its thresholds.
fn flood_until(wanted: &str, server: &Server, calm: &mut Calm, publishers: &mut Vec<Hand>) {
    while state(server) != wanted {
        assert!(publishers.len() < 200, "{} mebibytes were published and nobody minds", publishers.len());
        publishers.push(publisher(server, publishers.len()));
        for _ in 0..15 {
            calm.beat();
        }
    }
}

#[test]
fn no_shard_waits_for_a_huge_page_to_be_cleared() {
    let server = Server::start("");
    assert_eq!(status(&server, "THP_enabled"), "0");
}

#[test]
fn fa_20_newcomers_are_refused_before_memory_runs_out_and_who_is_here_goes_on() {
    let server = Server::start(
        "[shard]\ncount = 1\nmemory_max = \"128MiB\"\n[rtmp]\nmedia_timeout = \"1h\"\n\
         [stream]\ngop_bytes = \"4MiB\"\nqueue_bytes = \"4MiB\"\nresume_window = \"0s\"\n\
         [sessions]\npublish_lead_max = \"0s\"\nstall_after = \"10m\"",
    );
    let mut calm = Calm::start(&server, "calm");
    let mut publishers = Vec::new();
    flood_until("orange", &server, &mut calm, &mut publishers);
    let mut viewer = Raw::play(server.rtmp, "live", "calm");
    assert!(viewer.pump_until(PATIENCE, |it| it.started || it.refused.is_some()));
    assert!(viewer.refused.expect("a viewer was let in").1.contains("overloaded"));

    flood_until("red", &server, &mut calm, &mut publishers);
    let ready = server.get("/readyz");
    assert_eq!((ready.0, &ready.1["status"]), (503, &"overloaded".into()));
    // The listener was waiting for somebody when it was told: that one is refused, and the others wait outside.
    let mut first = Raw::publish(server.rtmp, "live", "late");
    assert!(first.pump_until(PATIENCE, |it| it.started || it.refused.is_some()));
    assert!(first.refused.expect("a publisher was let in").1.contains("overloaded"));
    let mut late: Vec<Raw> =
        (0..20).map(|number| Raw::publish(server.rtmp, "live", &format!("late-{number}"))).collect();
    for _ in 0..20 {
        calm.beat();
    }
    for raw in &mut late {
        raw.pump_until(Duration::from_millis(5), |it| it.received > 0);
        assert_eq!((raw.received, raw.closed), (0, false), "a peer was not left in the backlog");
    }
    let peak = peak_bytes(&server);
    assert!(peak <= LIMIT, "{peak} bytes at the most, and {LIMIT} were allowed");
    calm.assert_undisturbed(&server);

    // Nobody was ended for it: those go who want to, and with their memory there is room for others.
    let metrics = server.metrics();
    assert_eq!(metrics.sum("sluicegate_session_closes_total", ""), 0);
    assert_eq!(metrics.sum("sluicegate_attempts_total", "reason=\"overload\""), 2, "{}", metrics.0);
    drop(publishers);
    for raw in &mut late {
        assert!(raw.pump_until(PATIENCE, |it| it.started || it.closed) && raw.started, "a peer was forgotten");
    }
    eventually("it is green", || state(&server) == "green");
    calm.assert_undisturbed(&server);
}
