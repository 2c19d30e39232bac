//! What the ledger does most: taking down sessions with what is told of them, and the counters of those that run; and
//! what a start does after a crash. One writer thread, flushes included, in a folder of the temporary directory.
//!
//! ```text
//! cargo bench --bench ledger                          # records a second and the share of a core that the writer takes
//! cargo bench --bench ledger -- --recovery 1000000    # only the start after a crash, with so many sessions running
//! cargo bench --bench ledger -- --recovery 50000 --on-record 1000000      # the same, of so many on record
//! cargo bench --bench ledger -- --start FOLDER        # only the start, on a copy of a folder
//! ```

#![allow(missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::event::{Event, Weight};
use sluicegate::ledger::{Entry, Ledger, Settings, Tell};
use sluicegate::names::{ConnectionId, Kind, Name, Protocol, SessionId, ShardId, StreamKey};
use sluicegate::session::{Change, CloseReason, Counters, Facts, Reason, What};
use sluicegate::stdx::clock::WallAnchor;

/// Noon of 2026-11-20.
const NOON_MS: u64 = 1_795_176_000_000;
const LIVES: u64 = 100_000;
const RUNNING: u64 = 50_000;
/// How long a server closes what a crash left open before it begins.
const PATIENCE: Duration = Duration::from_millis(250);

fn facts(n: u64, at: Instant) -> Arc<Facts> {
    let mut tail = [0; 10];
    tail[2..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let name = |text: &str| Name::stream(text).unwrap();
    Arc::new(Facts {
        id: SessionId::new(NOON_MS + n / 50, tail),
        connection: ConnectionId::new(ShardId(0), n),
        shard: ShardId(0),
        kind: Kind::Play,
        protocol: Protocol::Rtmp,
        key: StreamKey::new(&name("default"), &name("live"), &name(&format!("cam{}", n % 100))),
        asked_key: None,
        remote: format!("10.{}.{}.{}:4000", n >> 16 & 255, n >> 8 & 255, n & 255).parse().unwrap(),
        local: "192.0.2.1:1935".parse().unwrap(),
        opened_at: at,
        opened_unix_ms: NOON_MS + n / 50,
        query: Some("token=0123456789abcdef0123456789abcdef".into()),
        user_agent: Some("LNX 9,0,124,2".into()),
        referrer: Some("https://www.example.org/watch".into()),
        tc_url: Some("rtmp://edge.example.org/live".into()),
        swf_url: None,
        user: Some(format!("user{}", n % 10_000).into()),
        labels: Arc::default(),
    })
}

fn tell(change: &Change) -> Tell {
    Tell {
        sink: "backend".into(),
        event_id: format!("{}-{}", change.facts.id, change.seq),
        weight: Weight::Must,
        session: Some(change.facts.id),
        body: vec![b'x'; 400].into(),
    }
}

/// What is told of an end that a start concludes.
fn ends(event: &Event) -> Vec<Tell> {
    let Event::Session(change) = event else { return Vec::new() };
    vec![tell(change)]
}

struct Server {
    ledger: Ledger,
    start: Instant,
    number: u64,
}

impl Server {
    fn open(folder: &std::path::Path) -> Self {
        let settings = Settings { directory: folder.to_str().unwrap().into(), ..Settings::default() };
        let start = Instant::now();
        let wall = WallAnchor::at(start, Duration::from_millis(NOON_MS));
        let mut opened = sluicegate::ledger::open(&settings, wall, start).unwrap();
        let before: u64 = opened.totals().values().map(|sum| sum.sessions).sum();
        let (files, began) = (start.elapsed(), Instant::now());
        let cpu = own_cpu();
        let recovered = opened.recover_for(PATIENCE, &mut ends).unwrap();
        let cpu = own_cpu() - cpu;
        let (is_recovered, early) = (opened.is_recovered(), recovered.sessions);
        let ledger =
            if is_recovered { opened.start().unwrap() } else { opened.start_recovering(Box::new(ends)).unwrap() };
        let ready = start.elapsed();
        let mut server = Self { ledger, start, number: 0 };
        if early > 0 || !is_recovered {
            // What is new is committed behind all ends.
            server.record(&facts(u64::MAX >> 32, start), 1, What::Opened, false);
            server.settle();
            let earlier = server.ledger.status().earlier;
            let started = |sums: &sluicegate::ledger::Totals| sums.values().map(|sum| sum.sessions).sum::<u64>();
            let later = earlier.map_or(0, |sums| started(&sums.totals) - before - early);
            let took = if is_recovered { recovered.took } else { began.elapsed() };
            println!(
                "recovery: {} sessions closed in {took:?}; open to ready {ready:?} with {early} of them closed; {:.2} s \
                 of CPU, and before it {files:?} for the files",
                early + later,
                cpu + if is_recovered { 0.0 } else { writer_cpu() }
            );
        }
        server
    }

    fn record(&mut self, facts: &Arc<Facts>, seq: u32, what: What, is_told: bool) {
        // Not faster than the disk: this is about what can be sustained.
        while self.ledger.status().queue_bytes > 24 << 20 {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.number += 1;
        let change = Change { facts: Arc::clone(facts), seq, at: self.start, what };
        let tells = if is_told { vec![tell(&change)] } else { Vec::new() };
        self.ledger.record(Entry { number: self.number, event: Arc::new(Event::Session(change)), tells });
    }

    fn settle(&self) {
        let committed = self.ledger.committed();
        while *committed.borrow() < self.number {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// CPU seconds of the thread `ledger` so far.
fn writer_cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let ticks = tasks.flatten().find_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        (name.trim() == "ledger").then(|| fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap())
    });
    ticks.unwrap_or(0.0) / 100.0
}

/// CPU seconds of this thread so far.
fn own_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn measure(what: &str, records: u64, work: impl FnOnce()) {
    let (began, cpu) = (Instant::now(), writer_cpu());
    work();
    let (took, cpu) = (began.elapsed().as_secs_f64(), writer_cpu() - cpu);
    #[allow(clippy::cast_precision_loss)]
    let rate = records as f64 / took;
    println!("{what}: {records} records in {took:.2} s = {rate:.0}/s, {:.0}% of a core", cpu / took * 100.0);
}

fn main() {
    let argument = |name: &str| std::env::args().skip_while(|argument| argument != name).nth(1);
    if let Some(folder) = argument("--start") {
        return start(std::path::Path::new(&folder));
    }
    if let Some(running) = argument("--recovery") {
        let number = |text: String| text.parse().expect("a number of sessions");
        let running = number(running);
        return recovery(running, argument("--on-record").map_or(running, number));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::open(folder.path());
    for is_told in [false, true] {
        let name = if is_told { "lives, starts and ends told to one sink" } else { "lives, nothing told" };
        let first = if is_told { LIVES } else { 0 };
        measure(name, LIVES * 3, || {
            // A thousand sessions run at a time, so that few begin and end within one commit.
            let lives: Vec<_> = (first..first + LIVES).map(|n| facts(n, server.start)).collect();
            for wave in lives.chunks(10_000) {
                for facts in wave {
                    server.record(facts, 1, What::Opened, false);
                }
                for facts in wave {
                    server.record(facts, 2, What::Started, is_told);
                }
                for facts in wave {
                    let counters = Counters { tx_bytes: 1_000_000, ..Counters::default() };
                    server.record(facts, 3, What::Closed(CloseReason::new(Reason::ClientDone), counters), is_told);
                }
            }
            server.settle();
        });
    }

    let running: Vec<_> = (0..RUNNING).map(|n| facts(10 * LIVES + n, server.start)).collect();
    for facts in &running {
        server.record(facts, 1, What::Opened, false);
        server.record(facts, 2, What::Started, false);
    }
    server.settle();
    measure("checkpoints", RUNNING * 4, || {
        for round in 1..=4 {
            let counters = Counters { tx_bytes: round * 1_000_000, tx_frames: round * 150, ..Counters::default() };
            let before = server.ledger.status().records;
            server.ledger.checkpoint(server.start, running.iter().map(|facts| (facts.id, counters)).collect());
            while server.ledger.status().records < before + RUNNING {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    println!("dropped: {:?}", server.ledger.status().dropped);

    let size = std::fs::metadata(folder.path().join("2026-11-20.db")).unwrap().len();
    println!("file: {} sessions, {} MiB", 2 * LIVES + RUNNING, size >> 20);
    crash(folder.path(), &server);
}

/// A start with so many sessions on record, of which some ran: here and there one, as after a day of comings and goings.
fn recovery(running: u64, on_record: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::open(folder.path());
    let every = (on_record / running.max(1)).max(1);
    for n in 0..on_record {
        let facts = facts(n, server.start);
        server.record(&facts, 1, What::Opened, false);
        server.record(&facts, 2, What::Started, false);
        if n % every > 0 {
            let counters = Counters { tx_bytes: 1_000_000, ..Counters::default() };
            server.record(&facts, 3, What::Closed(CloseReason::new(Reason::ClientDone), counters), false);
        }
    }
    server.settle();
    crash(folder.path(), &server);
}

/// What a crash leaves: the files as they are, in another folder. A server starts on them.
fn crash(folder: &std::path::Path, server: &Server) {
    let crashed = copy(folder);
    assert!(server.ledger.stop(Duration::from_mins(1)));
    assert!(Server::open(crashed.path()).ledger.stop(Duration::from_mins(1)));
}

fn start(folder: &std::path::Path) {
    assert!(Server::open(copy(folder).path()).ledger.stop(Duration::from_mins(1)));
}

fn copy(folder: &std::path::Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}
