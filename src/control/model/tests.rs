use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::control::Filter;
use crate::control::testing::{facts, id, key};
use crate::event::Wanted;
use crate::names::{Kind, Protocol};
use crate::session::{Facts, Reason};
use crate::shard::mail::ShardLoad;
use crate::stdx::clock::WallAnchor;

struct Desk {
    model: Model,
    view: View,
    start: Instant,
    now: Instant,
}

impl Desk {
    fn new(settings: &Settings) -> Self {
        let now = Instant::now();
        Self { model: Model::new(settings, now, 2), view: View::new(WallAnchor::now(), now, 2), start: now, now }
    }

    fn say(&mut self, facts: &Arc<Facts>, what: What) {
        let change = Change { facts: facts.clone(), seq: 0, at: self.now, what };
        self.model.session(&mut self.view, &change);
    }

    fn report(&mut self, shard: u16, sessions: Vec<SessionSample>, streams: Vec<StreamSample>, home: Option<u16>) {
        let report = Report { shard: ShardId(shard), at: self.now, sessions, streams, load: ShardLoad::default() };
        let home = home.map(ShardId);
        self.model.report(&mut self.view, &report, |_| home, |_| home.is_some(), |_| ());
    }

    fn collector(&self) -> &Collector {
        &self.view.collectors[Protocol::Rtmp.collector()]
    }
}

fn player(n: u64) -> Arc<Facts> {
    Arc::new(facts(n, 0, Kind::Play, "live/a", &format!("192.0.2.1:{}", n % 60_000 + 1)))
}

fn sent(tx_bytes: u64) -> Counters {
    Counters { tx_bytes, ..Counters::default() }
}

fn sample(n: u64, tx_bytes: u64) -> SessionSample {
    SessionSample { id: id(n), state: State::Running, counters: sent(tx_bytes), queue_bytes: 5 }
}

fn stream(path: &str, players: usize, published: bool) -> StreamSample {
    StreamSample { players, published, frames: 7, ..unseen(&key(path)).sample }
}

#[test]
fn a_session_is_seen_from_its_opening_to_its_end() {
    let mut desk = Desk::new(&Settings::default());
    let facts = player(1);
    desk.say(&facts, What::Opened);
    assert_eq!(desk.view.sessions[&id(1)].state, State::Establishing);
    desk.say(&facts, What::Authorized);
    desk.say(&facts, What::Started);
    assert_eq!(desk.view.sessions[&id(1)].state, State::Running);
    desk.say(&facts, What::Stalled);
    assert_eq!(desk.view.sessions[&id(1)].state, State::Stalling);
    desk.say(&facts, What::Recovered);
    desk.now += Duration::from_millis(250);
    desk.report(0, vec![sample(1, 1_000)], vec![], None);
    assert_eq!(desk.view.sessions[&id(1)].counters, sent(1_000));
    assert!(desk.view.sessions[&id(1)].rates.tx_bps[0] > 0.0);
    desk.say(&facts, What::Closed(Reason::ClientDone.into(), sent(1_500)));
    assert!(desk.view.sessions.is_empty());
    let row = desk.view.session(id(1)).unwrap();
    assert_eq!((row.state, row.counters, row.queue_bytes), (State::Finished, sent(1_500), 0));
    assert_eq!(row.closed, Some((desk.now, Reason::ClientDone.into())));
    assert_eq!(row.rates, Rates::default());

    let collector = desk.collector();
    let totals = Totals { sessions: 1, rx_bytes: 0, tx_bytes: 1_500 };
    assert_eq!((collector.opened, collector.finished), (1, totals));
    assert_eq!(collector.history[&(Kind::Play, key("live/a"), facts.remote)], totals);
    assert_eq!(collector.reasons[&(Kind::Play, Reason::ClientDone.into())], 1);
    assert_eq!(collector.moved[&Kind::Play], sent(1_500));
}

#[test]
fn numbers_never_fall_and_nothing_follows_the_end() {
    let mut desk = Desk::new(&Settings::default());
    let facts = player(1);
    desk.report(0, vec![sample(1, 10)], vec![], None);
    assert!(desk.view.sessions.is_empty(), "a sample opens no session");
    desk.say(&facts, What::Opened);
    desk.report(0, vec![sample(1, 1_000)], vec![], None);
    desk.report(0, vec![sample(1, 900)], vec![], None);
    assert_eq!(desk.view.sessions[&id(1)].counters.tx_bytes, 1_000);
    desk.say(&facts, What::Closed(Reason::Kicked.into(), sent(990)));
    desk.say(&facts, What::Closed(Reason::Kicked.into(), sent(5_000)));
    desk.report(0, vec![sample(1, 7_000)], vec![], None);
    desk.say(&facts, What::Started);
    assert!(desk.view.sessions.is_empty());
    assert_eq!(desk.view.finished.len(), 1);
    assert_eq!(desk.view.finished[0].counters.tx_bytes, 1_000);
    assert_eq!(desk.collector().moved[&Kind::Play], sent(1_000));
    assert_eq!(desk.collector().reasons.values().sum::<u64>(), 1);
}

#[test]
fn only_sessions_that_started_enter_the_history() {
    let mut desk = Desk::new(&Settings::default());
    let facts = player(1);
    desk.say(&facts, What::Opened);
    desk.say(&facts, What::Denied(Reason::AuthDenied.into()));
    desk.say(&facts, What::Closed(Reason::AuthDenied.into(), sent(300)));
    let collector = desk.collector();
    assert_eq!((collector.finished, collector.history.len()), (Totals::default(), 0));
    assert_eq!(collector.reasons[&(Kind::Play, Reason::AuthDenied.into())], 1);
    assert_eq!(collector.moved[&Kind::Play].tx_bytes, 300, "its bytes were moved all the same");
}

#[test]
fn attempts_are_counted_by_reason() {
    let mut desk = Desk::new(&Settings::default());
    for _ in 0..3 {
        let attempt = Attempt {
            protocol: Protocol::Rtmp,
            kind: None,
            remote: "192.0.2.1:1".parse().unwrap(),
            at: desk.now,
            reason: Reason::HandshakeTimeout.into(),
            wanted: Wanted::default(),
        };
        desk.model.attempt(&mut desk.view, &attempt);
    }
    assert_eq!(desk.collector().attempts[&Reason::HandshakeTimeout.into()], 3);
}

#[test]
fn the_history_is_bounded_and_loses_no_byte() {
    let settings = Settings { history_keys_max: 10, finished_kept: 5, ..Settings::default() };
    let mut desk = Desk::new(&settings);
    for n in 1..=1_000u64 {
        // Every third session is by the same peer, which therefore never is the least recent.
        let facts = if n % 3 == 0 {
            let mut facts = (*player(0)).clone();
            facts.id = id(n);
            Arc::new(facts)
        } else {
            player(n)
        };
        desk.say(&facts, What::Opened);
        desk.say(&facts, What::Started);
        desk.say(&facts, What::Closed(Reason::ClientDone.into(), sent(n)));
    }
    assert_eq!(desk.view.finished.len(), 5);
    let collector = desk.collector();
    assert_eq!(collector.history.len(), 10);
    assert_eq!(collector.history[&(Kind::Play, key("live/a"), player(0).remote)].sessions, 333);
    let kept: u64 = collector.history.values().map(|totals| totals.tx_bytes).sum();
    assert_eq!(kept + collector.history_other.tx_bytes, collector.finished.tx_bytes);
    assert_eq!(collector.finished, Totals { sessions: 1_000, rx_bytes: 0, tx_bytes: 500_500 });
    assert_eq!(collector.history_folded, 667 + 1 - 10);
    assert!(desk.model.recency["rtmp"].order.len() <= 130, "outdated places are cleared away");
}

#[test]
fn rates_fall_to_zero_when_reports_say_nothing() {
    let mut desk = Desk::new(&Settings::default());
    let facts = player(1);
    desk.say(&facts, What::Opened);
    desk.report(0, vec![], vec![], None);
    for n in 1..=8 {
        desk.now += Duration::from_millis(250);
        desk.report(0, vec![sample(1, n * 62_500)], vec![], None);
    }
    let rate = desk.view.sessions[&id(1)].rates.tx_bps[0];
    assert!((rate - 2e6).abs() < 2e4, "{rate}");
    for _ in 0..400 {
        desk.now += Duration::from_millis(100);
        desk.model.sweep(&mut desk.view, desk.now, 100);
    }
    assert_eq!(desk.view.sessions[&id(1)].rates, Rates::default());
}

#[test]
fn a_stream_shows_its_homes_numbers_and_everybodys_players() {
    let mut desk = Desk::new(&Settings::default());
    let (at, publisher, shard) = (desk.now, id(1), ShardId(0));
    let online = |what| StreamEvent { key: key("live/a"), at, what };
    desk.model.stream(&mut desk.view, &online(StreamWhat::Online { publisher, shard, resumed: false }), true);
    desk.report(0, vec![], vec![stream("live/a", 2, true)], Some(0));
    desk.report(1, vec![], vec![StreamSample { frames: 1, ..stream("live/a", 3, false) }], Some(0));
    let row = &desk.view.streams[&key("live/a")];
    assert_eq!((row.sample.frames, row.publisher, row.online_at), (7, Some((id(1), ShardId(0))), Some(at)));
    assert_eq!(desk.view.players(&key("live/a")), 5);

    // The players of shard 1 leave, then the publisher, then the window passes.
    desk.report(1, vec![], vec![], Some(0));
    assert_eq!(desk.view.players(&key("live/a")), 2);
    desk.model.stream(&mut desk.view, &online(StreamWhat::Idle), true);
    assert_eq!(desk.view.streams[&key("live/a")].publisher, None);
    desk.model.stream(
        &mut desk.view,
        &online(StreamWhat::Offline { publisher: id(1), reason: Reason::StreamEnded.into() }),
        false,
    );
    assert_eq!(desk.view.streams.len(), 1, "shard 0 still has it");
    desk.report(0, vec![], vec![], None);
    assert!(desk.view.streams.is_empty());
}

#[test]
fn a_stream_that_is_waited_for_is_shown_until_nobody_waits() {
    let mut desk = Desk::new(&Settings::default());
    desk.model.wanted(&mut desk.view, &key("live/a"));
    desk.model.forget_if_over(&mut desk.view, &key("live/a"), true);
    assert_eq!(desk.view.streams.len(), 1);
    desk.model.forget_if_over(&mut desk.view, &key("live/a"), false);
    assert!(desk.view.streams.is_empty());
}

#[test]
fn health_is_every_shard_heard_within_two_seconds() {
    let mut desk = Desk::new(&Settings::default());
    assert!(desk.view.healthy(desk.start));
    assert!(!desk.view.healthy(desk.start + Duration::from_millis(2_001)), "never heard of");
    desk.now += Duration::from_secs(3);
    desk.report(0, vec![], vec![], None);
    assert!(!desk.view.healthy(desk.now), "one is missing");
    desk.report(1, vec![], vec![], None);
    assert!(desk.view.healthy(desk.now + Duration::from_secs(2)));
    assert!(!desk.view.healthy(desk.now + Duration::from_millis(2_001)));
    // A report that was under way for long does not make its shard look older.
    desk.now -= Duration::from_secs(2);
    desk.report(0, vec![], vec![], None);
    assert!(desk.view.healthy(desk.now + Duration::from_secs(4)));
}

#[test]
fn a_report_of_a_shard_that_does_not_exist_is_ignored() {
    let mut desk = Desk::new(&Settings::default());
    desk.report(9, vec![], vec![stream("live/a", 1, true)], None);
    assert!(desk.view.streams.is_empty());
}

#[test]
fn a_list_goes_on_from_its_cursor() {
    let mut desk = Desk::new(&Settings::default());
    for n in 1..=5 {
        desk.say(&player(n), What::Opened);
    }
    let ids =
        |filter: &Filter, after| -> Vec<_> { desk.view.select_after(filter, after).map(|row| row.facts.id).collect() };
    assert_eq!(ids(&Filter::default(), None), [1, 2, 3, 4, 5].map(id));
    assert_eq!(ids(&Filter::default(), Some(id(3))), [4, 5].map(id));
    let some = Filter { ids: vec![id(5), id(2), id(9), id(2)], ..Filter::default() };
    assert_eq!(ids(&some, None), [2, 5].map(id));
    assert_eq!(ids(&some, Some(id(2))), [5].map(id));
    let publishers = Filter { kinds: vec![Kind::Publish], ..some };
    assert!(ids(&publishers, None).is_empty());
}

#[test]
fn egress_is_summed_once_for_all_who_ask_until_the_sums_are_forgotten() {
    let mut view = View::new(crate::stdx::clock::WallAnchor::now(), Instant::now(), 1);
    for (path, players, bps) in [("live/a", 2, 100), ("live/b", 3, 10), ("vod/a", 1, 1_000), ("vod/b", 5, 0)] {
        let mut row = unseen(&key(path));
        row.sample.video_bps = bps;
        row.players.insert(ShardId(0), players);
        view.streams.insert(key(path), row);
    }
    let vhost = crate::names::DEFAULT_VHOST;
    let sums = |view: &View| {
        [Some((vhost, "live")), Some((vhost, "vod")), Some(("x", "vod")), None].map(|app| view.egress_bps_over(app))
    };
    assert_eq!(sums(&view), [230, 1_000, 0, 1_230]);
    view.streams.remove(&key("vod/a"));
    assert_eq!(sums(&view), [230, 1_000, 0, 1_230], "no second pass over the streams");
    assert_eq!(view.egress_bps_of(&key("live/a")), 200);
    assert_eq!(view.egress_bps_of(&key("vod/a")), 0);
    view.forget_sums();
    assert_eq!(sums(&view), [230, 0, 0, 230]);
}
