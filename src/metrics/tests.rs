// Whole numbers below 2^53 and zeros that were never touched: these floats are exact.
#![allow(clippy::float_cmp)]

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::admission::load::{Load, Pressure};
use crate::control::Settings;
use crate::control::model::Model;
use crate::event::{Attempt, StreamEvent, StreamWhat, Wanted};
use crate::names::{ConnectionId, Name, SessionId, ShardId, StreamKey};
use crate::proto::rtmp::Glitches;
use crate::session::{Change, CloseReason, Counters, Facts, Reason, What};
use crate::shard::mail::ShardLoad;
use crate::stdx::clock::WallAnchor;

/// Reads a page as strictly as the format is written, and returns its samples by series.
fn parse(page: &str) -> HashMap<String, f64> {
    let mut series = HashMap::new();
    let mut families = BTreeSet::new();
    let (mut helped, mut family, mut is_histogram) = (String::new(), String::new(), false);
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            assert!(is_metric(name) && !help.is_empty(), "{line}");
            helped = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert_eq!(name, helped, "TYPE follows its HELP");
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            is_histogram = kind == "histogram";
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(families.insert(name.to_owned()), "{name} appears twice");
            family = name.to_owned();
        } else {
            let (name, value) = line.rsplit_once(' ').expect(line);
            let bare = name.split('{').next().unwrap();
            let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{family}{part}"));
            let is_part = is_histogram && parts.iter().any(|part| part == bare);
            assert!(if is_histogram { is_part } else { bare == family }, "a sample outside its family: {line}");
            check_labels(&name[bare.len()..]);
            let value: f64 = value.parse().expect(line);
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(series.insert(name.to_owned(), value).is_none(), "{name} appears twice");
        }
    }
    series
}

fn is_metric(name: &str) -> bool {
    name.starts_with("sluicegate_") && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn check_labels(mut labels: &str) {
    let whole = labels;
    if labels.is_empty() {
        return;
    }
    let mut seen = BTreeSet::new();
    labels = labels.strip_prefix('{').expect(whole);
    loop {
        let (label, rest) = labels.split_once("=\"").expect(whole);
        assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !label.is_empty(), "{whole}");
        assert!(seen.insert(label), "{whole}");
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().expect(whole) {
                (at, '"') => break at,
                (_, '\\') => assert!(matches!(chars.next(), Some((_, '\\' | '"' | 'n'))), "{whole}"),
                _ => {}
            }
        };
        labels = &rest[end + 1..];
        match labels.strip_prefix(',') {
            Some(rest) => labels = rest,
            None => break,
        }
    }
    assert_eq!(labels, "}", "{whole}");
}

fn facts(n: u64, kind: Kind, stream: &str) -> Arc<Facts> {
    let name = |text| Name::stream(text).unwrap();
    Arc::new(Facts {
        id: SessionId::new(n, [0; 10]),
        connection: ConnectionId::new(ShardId(0), n),
        shard: ShardId(0),
        kind,
        protocol: Protocol::Rtmp,
        key: StreamKey::new(&name("default"), &name("live"), &name(stream)),
        asked_key: None,
        remote: "192.0.2.1:1000".parse().unwrap(),
        local: "127.0.0.1:1935".parse().unwrap(),
        opened_at: Instant::now(),
        opened_unix_ms: 0,
        query: None,
        user_agent: None,
        referrer: None,
        tc_url: None,
        swf_url: None,
        user: None,
        labels: std::sync::Arc::default(),
    })
}

struct Desk {
    model: Model,
    view: View,
    now: Instant,
}

impl Desk {
    fn new() -> Self {
        let now = Instant::now();
        let model = Model::new(&Settings::default(), now, 2);
        Self { model, view: View::new(WallAnchor::now(), now, 2), now }
    }

    fn say(&mut self, facts: &Arc<Facts>, what: What) {
        let change = Change { facts: facts.clone(), seq: 0, at: self.now, what };
        self.model.session(&mut self.view, &change);
    }

    fn refuse(&mut self, reason: CloseReason) {
        let remote = "192.0.2.1:1".parse().unwrap();
        let attempt =
            Attempt { protocol: Protocol::Rtmp, kind: None, remote, at: self.now, reason, wanted: Wanted::default() };
        self.model.attempt(&mut self.view, &attempt);
    }

    fn page(&self) -> String {
        let process = Process { resident_bytes: Some(4_096), fds: Some(12), fds_max: None };
        let beside = Beside { process, events: 17, api_plaintext: true, ..Beside::default() };
        render(&self.view, &beside, self.now + Duration::from_secs(5))
    }
}

#[test]
fn an_empty_server_has_a_valid_page() {
    let series = parse(&Desk::new().page());
    assert_eq!(series["sluicegate_sessions{proto=\"rtmp\",role=\"play\"}"], 0.0);
    assert_eq!(series["sluicegate_uptime_seconds"], 5.0);
    assert_eq!(series["sluicegate_events_total"], 17.0);
    assert_eq!(series["sluicegate_fds"], 12.0);
    assert_eq!(series["sluicegate_memory_bytes{pool=\"resident\"}"], 4_096.0);
    assert_eq!(series["sluicegate_connections{worker=\"1\"}"], 0.0);
}

#[test]
fn ap_17_the_page_is_valid_and_bears_no_name_from_a_peer() {
    let mut desk = Desk::new();
    for (n, stream) in (1..).zip(["evil 1", "a=b,c", "x y z", "日本"]) {
        let publisher = facts(n, Kind::Publish, stream);
        desk.say(&publisher, What::Opened);
        desk.say(&publisher, What::Started);
        let what = StreamWhat::Online { publisher: publisher.id, shard: ShardId(0), resumed: false };
        let event = StreamEvent { key: publisher.key.clone(), at: desk.now, what };
        desk.model.stream(&mut desk.view, &event, true);
    }
    let page = desk.page();
    let series = parse(&page);
    assert_eq!(series["sluicegate_streams"], 4.0);
    for hostile in ["evil", "a=b", "x y", "日本", "192.0.2.1"] {
        assert!(!page.contains(hostile), "{hostile}");
    }
}

#[test]
fn what_waits_for_each_receiver_is_told_also_when_nothing_does() {
    let tell = |name: &str| crate::hook::Status {
        name: name.into(),
        requests: Vec::new(),
        seconds: crate::hook::meter::Seconds::default(),
        queue: 0,
        breaker: crate::hook::BreakerState::Closed,
        told: crate::hook::teller::Counts::default(),
    };
    let ledger = crate::ledger::Status {
        spools: vec![("billing".into(), 400), ("gone".into(), 7)],
        lost_rows: 3,
        ..crate::ledger::Status::default()
    };
    let dependencies =
        Dependencies { ledger: Some(ledger), tells: vec![tell("billing"), tell("quiet")], ..Dependencies::default() };
    let desk = Desk::new();
    let beside = Beside { dependencies, ..Beside::default() };
    let series = parse(&render(&desk.view, &beside, desk.now));
    assert_eq!(series["sluicegate_hook_spool_bytes{hook=\"billing\"}"], 400.0);
    assert_eq!(series["sluicegate_hook_spool_bytes{hook=\"quiet\"}"], 0.0);
    assert_eq!(series["sluicegate_ledger_lost_rows"], 3.0);
}

#[test]
fn ap_17_label_values_are_escaped() {
    let mut page = Page::default();
    page.family("sluicegate_x", Type::Gauge, "two\nlines and a \\");
    page.sample(&[("a", "quote \" backslash \\ line\nbreak } # HELP")], 1);
    let page = page.finish();
    assert_eq!(page.lines().count(), 3);
    parse(&page);
}

#[test]
fn numbers_are_those_of_the_view() {
    let mut desk = Desk::new();
    let (viewer, waiting, gone) = (facts(1, Kind::Play, "a"), facts(2, Kind::Play, "a"), facts(3, Kind::Publish, "a"));
    let bytes =
        |rx_bytes, tx_bytes| Counters { rx_bytes, tx_bytes, tx_media_bytes: tx_bytes / 2, ..Default::default() };
    for session in [&viewer, &waiting, &gone] {
        desk.say(session, What::Opened);
    }
    desk.say(&viewer, What::Started);
    desk.say(&viewer, What::Updated(bytes(10, 1_000)));
    desk.say(&gone, What::Closed(Reason::Kicked.into(), bytes(500, 50)));
    desk.view.publish_replaced = 2;
    desk.view.load = Load { state: LoadState::Orange, patience_percent: 50 };
    desk.view.pressure = Pressure(875);
    desk.view.times.kick.record(250_000);
    desk.view.times.queue.record(40_000);
    let mut glitches = Glitches::default();
    glitches.add(Glitch::Abort, 3);
    let mut load =
        ShardLoad { accept_paused: Duration::from_millis(1_500), accept_rate_hits: 6, ..ShardLoad::default() };
    load.glitches.add(&glitches);
    for micros in [100, 3_000, 100_000_000] {
        load.fanout.record(micros);
    }
    desk.view.shards[1].load = ShardLoad {
        dropped_frames: 4,
        bans: 3,
        internal_errors: 1,
        loop_lag_max: Duration::from_millis(5),
        log_bytes: 99,
        ..load
    };
    let series = parse(&desk.page());
    for (name, value) in [
        ("sluicegate_sessions{proto=\"rtmp\",role=\"play\"}", 2.0),
        ("sluicegate_sessions{proto=\"rtmp\",role=\"publish\"}", 0.0),
        ("sluicegate_viewers{proto=\"rtmp\"}", 1.0),
        ("sluicegate_session_opens_total{proto=\"rtmp\"}", 3.0),
        ("sluicegate_session_closes_total{proto=\"rtmp\",role=\"publish\",reason=\"kicked\"}", 1.0),
        ("sluicegate_bytes_total{proto=\"rtmp\",role=\"play\",dir=\"tx\"}", 1_000.0),
        ("sluicegate_media_bytes_total{proto=\"rtmp\",role=\"play\",dir=\"tx\"}", 500.0),
        ("sluicegate_bytes_total{proto=\"rtmp\",role=\"publish\",dir=\"rx\"}", 500.0),
        ("sluicegate_publish_replaced_total", 2.0),
        ("sluicegate_frames_dropped_total{cause=\"slow_player\"}", 4.0),
        ("sluicegate_load_state", 2.0),
        ("sluicegate_load_pressure", 0.875),
        ("sluicegate_glitches_total{rule=\"abort\"}", 3.0),
        ("sluicegate_glitches_total{rule=\"command\"}", 0.0),
        ("sluicegate_accept_paused_seconds_total{worker=\"1\"}", 1.5),
        ("sluicegate_limit_hits_total{limit=\"accept_rate\"}", 6.0),
        ("sluicegate_fanout_seconds_bucket{le=\"0.000128\"}", 1.0),
        ("sluicegate_fanout_seconds_bucket{le=\"0.004096\"}", 2.0),
        ("sluicegate_fanout_seconds_bucket{le=\"+Inf\"}", 3.0),
        ("sluicegate_fanout_seconds_sum", 100.003_1),
        ("sluicegate_fanout_seconds_count", 3.0),
        ("sluicegate_time_to_first_media_seconds_count", 1.0),
        ("sluicegate_viewer_queue_bytes_bucket{le=\"65536\"}", 1.0),
        ("sluicegate_viewer_queue_bytes_bucket{le=\"32768\"}", 0.0),
        ("sluicegate_kick_seconds_sum", 0.25),
        ("sluicegate_bans", 3.0),
        ("sluicegate_api_plaintext", 1.0),
        ("sluicegate_internal_errors_total{worker=\"1\"}", 1.0),
        ("sluicegate_loop_lag_seconds{worker=\"1\"}", 0.005),
        ("sluicegate_memory_bytes{pool=\"media\"}", 99.0),
    ] {
        assert_eq!(series.get(name), Some(&value), "{name}");
    }
}

#[test]
fn counters_of_bytes_never_fall_when_a_session_ends() {
    let mut desk = Desk::new();
    let player = facts(1, Kind::Play, "a");
    let name = "sluicegate_bytes_total{proto=\"rtmp\",role=\"play\",dir=\"tx\"}";
    let bytes = |tx_bytes| Counters { tx_bytes, ..Counters::default() };
    desk.say(&player, What::Opened);
    desk.say(&player, What::Updated(bytes(700)));
    let before = parse(&desk.page())[name];
    desk.say(&player, What::Closed(Reason::ClientDone.into(), bytes(700)));
    assert_eq!((before, parse(&desk.page())[name]), (700.0, 700.0));
}

#[test]
fn limit_hits_are_summed_by_limit_over_sessions_and_attempts() {
    let mut desk = Desk::new();
    let hit = |limit| CloseReason::with(Reason::LimitExceeded, limit);
    for (n, kind) in [(1, Kind::Play), (2, Kind::Publish)] {
        let session = facts(n, kind, "a");
        desk.say(&session, What::Opened);
        desk.say(&session, What::Closed(hit("rtmp.partial_bytes"), Counters::default()));
    }
    desk.refuse(hit("rtmp.partial_bytes"));
    desk.refuse(hit("output"));
    desk.refuse(CloseReason::with(Reason::ConcurrencyLimit, "ip"));
    // These are not limits, whatever their detail.
    desk.refuse(CloseReason::with(Reason::ProtocolError, "output"));
    desk.refuse(Reason::HandshakeTimeout.into());
    desk.refuse(CloseReason::with(Reason::Overload, "orange"));
    desk.refuse(CloseReason::with(Reason::Overload, "unauthenticated"));
    let series = parse(&desk.page());
    let mut hits: Vec<_> = series.iter().filter(|(name, _)| name.starts_with("sluicegate_limit_hits_total")).collect();
    hits.sort_by_key(|(name, _)| *name);
    let expected = [("ip", 1.0), ("output", 1.0), ("rtmp.partial_bytes", 3.0), ("unauthenticated", 1.0)];
    assert_eq!(hits.len(), expected.len(), "{hits:?}");
    for ((name, value), (limit, count)) in hits.into_iter().zip(expected) {
        assert_eq!(
            (name.as_str(), *value),
            (format!("sluicegate_limit_hits_total{{limit=\"{limit}\"}}").as_str(), count)
        );
    }
}
