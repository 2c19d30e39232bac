//! The session table: a life, counting, and the report of ten thousand sessions; time by criterion, and
//! allocations for each operation, counted.

// criterion's macros make a public function that they do not document.
#![allow(missing_docs)]

mod counting;

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use sluicegate::names::{ConnectionId, Kind, Name, Protocol, SessionId, ShardId, StreamKey};
use sluicegate::session::{Facts, Reason, SessionKey, Table, What};
use sluicegate::stdx::ids::SplitMix;

const SESSIONS: usize = 10_000;

/// Sessions as a shard makes them.
struct Maker {
    random: SplitMix,
    key: StreamKey,
    now: Instant,
}

impl Maker {
    fn new() -> Self {
        let name = |text| Name::app(text).expect("a valid name");
        let key = StreamKey::new(&name("default"), &name("live"), &Name::stream("cam").expect("a valid name"));
        Self { random: SplitMix::new(7), key, now: Instant::now() }
    }

    fn facts(&mut self) -> Facts {
        Facts {
            id: SessionId::new(1_795_155_521_000, self.random.ten_bytes()),
            connection: ConnectionId::new(ShardId(0), 1),
            shard: ShardId(0),
            kind: Kind::Play,
            protocol: Protocol::Rtmp,
            key: self.key.clone(),
            asked_key: None,
            remote: SocketAddr::from(([192, 0, 2, 1], 40_000)),
            local: SocketAddr::from(([192, 0, 2, 2], 1935)),
            opened_at: self.now,
            opened_unix_ms: 1_795_155_521_000,
            query: None,
            user_agent: Some("LNX 9,0,124,2".into()),
            referrer: None,
            tc_url: Some("rtmp://media.example/live".into()),
            swf_url: None,
            user: None,
            labels: std::sync::Arc::default(),
        }
    }

    /// A table of ten thousand running sessions, everything reported.
    fn table(&mut self) -> (Table, Vec<SessionKey>) {
        let mut table = Table::default();
        let mut keys = Vec::with_capacity(SESSIONS);
        for _ in 0..SESSIONS {
            let facts = self.facts();
            let key = table.open(self.now, facts);
            table.record(self.now, key, What::Started);
            keys.push(key);
        }
        while table.poll_change().is_some() {}
        table.sample_changed(&mut Vec::new());
        (table, keys)
    }
}

/// Times `step` and prints how often one call of it allocates once everything is warm.
fn measure(criterion: &mut Criterion, name: &str, mut step: impl FnMut()) {
    const CALLS: u32 = 1_000;
    for _ in 0..CALLS {
        step();
    }
    let before = counting::allocations();
    for _ in 0..CALLS {
        step();
    }
    let allocations = counting::allocations() - before;
    println!("{name}: {allocations} allocations in {CALLS} calls");
    criterion.bench_function(name, |bencher| bencher.iter(&mut step));
}

fn lives(criterion: &mut Criterion) {
    let mut maker = Maker::new();
    let (mut table, _keys) = maker.table();
    // The facts' two texts and their `Arc` are the three allocations; the table adds none.
    measure(criterion, "session/open_started_close", || {
        let facts = maker.facts();
        let key = table.open(maker.now, facts);
        table.record(maker.now, key, What::Started);
        table.close(maker.now, key, Reason::ClientDone.into());
        while let Some(change) = table.poll_change() {
            black_box(change);
        }
    });
}

fn counting(criterion: &mut Criterion) {
    let (mut table, keys) = Maker::new().table();
    let mut whom = keys.iter().cycle();
    measure(criterion, "session/counters_mut", || {
        let key = *whom.next().expect("there are sessions");
        if let Some(counters) = table.counters_mut(key) {
            counters.tx_bytes += 1_316;
            counters.tx_frames += 1;
        }
    });
    measure(criterion, "session/set_queue", || {
        let key = *whom.next().expect("there are sessions");
        let bytes = table.queue_bytes(key).unwrap_or(0) + 1;
        table.set_queue(key, bytes);
    });
}

fn snapshots(criterion: &mut Criterion) {
    let (mut table, keys) = Maker::new().table();
    let mut samples = Vec::with_capacity(SESSIONS);
    for (name, every) in [
        ("session/snapshot_10000_none_changed", usize::MAX),
        ("session/snapshot_10000_10_percent_changed", 10),
        ("session/snapshot_10000_all_changed", 1),
    ] {
        measure(criterion, name, || {
            if every < SESSIONS {
                for key in keys.iter().step_by(every) {
                    if let Some(counters) = table.counters_mut(*key) {
                        counters.tx_bytes += 1_316;
                    }
                }
            }
            samples.clear();
            table.sample_changed(&mut samples);
            black_box(&samples);
        });
    }
}

criterion_group!(benches, lives, counting, snapshots);
criterion_main!(benches);
