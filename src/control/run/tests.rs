use std::sync::Arc;

use super::*;
use crate::admission::{Ticket, Whom};
use crate::control::testing::{Wires, facts, id, key};
use crate::control::{CommandError, Configured, Filter, Terminate, Terminated};
use crate::event::{Attempt, Event, Recorded, StreamWhat, Wanted};
use crate::names::{Kind, Protocol};
use crate::session::{Change, CloseReason, Counters, Facts};
use crate::shard::Rules;
use crate::shard::mail::{Report, ShardLoad};

/// Short, so that tests of silence are.
const ORDER: Duration = Duration::from_millis(60);

fn setup(shards: usize) -> Setup {
    Setup {
        wall: WallAnchor::now(),
        started_at: Instant::now(),
        shards,
        control: Settings { order_timeout: ORDER, ..Settings::default() },
        stream: crate::stream::Settings { resume_window: ORDER, ..crate::stream::Settings::default() },
        duplicate_publish: DuplicatePublish::Takeover,
    }
}

/// Runs `test` beside a control task over wires of `capacity`.
fn beside_control<F: Future<Output = ()>>(capacity: usize, test: impl FnOnce(Handle, Wires) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (handle, control) = start(&setup(2), Outside::alone());
        let wires = Wires::new(2, capacity);
        let task = tokio::task::spawn_local(control.run(wires.clone()));
        tokio::time::timeout(Duration::from_secs(30), test(handle, wires)).await.expect("the test hangs");
        task.abort();
    });
}

fn session(n: u64, shard: u16, kind: Kind) -> Arc<Facts> {
    Arc::new(facts(n, shard, kind, "live/a", "192.0.2.1:1000"))
}

fn change(facts: &Arc<Facts>, what: What) -> ToControl {
    ToControl::Event(Event::Session(Change { facts: facts.clone(), seq: 0, at: Instant::now(), what }))
}

fn ask(facts: &Arc<Facts>) -> ToControl {
    ToControl::Ask { ticket: Ticket(7), facts: facts.clone() }
}

fn whom() -> Whom {
    Whom::exactly("192.0.2.1".parse().unwrap(), Kind::Play, key("live/a"))
}

fn all() -> Terminate {
    Terminate { filter: Filter::default(), reason: Reason::Kicked.into(), ban_for: None, dry_run: false }
}

/// Waits until what `holds` asks of the view is so.
async fn until(handle: &Handle, holds: impl Fn(&View) -> bool) {
    while !handle.view(&holds) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn handles_may_be_held_by_what_asks_for_send() {
    fn is_send<T: Send>(_: &T) {}
    let (handle, _control) = start(&setup(1), Outside::alone());
    let mut cursor = handle.subscribe(None);
    is_send(&handle.terminate(all()));
    is_send(&handle.next_event(&mut cursor));
    is_send(&handle.unban(whom()));
}

#[test]
fn a_publisher_is_admitted_and_its_stream_relayed_to_the_shard_that_asked() {
    beside_control(100, |handle, wires| async move {
        let publisher = session(1, 0, Kind::Publish);
        wires.tell(1, ToControl::Subscribe(key("live/a")));
        wires.tell(0, change(&publisher, What::Opened));
        wires.tell(0, ask(&publisher));
        assert!(matches!(wires.next(0).await, ToShard::Verdict { ticket: Ticket(7), verdict: Ok(_) }));
        assert!(matches!(wires.next(0).await, ToShard::RelayOpen { to: ShardId(1), .. }));
        assert!(matches!(wires.next(1).await, ToShard::RelayAttach { .. }));
        let holder = |view: &View| view.streams.get(&key("live/a")).and_then(|row| row.publisher);
        until(&handle, |view| holder(view) == Some((id(1), ShardId(0)))).await;
        wires.tell(1, ToControl::Unsubscribe(key("live/a")));
        assert!(matches!(wires.next(0).await, ToShard::RelayClose { to: ShardId(1), .. }));
    });
}

#[test]
fn fa_09_two_shards_ask_and_the_old_one_goes_first() {
    beside_control(100, |handle, wires| async move {
        let mut cursor = handle.subscribe(None);
        let (old, new) = (session(1, 0, Kind::Publish), session(2, 1, Kind::Publish));
        wires.tell(0, ask(&old));
        wires.tell(1, ask(&new));
        assert!(matches!(wires.next(0).await, ToShard::Verdict { verdict: Ok(_), .. }));
        let ToShard::Close { order, sessions, reason, .. } = wires.next(0).await else { panic!("not a close") };
        assert_eq!((sessions, reason.reason), (vec![id(1)], Reason::Replaced));
        assert!(wires.take(1).is_none(), "the newcomer waits");
        wires.tell(0, ToControl::Done { order, count: 1 });
        assert!(matches!(wires.next(1).await, ToShard::Verdict { verdict: Ok(_), .. }));
        until(&handle, |view| view.publish_replaced == 1).await;
        for (publisher, resumed) in [(id(1), false), (id(2), true)] {
            let (_, recorded) = handle.next_event(&mut cursor).await;
            let Event::Stream(event) = &*recorded.event else { panic!("not of a stream") };
            let StreamWhat::Online { publisher: who, resumed: again, .. } = event.what else { panic!("not online") };
            assert_eq!((who, again), (publisher, resumed));
        }
    });
}

#[test]
fn a_source_that_closes_while_it_asks_does_not_keep_the_stream() {
    beside_control(100, |handle, wires| async move {
        let mut cursor = handle.subscribe(None);
        let publisher = session(1, 0, Kind::Publish);
        wires.tell(0, ask(&publisher));
        wires.tell(0, change(&publisher, What::Opened));
        wires.tell(0, change(&publisher, What::Closed(Reason::ClientReset.into(), Counters::default())));
        // The resume window passes without anything else happening.
        let mut seen = Vec::new();
        while !matches!(seen.last(), Some(StreamWhat::Offline { .. })) {
            if let (_, Recorded { event, .. }) = handle.next_event(&mut cursor).await
                && let Event::Stream(event) = &*event
            {
                seen.push(event.what);
            }
        }
        let online = StreamWhat::Online { publisher: id(1), shard: ShardId(0), resumed: false };
        let offline = StreamWhat::Offline { publisher: id(1), reason: Reason::StreamEnded.into() };
        assert_eq!(seen, [online, StreamWhat::Idle, offline]);
        until(&handle, |view| view.streams.is_empty()).await;
    });
}

#[test]
fn ending_sessions_waits_for_the_shards() {
    beside_control(100, |handle, wires| async move {
        wires.tell(1, change(&session(1, 1, Kind::Play), What::Opened));
        until(&handle, |view| view.sessions.len() == 1).await;
        let shards = wires.clone();
        tokio::task::spawn_local(async move {
            for shard in [0, 1] {
                let ToShard::Ban { order, bans } = shards.next(shard).await else { panic!("not a ban") };
                shards.tell(shard, ToControl::Done { order, count: bans.len() });
            }
            let ToShard::Close { order, sessions, .. } = shards.next(1).await else { panic!("not a close") };
            shards.tell(1, ToControl::Done { order, count: sessions.len() });
        });
        let outcome = handle.terminate(Terminate { ban_for: Some(ORDER), ..all() }).await;
        assert_eq!(outcome, Ok(Terminated { ids: vec![id(1)], matched: 1, closed: 1, banned: 1 }));
    });
}

#[test]
fn a_shard_that_is_silent_makes_the_order_time_out() {
    beside_control(100, |handle, wires| async move {
        wires.tell(1, change(&session(1, 1, Kind::Play), What::Opened));
        until(&handle, |view| view.sessions.len() == 1).await;
        assert_eq!(handle.terminate(all()).await, Err(CommandError::Timeout));
    });
}

#[test]
fn a_full_queue_delays_mail_and_keeps_its_order() {
    beside_control(1, |_handle, wires| async move {
        for n in 1..=50 {
            let mut facts = (*session(n, 0, Kind::Publish)).clone();
            facts.key = key(&format!("live/{n}"));
            wires.tell(0, ToControl::Ask { ticket: Ticket(n), facts: Arc::new(facts) });
        }
        for n in 1..=50 {
            let ToShard::Verdict { ticket, .. } = wires.next(0).await else { panic!("not a verdict") };
            assert_eq!(ticket, Ticket(n));
        }
    });
}

#[test]
fn a_flood_of_mail_leaves_room_for_other_tasks() {
    beside_control(100, |handle, wires| async move {
        let attempt = Attempt {
            protocol: Protocol::Rtmp,
            kind: None,
            remote: "192.0.2.1:1".parse().unwrap(),
            at: Instant::now(),
            reason: Reason::ProtocolError.into(),
            wanted: Wanted::default(),
        };
        let total = 20 * u64::try_from(MAIL_BUDGET).unwrap();
        for _ in 0..total {
            wires.tell(0, ToControl::Event(Event::Attempt(attempt.clone())));
        }
        let seen = |view: &View| view.collectors["rtmp"].attempts.values().sum::<u64>();
        let mut turns = 0;
        while handle.view(seen) < total {
            turns += 1;
            tokio::task::yield_now().await;
        }
        assert!(turns >= 20, "this task ran only {turns} times");
    });
}

#[test]
fn events_are_read_in_order_and_a_consumer_resumes() {
    beside_control(100, |handle, wires| async move {
        let mut cursor = handle.subscribe(None);
        let player = session(1, 0, Kind::Play);
        handle.set_ready(Instant::now()).await;
        handle.set_ready(Instant::now()).await;
        until(&handle, |_| handle.events_recorded() == 1).await;
        wires.tell(0, change(&player, What::Opened));
        wires.tell(0, change(&player, What::Started));
        let mut numbers = Vec::new();
        for _ in 0..3 {
            let (missed, recorded) = handle.next_event(&mut cursor).await;
            assert_eq!(missed, 0);
            numbers.push(recorded.number);
        }
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(handle.events_recorded(), 3);
        let mut again = handle.subscribe(Some(2));
        let (_, recorded) = handle.try_next_event(&mut again).unwrap();
        assert!(matches!(&*recorded.event, Event::Session(Change { what: What::Started, .. })));
        assert!(handle.try_next_event(&mut again).is_none());
    });
}

#[test]
fn a_drain_refuses_publishers_waits_for_every_shard_and_ends_control() {
    beside_control(100, |handle, _| async move {
        drop(handle);
        let (handle, control) = start(&setup(2), Outside::alone());
        let wires = Wires::new(2, 100);
        let task = tokio::task::spawn_local(control.run(wires.clone()));
        handle.drain(Duration::MAX);
        assert!(handle.view(|view| view.draining));
        for shard in [0, 1] {
            assert!(matches!(wires.next(shard).await, ToShard::Drain { .. }));
        }
        wires.tell(0, ask(&session(1, 0, Kind::Publish)));
        let ToShard::Verdict { verdict, .. } = wires.next(0).await else { panic!("not a verdict") };
        assert_eq!(verdict, Err(Box::new(CloseReason::from(Reason::Drain).into())));
        wires.tell(0, ToControl::Stopped);
        wires.tell(1, ToControl::Stopped);
        task.await.unwrap();
        assert_eq!(handle.terminate(all()).await, Err(CommandError::Stopping));
    });
}

#[test]
fn a_second_signal_stops_a_drain_under_way() {
    beside_control(100, |handle, wires| async move {
        handle.drain(Duration::from_hours(1));
        assert!(matches!(wires.next(0).await, ToShard::Drain { .. }));
        handle.stop();
        assert!(matches!(wires.next(0).await, ToShard::Stop));
        assert!(matches!(wires.next(1).await, ToShard::Drain { .. }));
        assert!(matches!(wires.next(1).await, ToShard::Stop));
    });
}

#[test]
fn a_shard_that_never_stops_is_told_to_and_then_left_behind() {
    beside_control(100, |handle, _| async move {
        drop(handle);
        let (handle, mut control) = start(&setup(2), Outside::alone());
        (control.stop_after, control.leave_after) = (ORDER, ORDER);
        let wires = Wires::new(2, 100);
        let task = tokio::task::spawn_local(control.run(wires.clone()));
        handle.drain(Duration::ZERO);
        assert!(matches!(wires.next(0).await, ToShard::Drain { .. }));
        wires.tell(0, ToControl::Stopped);
        assert!(matches!(wires.next(1).await, ToShard::Drain { .. }));
        assert!(matches!(wires.next(1).await, ToShard::Stop));
        task.await.unwrap();
        assert!(wires.take(0).is_none(), "nothing is sent to a shard that has stopped");
    });
}

#[test]
fn reports_reach_the_view_and_a_lifted_ban_every_shard() {
    beside_control(100, |handle, wires| async move {
        let load = ShardLoad { connections: 3, ..ShardLoad::default() };
        let report = Report { shard: ShardId(1), at: Instant::now(), sessions: Vec::new(), streams: Vec::new(), load };
        wires.tell(1, ToControl::Report(Box::new(report)));
        until(&handle, |view| view.shards[1].load.connections == 3).await;
        assert!(!handle.unban(whom()).await.unwrap(), "nobody was banned");
        for shard in [0, 1] {
            assert!(matches!(wires.next(shard).await, ToShard::Unban(_)));
        }
    });
}

#[test]
fn new_rules_are_in_force_when_every_shard_has_said_so() {
    beside_control(100, |handle, wires| async move {
        let mut rules = Rules::default();
        rules.admission.duplicate_publish = DuplicatePublish::Reject;
        rules.admission.publish = crate::admission::Access::Open;
        rules.gate = Arc::new(crate::admission::Gate::new(&rules.admission, &[]));
        let asked = tokio::task::spawn_local({
            let (handle, rules) = (handle.clone(), Arc::new(rules));
            async move { handle.configure(rules).await }
        });
        for (shard, closed) in [(0, 3), (1, 4)] {
            let ToShard::Configure { order, rules } = wires.next(shard).await else { panic!("no rules") };
            assert_eq!(rules.admission.duplicate_publish, DuplicatePublish::Reject);
            assert!(!asked.is_finished(), "shard {shard} has not answered");
            wires.tell(shard, ToControl::Done { order, count: closed });
        }
        assert_eq!(asked.await.unwrap(), Ok(Configured { generation: 2, closed: 7 }));
        // Control obeys them too: who comes second is refused, where the first rules would have replaced the first.
        let (old, new) = (session(1, 0, Kind::Publish), session(2, 1, Kind::Publish));
        wires.tell(0, ask(&old));
        assert!(matches!(wires.next(0).await, ToShard::Verdict { verdict: Ok(_), .. }));
        wires.tell(1, ask(&new));
        assert!(matches!(wires.next(1).await, ToShard::Verdict { verdict: Err(_), .. }));
        handle.note_refused_reload().await;
        until(&handle, |view| view.reloads_refused == 1 && view.config_generation == 2).await;
    });
}

#[test]
fn a_shard_that_does_not_answer_has_the_rules_in_its_mail_and_the_caller_is_told() {
    beside_control(100, |handle, wires| async move {
        let configured = handle.configure(Arc::new(Rules::default()));
        let answered = async {
            let ToShard::Configure { order, .. } = wires.next(0).await else { panic!("no rules") };
            wires.tell(0, ToControl::Done { order, count: 0 });
        };
        let (configured, ()) = tokio::join!(configured, answered);
        assert_eq!(configured, Err(CommandError::Timeout));
        let ToShard::Configure { order, .. } = wires.next(1).await else { panic!("no rules") };
        // Late, and harmless.
        wires.tell(1, ToControl::Done { order, count: 0 });
        until(&handle, |view| view.config_generation == 2).await;
    });
}

#[test]
fn fa_18_a_ban_is_stored_by_the_wall_clock_as_it_is_now() {
    let directory = tempfile::tempdir().unwrap();
    let settings = crate::ledger::Settings {
        directory: directory.path().to_str().unwrap().into(),
        ..crate::ledger::Settings::default()
    };
    let began = Instant::now();
    let ledger = crate::ledger::open(&settings, WallAnchor::now(), began).unwrap().start().unwrap();
    // The clock was an hour behind when the server started, and has been set since.
    let an_hour = Duration::from_hours(1);
    let behind = WallAnchor::at(began, Duration::from_millis(WallAnchor::now().unix_ms(began)).saturating_sub(an_hour));
    let outside = Outside { ledger: Some((ledger.clone(), Duration::from_secs(5))), ..Outside::alone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let until = tokio::task::LocalSet::new().block_on(&runtime, async {
        let (handle, control) = start(&Setup { wall: behind, ..setup(1) }, outside);
        let mut events = handle.subscribe(None);
        let wires = Wires::new(1, 100);
        let task = tokio::task::spawn_local(control.run(wires.clone()));
        let stepped = async {
            while handle.next_happened(&mut events).await.1.event.name() != "server.clock_step" {}
            let until = Instant::now() + an_hour;
            let banned = handle.ban(Ban { whom: whom(), until });
            let obeyed = async {
                let ToShard::Ban { order, .. } = wires.next(0).await else { panic!("no ban") };
                wires.tell(0, ToControl::Done { order, count: 1 });
                let ToShard::Close { order, .. } = wires.next(0).await else { return };
                wires.tell(0, ToControl::Done { order, count: 0 });
            };
            tokio::select! {
                banned = banned => assert!(banned.is_ok(), "{banned:?}"),
                () = async { obeyed.await; std::future::pending().await } => {}
            }
            until
        };
        let until = tokio::time::timeout(Duration::from_secs(30), stepped).await.expect("the test hangs");
        task.abort();
        until
    });
    assert!(ledger.stop(Duration::from_secs(10)));
    drop(ledger);
    let stored = crate::ledger::open(&settings, WallAnchor::now(), Instant::now()).unwrap().bans();
    let (is, should) = (stored[0].until_unix_ms, WallAnchor::now().unix_ms(until));
    assert!(is.abs_diff(should) < 60_000, "it ends at {is}, and should at {should}");
}

#[cfg(feature = "faults")]
#[test]
fn fa_13_a_full_disk_is_told_at_once_and_newcomers_are_refused_by_the_shards() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let folder = tempfile::tempdir().unwrap();
    let settings = crate::ledger::Settings {
        directory: folder.path().to_str().unwrap().into(),
        on_full: crate::ledger::OnFull::RefuseNew,
        ..crate::ledger::Settings::default()
    };
    let setup = setup(2);
    let is_full = Arc::new(AtomicBool::new(true));
    let looks = Arc::clone(&is_full);
    let disk: crate::ledger::Obstacle = Arc::new(move |_, _| {
        let full = || rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None);
        if looks.load(Ordering::Relaxed) { Err(full()) } else { Ok(()) }
    });
    let opened = crate::ledger::open(&settings, setup.wall, setup.started_at).unwrap();
    let ledger = opened.with_obstacle(disk).start().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let record = Some((ledger.clone(), Duration::from_secs(5)));
        let (handle, control) = start(&setup, Outside { ledger: record, ..Outside::alone() });
        let wires = Wires::new(2, 100);
        let task = tokio::task::spawn_local(control.run(wires.clone()));
        let mut cursor = handle.subscribe(None);
        let viewer = session(1, 0, Kind::Play);
        wires.tell(0, change(&viewer, What::Opened));
        let test = async {
            for is_ok in [false, true] {
                for shard in 0..2 {
                    let mail = wires.next(shard).await;
                    assert!(matches!(mail, ToShard::Recorded(is) if is == is_ok), "not told that it is {is_ok}");
                }
                if is_ok {
                    let (_, opened) = handle.next_event(&mut cursor).await;
                    assert!(matches!(&*opened.event, Event::Session(_)));
                }
                let (_, recorded) = handle.next_event(&mut cursor).await;
                let Event::Server(event) = &*recorded.event else { panic!("it is on no record") };
                assert_eq!(event.what, ServerWhat::Ledger(is_ok));
                is_full.store(false, Ordering::Relaxed);
            }
        };
        tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs");
        task.abort();
    });
    assert!(ledger.stop(Duration::from_secs(10)));
}

#[test]
fn md_10_reports_close_a_publisher_that_sends_too_much_and_none_that_rests_between_pictures() {
    use crate::admission::settings::Limits;
    use crate::admission::{Access, Gate};
    use crate::session::{SessionSample, State};

    let limits = Limits { publish_bps_max: 1_000_000, ..Limits::default() };
    let settings =
        crate::admission::Settings { publish: Access::Open, limits, ..crate::admission::Settings::default() };
    let gate = Arc::new(Gate::new(&settings, &[]));
    let desk = Desk::new(&settings, Vec::new(), gate, WallAnchor::now()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (_handle, control) = start(&setup(1), Outside { desk, ..Outside::alone() });
        let wires = Wires::new(1, 100);
        let task = tokio::task::spawn_local(control.run(wires.clone()));
        let pausing = Arc::new(facts(1, 0, Kind::Publish, "live/pausing", "192.0.2.1:1000"));
        let steady = Arc::new(facts(2, 0, Kind::Publish, "live/steady", "192.0.2.1:1001"));
        for publisher in [&pausing, &steady] {
            wires.tell(0, change(publisher, What::Opened));
            wires.tell(0, ask(publisher));
            assert!(matches!(wires.next(0).await, ToShard::Verdict { verdict: Ok(_), .. }));
        }
        let mut closed = Vec::new();
        // Two minutes of a report each quarter of a second, with whatever changed.
        for quarter in 1..=480_u64 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let sample = |id, rx_bytes| SessionSample {
                id,
                state: State::Running,
                counters: Counters { rx_bytes, ..Counters::default() },
                queue_bytes: 0,
            };
            // 150,000 bytes a second; 400,000 bytes every five seconds.
            let mut sessions = vec![sample(steady.id, quarter * 37_500)];
            if quarter.is_multiple_of(20) {
                sessions.push(sample(pausing.id, quarter / 20 * 400_000));
            }
            let (streams, load) = (Vec::new(), ShardLoad::default());
            let at = tokio::time::Instant::now().into_std();
            wires.tell(0, ToControl::Report(Box::new(Report { shard: ShardId(0), at, sessions, streams, load })));
            tokio::task::yield_now().await;
            while let Some(mail) = wires.take(0) {
                if let ToShard::Close { sessions, reason, .. } = mail {
                    closed.push((quarter / 4, sessions, reason));
                }
            }
        }
        let [(second, sessions, reason)] = closed.as_slice() else { panic!("{closed:?}") };
        assert_eq!((sessions, *reason), (&vec![steady.id], Reason::BitrateExceeded.into()));
        assert!((60..=66).contains(second), "after {second} s");
        task.abort();
    });
}

#[test]
fn a_shard_that_is_not_heard_of_is_woken() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (_handle, control) = start(&setup(2), Outside::alone());
        let wires = Wires::new(2, 100);
        let task = tokio::task::spawn_local(control.run(wires.clone()));
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let (sessions, streams, load) = (Vec::new(), Vec::new(), ShardLoad::default());
            let at = tokio::time::Instant::now().into_std();
            wires.tell(1, ToControl::Report(Box::new(Report { shard: ShardId(1), at, sessions, streams, load })));
        }
        let nudged = wires.take_nudged();
        assert!(nudged.len() > 5 && nudged.iter().all(|shard| *shard == ShardId(0)), "{nudged:?}");
        task.abort();
    });
}

#[test]
fn a_stop_tells_of_the_end_of_every_stream() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (handle, control) = start(&setup(1), Outside::alone());
        let wires = Wires::new(1, 100);
        let task = tokio::task::spawn_local(control.run(wires.clone()));
        let mut cursor = handle.subscribe(None);
        let publisher = session(1, 0, Kind::Publish);
        wires.tell(0, change(&publisher, What::Opened));
        wires.tell(0, ask(&publisher));
        assert!(matches!(wires.next(0).await, ToShard::Verdict { verdict: Ok(_), .. }));
        wires.tell(0, change(&publisher, What::Closed(Reason::Drain.into(), Counters::default())));
        wires.tell(0, ToControl::Stopped);
        task.await.unwrap();
        let mut seen = Vec::new();
        while let Some((_, Recorded { event, .. })) = handle.try_next_event(&mut cursor) {
            if let Event::Stream(event) = &*event {
                seen.push(event.what);
            }
        }
        let offline = StreamWhat::Offline { publisher: id(1), reason: Reason::Drain.into() };
        assert_eq!(seen.last(), Some(&offline), "{seen:?}");
        assert_eq!(seen.len(), 3, "online, idle, and no window to come back in: {seen:?}");
    });
}

#[test]
fn a_player_is_measured_with_the_first_report_that_has_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let limits = crate::admission::settings::Limits { egress_bps_per_stream: 1_000_000, ..Default::default() };
        let settings = crate::admission::Settings { limits, ..crate::admission::Settings::default() };
        let gate = Arc::new(crate::admission::Gate::new(&settings, &[]));
        let desk = crate::admission::Desk::new(&settings, Vec::new(), gate, WallAnchor::now()).unwrap();
        let (handle, control) = start(&setup(1), Outside { desk, ..Outside::alone() });
        let wires = Wires::new(1, 100);
        let task = tokio::task::spawn_local(control.run(wires.clone()));
        let report = |players| {
            let sample = crate::stream::StreamSample {
                players,
                video_bps: 220_000,
                ..crate::control::model::unseen(&key("live/a")).sample
            };
            let load = ShardLoad::default();
            let streams = vec![sample];
            ToControl::Report(
                Report { shard: ShardId(0), at: Instant::now(), sessions: Vec::new(), streams, load }.into(),
            )
        };
        wires.tell(0, report(0));
        for number in 1..=5_u64 {
            let player = session(number, 0, Kind::Play);
            wires.tell(0, change(&player, What::Opened));
            wires.tell(0, ask(&player));
            let ToShard::Verdict { verdict, .. } = wires.next(0).await else { panic!("not a verdict") };
            assert_eq!(verdict.is_ok(), number < 5, "player {number}: four of 220 kbit/s are less than 1 Mbit/s");
            wires.tell(0, change(&player, What::Authorized));
            wires.tell(0, report(usize::try_from(number).unwrap()));
        }
        drop(handle);
        task.abort();
    });
}
