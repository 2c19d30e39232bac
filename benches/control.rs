//! What control does most: taking in reports, and answering lists, with ten thousand sessions; and ordering a shard.

// The macro at the end makes a public function.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluicegate::admission::sources::Limits;
use sluicegate::admission::{SessionTypes, Sources};
use sluicegate::control::model::Model;
use sluicegate::control::{Filter, Settings, View};
use sluicegate::metrics::{self, Process};
use sluicegate::names::{ConnectionId, Kind, Name, Protocol, SessionId, ShardId, StreamKey};
use sluicegate::session::{Change, Counters, Facts, SessionSample, State, What};
use sluicegate::shard::mail::{OrderId, Report, ShardLoad, ToControl, ToShard};
use sluicegate::shard::{self, Plan, Post};
use sluicegate::stdx::clock::WallAnchor;

const SESSIONS: u64 = 10_000;

/// Ten thousand players of a hundred streams, all running.
fn server(start: Instant) -> (Model, View) {
    let mut model = Model::new(&Settings::default(), start, 1);
    let mut view = View::new(WallAnchor::now(), start, 1);
    let name = |text: &str| Name::stream(text).unwrap();
    for n in 0..SESSIONS {
        let facts = Arc::new(Facts {
            id: SessionId::new(n, [0; 10]),
            connection: ConnectionId::new(ShardId(0), n),
            shard: ShardId(0),
            kind: Kind::Play,
            protocol: Protocol::Rtmp,
            key: StreamKey::new(&name("default"), &name("live"), &name(&format!("cam{}", n % 100))),
            asked_key: None,
            remote: format!("10.0.{}.{}:4000", n / 250, n % 250).parse().unwrap(),
            local: "192.0.2.1:1935".parse().unwrap(),
            opened_at: start,
            opened_unix_ms: n,
            query: None,
            user_agent: None,
            referrer: None,
            tc_url: None,
            swf_url: None,
            user: None,
            labels: std::sync::Arc::default(),
        });
        for what in [What::Opened, What::Started] {
            model.session(&mut view, &Change { facts: facts.clone(), seq: 1, at: start, what });
        }
    }
    (model, view)
}

fn report(at: Instant, tx_bytes: u64) -> Report {
    let sessions = (0..SESSIONS)
        .map(|n| SessionSample {
            id: SessionId::new(n, [0; 10]),
            state: State::Running,
            counters: Counters { tx_bytes, tx_frames: tx_bytes / 3_000, ..Counters::default() },
            queue_bytes: 100,
        })
        .collect();
    Report { shard: ShardId(0), at, sessions, streams: Vec::new(), load: ShardLoad::default() }
}

fn control(c: &mut Criterion) {
    let start = Instant::now();
    let mut group = c.benchmark_group("control");
    group.throughput(Throughput::Elements(SESSIONS));

    let (mut model, mut view) = server(start);
    let mut news = report(start, 0);
    group.bench_function("report_of_10000_samples", |b| {
        b.iter(|| {
            // Every report has news of every session, 250 ms after the last.
            news.at += Duration::from_millis(250);
            for sample in &mut news.sessions {
                sample.counters.tx_bytes += 62_500;
            }
            model.report(&mut view, &news, |_| None, |_| false, |_| ());
        });
    });

    let mut filter = Filter::default();
    filter.add("stream", "live/cam7,cam8").unwrap();
    filter.add("remote", "10.0.0.0/16").unwrap();
    group.bench_function("list_by_filter", |b| b.iter(|| view.select(black_box(&filter)).count()));
    let everything = Filter::default();
    group.bench_function("list_everything", |b| b.iter(|| view.select(black_box(&everything)).count()));
    let beside = metrics::Beside { process: Process::default(), ..metrics::Beside::default() };
    group.bench_function("metrics_page", |b| b.iter(|| metrics::render(black_box(&view), &beside, news.at).len()));
    group.finish();
}

/// A shard with nothing to do, and its mail.
fn idle_shard() -> Arc<Post> {
    let (post, mut sleepers) = Post::new(1).unwrap();
    let plan = Plan {
        id: ShardId(0),
        // The other cores are left to who asks.
        cpu: Some(0),
        tick: shard::TICK,
        settings: shard::Settings::default(),
        sessions: sluicegate::adapter::Settings::default(),
        rtmp: Arc::default(),
        streams: sluicegate::stream::Settings::default(),
        gate: std::sync::Arc::default(),
        bans: Vec::new(),
        bans_max: 16,
        wall: WallAnchor::now(),
        seed: 1,
        rtmp_listeners: Vec::new(),
        sleeper: sleepers.remove(0),
        post: Arc::clone(&post),
        connections_max: 1,
        connections_open: Arc::default(),
        sources: Arc::new(Sources::new(Limits::default(), Instant::now())),
        types: Arc::new(SessionTypes::new(Instant::now())),
    };
    // Its thread ends with the process.
    let _ = shard::start(plan).unwrap();
    post
}

/// The way of every kick and every verdict: an order to a shard that sleeps in its ring, until its answer is read by
/// control, which sleeps too.
fn order(c: &mut Criterion) {
    let post = idle_shard();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut number = 0;
    let mut group = c.benchmark_group("order");
    group.bench_function("round_trip_to_an_idle_shard", |b| {
        b.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                // Time for it to fall asleep.
                std::thread::sleep(Duration::from_micros(300));
                number += 1;
                let began = Instant::now();
                assert!(post.to_shard(ShardId(0), ToShard::Ban { order: OrderId(number), bans: Arc::new([]) }).is_ok());
                runtime.block_on(async {
                    loop {
                        match post.take_for_control(ShardId(0)) {
                            Some(ToControl::Done { order, .. }) if order == OrderId(number) => break,
                            Some(_) => {}
                            None => post.control_rung().await,
                        }
                    }
                });
                spent += began.elapsed();
            }
            spent
        });
    });
    group.finish();
}

criterion_group!(benches, control, order);
criterion_main!(benches);
