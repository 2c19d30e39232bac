//! The history of a million sessions over thirty days: pages, sums and lines, as a reader without a server sees them.
//!
//! ```text
//! cargo bench --bench history                       # a million sessions in a folder that is removed again
//! cargo bench --bench history -- --sessions 20000   # fewer
//! cargo bench --bench history -- --keep <folder>    # made once in that folder, and used again
//! ```
//!
//! Sessions come as on a real edge: more in the evening than at night, on streams and by users of which few have most,
//! in applications that have streams of the same names. What is asked for is drawn anew for every sample.

// What is measured is told on standard output.
#![allow(missing_docs)]

#[path = "../tests/support/days.rs"]
mod days;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::ledger::Files;
use sluicegate::ledger::history::{Every, Field, Filter, Order, Reader, SummaryQuery, TimelineQuery};
use sluicegate::stdx::ids::SplitMix;

/// 2026-10-22T00:00:00Z: the first of the thirty days.
const FIRST_MS: u64 = 1_792_627_200_000;
const DAYS: u64 = 30;
const DAY_MS: u64 = 86_400_000;
const APPS: u64 = 50;
const STREAMS: u64 = 40;
const USERS: u64 = 50_000;
const PAGES: usize = 2_000;
const SUMS: usize = 5;
const ROWS: usize = 100;

fn main() {
    let mut sessions = 1_000_000;
    let mut keep = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--sessions" => sessions = arguments.next().and_then(|text| text.parse().ok()).expect("a number"),
            "--keep" => keep = Some(PathBuf::from(arguments.next().expect("a folder"))),
            // `cargo bench` says so by itself.
            _ => {}
        }
    }
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let folder = keep.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(folder).expect("a folder");
    if std::fs::read_dir(folder).expect("a folder").next().is_none() {
        let began = Instant::now();
        fill(folder, sessions);
        println!("{sessions} sessions written in {:.1} s", began.elapsed().as_secs_f64());
    }
    let bytes: u64 =
        std::fs::read_dir(folder).expect("a folder").filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
    let files = Arc::new(Files::offline(folder));
    println!("{} files, {} MiB", files.list().len(), bytes >> 20);
    measure(&Reader::patient(files));
}

fn measure(reader: &Reader) {
    let mut random = SplitMix::new(7);
    let draw = &mut random;
    println!("\npages of {ROWS} rows                        p50        p99        max     rows");
    pages("first", reader, Filter::default);
    pages("by user", reader, || Filter { users: vec![user(draw)], ..Filter::default() });
    pages("by user that there is not", reader, || Filter { users: vec!["nobody".into()], ..Filter::default() });
    pages("by stream", reader, || Filter { streams: vec![stream(draw)], ..Filter::default() });
    pages("by app and stream", reader, || {
        let full = format!("{}/{}", app(draw), stream(draw));
        Filter { streams: vec![full], ..Filter::default() }
    });
    pages("by an hour", reader, || {
        let from = moment(draw);
        Filter { from_ms: Some(from), to_ms: Some(from + 3_600_000), ..Filter::default() }
    });
    pages("by user and a day", reader, || {
        let from = moment(draw);
        Filter { users: vec![user(draw)], from_ms: Some(from), to_ms: Some(from + DAY_MS), ..Filter::default() }
    });
    pages("by address", reader, || {
        let address = address(draw.below(USERS)).parse().expect("an address");
        Filter { remotes: vec![sluicegate::stdx::remote::Remote::Address(address)], ..Filter::default() }
    });
    pages("running", reader, || Filter { open: Some(true), ..Filter::default() });

    println!("\nsums                                       p50        max");
    let now_ms = FIRST_MS + DAYS * DAY_MS;
    let query = SummaryQuery {
        filter: Filter::default(),
        group_by: Vec::new(),
        every: None,
        order: Order::Sessions,
        limit: 100,
        now_ms,
    };
    let day = |draw: &mut SplitMix| {
        let from = moment(draw);
        Filter { from_ms: Some(from), to_ms: Some(from + DAY_MS), ..Filter::default() }
    };
    sums("a day", || reader.summary(&SummaryQuery { filter: day(draw), ..query.clone() }).is_ok());
    sums("a day by app and hour", || {
        let (group_by, every) = (vec![Field::App], Some(Every::Hour));
        reader.summary(&SummaryQuery { filter: day(draw), group_by, every, ..query.clone() }).is_ok()
    });
    sums("everything", || reader.summary(&query).is_ok());
    sums("everything by day", || reader.summary(&SummaryQuery { every: Some(Every::Day), ..query.clone() }).is_ok());
    sums("everything by stream", || {
        reader.summary(&SummaryQuery { group_by: vec![Field::Stream], ..query.clone() }).is_ok()
    });
    sums("everything of one user", || {
        let filter = Filter { users: vec![user(draw)], ..Filter::default() };
        reader.summary(&SummaryQuery { filter, ..query.clone() }).is_ok()
    });
    sums("a day's line", || {
        let from_ms = moment(draw);
        let line =
            TimelineQuery { filter: Filter::default(), from_ms, to_ms: from_ms + DAY_MS, bucket_ms: 300_000, now_ms };
        reader.timeline(&line).is_ok()
    });
    sums("the whole line", || {
        let line =
            TimelineQuery { filter: Filter::default(), from_ms: FIRST_MS, to_ms: now_ms, bucket_ms: 3_600_000, now_ms };
        reader.timeline(&line).is_ok()
    });
}

fn pages(what: &str, reader: &Reader, mut filter: impl FnMut() -> Filter) {
    let (mut times, mut rows) = (Vec::with_capacity(PAGES), 0usize);
    for _ in 0..PAGES {
        let filter = filter();
        let began = Instant::now();
        let page = reader.sessions(&filter, None, ROWS).expect("a page");
        times.push(began.elapsed());
        rows += page.records.len();
    }
    times.sort_unstable();
    let [middle, high, most] = [PAGES / 2, PAGES * 99 / 100, PAGES - 1].map(|at| micros(times[at]));
    println!("{what:<32} {middle:>10} {high:>10} {most:>10} {:>8}", rows / PAGES);
}

fn sums(what: &str, mut sum: impl FnMut() -> bool) {
    let mut times: Vec<Duration> = (0..SUMS)
        .map(|_| {
            let began = Instant::now();
            assert!(sum(), "{what} has no answer");
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("{what:<32} {:>10} {:>10}", micros(times[SUMS / 2]), micros(times[SUMS - 1]));
}

fn micros(time: Duration) -> String {
    if time < Duration::from_millis(10) {
        format!("{} us", time.as_micros())
    } else {
        format!("{} ms", time.as_millis())
    }
}

/// Writes so many sessions, a day at a time.
fn fill(folder: &Path, sessions: u64) {
    let mut random = SplitMix::new(1);
    let draw = &mut random;
    let now_ms = FIRST_MS + DAYS * DAY_MS;
    let mut n = 0;
    for day in 0..DAYS {
        let count = sessions / DAYS + u64::from(day < sessions % DAYS);
        let mut rows: Vec<days::Row> = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
        for _ in 0..count {
            n += 1;
            let opened = FIRST_MS + day * DAY_MS + evening(draw);
            // Most stay some minutes, few for hours.
            let lasts = 1_000 + draw.below(60_000) * (1 + draw.below(6) * draw.below(6) * draw.below(6));
            let closed = opened + lasts;
            let who = few(draw, USERS);
            let mut row = days::row(n, opened, (closed < now_ms).then_some(closed));
            row.id = days::id(opened + draw.below(2_000), n);
            row.opened_ms = opened;
            row.updated_ms = closed.min(now_ms);
            row.kind = if draw.below(50) == 0 { "publish" } else { "play" };
            row.app = app(draw);
            row.stream = stream(draw);
            row.user = Some(format!("user-{who}"));
            row.remote_ip = address(who);
            row.user_agent = Some("LNX 9,0,124,2".into());
            row.tc_url = Some(format!("rtmp://edge.example.net:1935/{}", row.app));
            row.query = Some(format!("token={:016x}{:016x}", draw.next_u64(), draw.next_u64()));
            row.tx_bytes = lasts * 250;
            row.rx_bytes = 3_500;
            rows.push(row);
        }
        rows.sort_unstable_by_key(|row| row.id);
        days::write(folder, &rows);
    }
}

/// A moment of a day; the sum of two draws is more often in its middle, which is moved to the evening.
fn evening(draw: &mut SplitMix) -> u64 {
    (draw.below(DAY_MS / 2) + draw.below(DAY_MS / 2) + DAY_MS / 3) % (DAY_MS - 3_000)
}

/// A number below `bound`, small ones far more often.
fn few(draw: &mut SplitMix, bound: u64) -> u64 {
    let below = draw.below(bound) + 1;
    draw.below(below)
}

fn app(draw: &mut SplitMix) -> String {
    format!("tenant-{}", few(draw, APPS))
}

fn stream(draw: &mut SplitMix) -> String {
    format!("camera-{}", few(draw, STREAMS))
}

fn user(draw: &mut SplitMix) -> String {
    format!("user-{}", few(draw, USERS))
}

fn address(who: u64) -> String {
    format!("198.{}.{}.{}", 18 + who / 65_536 % 2, who / 256 % 256, who % 256)
}

fn moment(draw: &mut SplitMix) -> u64 {
    FIRST_MS + draw.below((DAYS - 1) * DAY_MS)
}
