//! The ledger is tested by killing the process.
//!
//! A child (this program, started again for one test) records a life of sessions that its seed decides, and says on its
//! standard output which events are committed. It is killed at a moment that the seed decides too. Then the parent
//! starts a ledger on what is left, and everything that the child was told of must be there.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluicegate::event::{Event, Weight};
use sluicegate::ledger::Settings;
use sluicegate::names::{Kind, SessionId};
use sluicegate::session::{Change, What};
use sluicegate::stdx::ids::SplitMix;

use crate::support::*;

const FOLDER: &str = "SLUICEGATE_LEDGER_KILL_FOLDER";
const SEED: &str = "SLUICEGATE_LEDGER_KILL_SEED";
const POINTS: &str = "SLUICEGATE_LEDGER_KILL_POINTS";

/// How far the child may be ahead of what it was told is safe.
const AHEAD: u64 = 300;

/// What the child does to one session, and when: its events with their numbers.
#[derive(Clone, Copy, Debug)]
enum Step {
    Happens { n: u64, seq: u32, what: What },
    Checkpoint { n: u64, sent: u64 },
}

/// The child's life, which the parent can tell from the seed alone.
fn script(seed: u64) -> impl Iterator<Item = Step> {
    let mut random = SplitMix::new(seed);
    let mut open: Vec<(u64, u32, u64, bool)> = Vec::new();
    let mut next = 0;
    std::iter::from_fn(move || {
        let dice = random.below(10);
        if open.is_empty() || (dice < 3 && open.len() < 200) {
            next += 1;
            open.push((next, 1, 0, false));
            return Some(Step::Happens { n: next, seq: 1, what: What::Opened });
        }
        let place = usize::try_from(random.below(open.len() as u64)).unwrap();
        let (n, seq, sent, started) = &mut open[place];
        if !*started && dice < 6 {
            (*seq, *started) = (*seq + 1, true);
            return Some(Step::Happens { n: *n, seq: *seq, what: What::Started });
        }
        *sent += random.below(10_000);
        if dice < 8 {
            return Some(Step::Checkpoint { n: *n, sent: *sent });
        }
        let step = Step::Happens { n: *n, seq: *seq + 1, what: What::Closed(done(), bytes(0, *sent)) };
        open.swap_remove(place);
        Some(step)
    })
}

fn settings_of(folder: &Path, seed: u64) -> Settings {
    // Some lives commit every few events, some in large groups.
    let commit_every = Duration::from_millis([1, 3, 10][usize::try_from(seed % 3).unwrap()]);
    Settings { commit_every, ..settings(folder) }
}

fn id_of(n: u64) -> SessionId {
    facts(n, Kind::Publish, Instant::now(), NOON_MS).id
}

/// Where the process that is to be killed begins. Without an order to die it lives its life to an end, and that must be
/// on record.
#[test]
fn a_life_that_nobody_ends() {
    let Ok(folder) = std::env::var(FOLDER) else {
        let folder = folder();
        live(folder.path(), 1, 2_000);
        check(folder.path(), 1, u64::MAX, Some(2_000));
        return;
    };
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    live(Path::new(&folder), seed, u64::MAX);
}

/// Lives so many steps, and says how far it is on record: `e` and a number of an event.
fn live(folder: &Path, seed: u64, steps: u64) {
    let (mut opened, start) = open(&settings_of(folder, seed), NOON_MS);
    recover(&mut opened);
    let mut bed = Bed::started(opened, start, NOON_MS);
    let watch = bed.ledger.committed();
    let mut known = HashMap::new();
    let mut said = 0;
    let out = std::io::stdout();
    for (step, happens) in (0..steps).zip(script(seed)) {
        match happens {
            Step::Happens { n, seq, what } => {
                let facts = known.entry(n).or_insert_with(|| facts(n, Kind::Publish, start, NOON_MS)).clone();
                let change = Change { facts, seq, at: bed.after(step), what };
                let tells = vec![tell_of(&change, Weight::Must)];
                bed.record(Event::Session(change), tells);
                if matches!(what, What::Closed(..)) {
                    known.remove(&n);
                }
            }
            Step::Checkpoint { n, sent } => bed.ledger.checkpoint(bed.after(step), vec![(id_of(n), bytes(0, sent))]),
        }
        let committed = *watch.borrow();
        if committed > said {
            said = committed;
            // One write each: a line is there whole or not at all.
            let _ = out.lock().write_all(format!("\ne{said}\n").as_bytes());
            let _ = out.lock().flush();
        }
        // Not faster than the disk, so that the killer finds records in every stage.
        while bed.number > said + AHEAD && *watch.borrow() == said {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    bed.settle();
    bed.stop();
}

/// Kills a child after a while, and says how far it had said it was.
fn kill(folder: &Path, seed: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::a_life_that_nobody_ends", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut random = SplitMix::new(seed ^ 0xdead);
    // Either a number of lines or a time after the first one: the kill falls into commits and between them.
    let after_lines = random.below(8);
    let after = Duration::from_micros(random.below(15_000));
    let (mut committed, mut heard) = (0, 0);
    let mut line = String::new();
    let mut read = |committed: &mut u64| {
        line.clear();
        let is_there = lines.read_line(&mut line).unwrap() > 0;
        if let Some(number) = line.strip_suffix('\n').and_then(|line| line.strip_prefix('e')) {
            *committed = number.parse().unwrap();
            return Some(true);
        }
        is_there.then_some(false)
    };
    while heard <= after_lines {
        match read(&mut committed) {
            Some(is_number) => heard += u64::from(is_number),
            None => panic!("seed {seed}: the child ended by itself"),
        }
    }
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said before it died and nobody had read yet counts as well.
    while read(&mut committed).is_some() {}
    committed
}

/// What must be so after a start on what is left: I9. Returns how many sessions and events were there.
fn check(folder: &Path, seed: u64, committed: u64, steps: Option<usize>) -> (u64, u64) {
    // What the child had recorded up to the number it was told of.
    let mut number = 0;
    let mut expected: BTreeMap<SessionId, (u32, Option<u64>, bool, u64)> = BTreeMap::new();
    let mut sent_most: HashMap<SessionId, u64> = HashMap::new();
    for step in script(seed).take(steps.unwrap_or(1_000_000)) {
        match step {
            Step::Happens { n, seq, what } => {
                number += 1;
                let closed = if let What::Closed(_, counters) = what { Some(counters.tx_bytes) } else { None };
                if let Some(sent) = closed {
                    sent_most.insert(id_of(n), sent);
                }
                if number <= committed {
                    let row = expected.entry(id_of(n)).or_insert((0, None, false, 0));
                    row.0 = seq;
                    row.1 = closed;
                    row.2 |= matches!(what, What::Started);
                }
            }
            Step::Checkpoint { n, sent } => {
                sent_most.insert(id_of(n), sent);
                // It is committed with the event that follows it, at the latest.
                if number < committed
                    && let Some(row) = expected.get_mut(&id_of(n))
                {
                    row.3 = sent;
                }
            }
        }
        // The child cannot have been further ahead than this.
        if number > committed.saturating_add(2 * AHEAD) {
            break;
        }
    }
    let (mut opened, start) = open(&settings(folder), NOON_MS + 3_600_000);
    assert!(opened.findings().is_empty(), "seed {seed}: {:?}", opened.findings());
    let recovered = recover(&mut opened);
    assert!(recovered.took < Duration::from_secs(2), "seed {seed}: {recovered:?}");
    let found: BTreeMap<SessionId, Row> = rows(folder).into_iter().map(|row| (row.id, row)).collect();
    for (id, (seq, closed, started, sent)) in &expected {
        let row = found.get(id).unwrap_or_else(|| panic!("seed {seed}: {id} is lost"));
        if let Some(last) = closed {
            assert_eq!((row.seq, row.tx_bytes), (*seq, last.cast_signed()), "seed {seed}: {id}");
            assert_eq!(row.reason.as_deref(), Some("client_done"), "seed {seed}: {id}");
        } else {
            assert!(row.seq > *seq, "seed {seed}: {id} has no end");
            assert!(row.tx_bytes >= sent.cast_signed(), "seed {seed}: {id} fell behind its last checkpoint");
        }
        assert!(row.started_ms.is_some() || !started, "seed {seed}: {id} had started");
    }
    let mut ends = 0;
    for row in found.values() {
        assert!(row.closed_ms.is_some(), "seed {seed}: {} has no end", row.id);
        assert_eq!(row.recovered, row.reason.as_deref() == Some("server_crash"), "seed {seed}: {}", row.id);
        let most = sent_most.get(&row.id).copied().unwrap_or(0).cast_signed();
        assert!(row.tx_bytes <= most, "seed {seed}: {} sent {} of {most}", row.id, row.tx_bytes);
        ends += u64::from(row.started_ms.is_some());
    }
    assert_eq!(opened.totals().values().map(|sum| sum.sessions).sum::<u64>(), ends, "seed {seed}: the sums");

    let bed = Bed::started(opened, start, NOON_MS + 3_600_000);
    let mut events: BTreeMap<Box<str>, Box<str>> = BTreeMap::new();
    let page = bed.outbox();
    assert!(page.is_sorted_by_key(|row| row.id));
    for row in page {
        let name: Box<str> = String::from_utf8(row.body.to_vec()).unwrap().split(':').next().unwrap().into();
        assert!(events.insert(row.event_id, name).is_none(), "seed {seed}: an id was given twice");
    }
    for row in found.values() {
        // Every event of every session in its order: the opening first, one end, nothing behind it.
        for seq in 1..=row.seq {
            let name = events.get(&*format!("{}-{seq}", row.id));
            let expected = match seq {
                1 => "session.opened",
                seq if seq == row.seq => "session.closed",
                _ => "session.started",
            };
            assert_eq!(name.map(|name| &**name), Some(expected), "seed {seed}: event {seq} of {}", row.id);
        }
    }
    let count: u64 = found.values().map(|row| u64::from(row.seq)).sum();
    assert_eq!(events.len() as u64, count, "seed {seed}: events of sessions that are not on record");
    bed.stop();
    (found.len() as u64, count)
}

/// A folder in memory where there is one: what is killed is the process, and not the power.
fn place() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    tempfile::tempdir_in(&memory).unwrap_or_else(|_| folder())
}

#[test]
fn fa_15_nothing_that_was_said_to_be_safe_is_lost_to_a_kill_at_any_moment() {
    let points = std::env::var(POINTS).ok().map_or(200, |text| text.parse().unwrap());
    let (next, most) = (AtomicU64::new(0), AtomicU64::new(0));
    let (sessions, events) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= points {
                        break;
                    }
                    let folder = place();
                    let committed = kill(folder.path(), seed);
                    most.fetch_max(committed, Ordering::Relaxed);
                    let found = check(folder.path(), seed, committed, None);
                    sessions.fetch_add(found.0, Ordering::Relaxed);
                    events.fetch_add(found.1, Ordering::Relaxed);
                }
            });
        }
    });
    // What a long run is told by.
    let [sessions, events, furthest] = [sessions, events, most].map(AtomicU64::into_inner);
    println!("{points} kills, {sessions} sessions, {events} events, furthest {furthest}");
    assert!(furthest > 1_000, "the children were killed before they did anything");
}
