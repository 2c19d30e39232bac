//! What control does most: taking in reports, and answering lists, with ten thousand sessions.

// The macro at the end makes a public function.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluicegate::control::model::Model;
use sluicegate::control::{Filter, Settings, View};
use sluicegate::metrics::{self, Process};
use sluicegate::names::{ConnectionId, Kind, Name, Protocol, SessionId, ShardId, StreamKey};
use sluicegate::session::{Change, Counters, Facts, SessionSample, State, What};
use sluicegate::shard::mail::{Report, ShardLoad};
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

criterion_group!(benches, control);
criterion_main!(benches);
