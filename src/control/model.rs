//! How events and reports become the view.
//!
//! Only this file changes the view's sessions, streams and collectors. It relies on one order: the mail of one
//! shard arrives as it was sent, so a session's `opened` comes before its numbers and its `closed` after them.
//! What breaks that order (a sample of a session that is closed, a counter that falls) is ignored.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::control::Settings;
use crate::control::rates::{INTERVAL_MAX, Meters};
use crate::control::view::{Collector, HistoryKey, Rates, SessionRow, StreamRow, Totals, View};
use crate::event::{Attempt, StreamEvent, StreamWhat};
use crate::names::{Kind, ShardId, StreamKey};
use crate::session::{Change, CloseReason, Counters, SessionSample, State, What};
use crate::shard::mail::Report;
use crate::stream::StreamSample;

/// What the view's upkeep needs beside the view.
pub struct Model {
    finished_kept: usize,
    history_keys_max: usize,
    meters: Meters,
    recency: HashMap<&'static str, Recency>,
    /// The streams in each shard's last report.
    reported: Vec<HashSet<StreamKey>>,
}

impl Model {
    /// For a view of `shards` shards; rates are counted from `now`.
    #[must_use]
    pub fn new(settings: &Settings, now: Instant, shards: usize) -> Self {
        Self {
            finished_kept: settings.finished_kept,
            history_keys_max: settings.history_keys_max,
            meters: Meters::new(now),
            recency: HashMap::new(),
            reported: vec![HashSet::new(); shards],
        }
    }

    /// Something happened to a session.
    pub fn session(&mut self, view: &mut View, change: &Change) {
        let id = change.facts.id;
        match change.what {
            What::Opened => {
                if view.sessions.contains_key(&id) {
                    return;
                }
                let row = SessionRow {
                    facts: change.facts.clone(),
                    state: State::Establishing,
                    started_at: None,
                    counters: Counters::default(),
                    queue_bytes: 0,
                    rates: Rates::default(),
                    closed: None,
                };
                view.sessions.insert(id, row);
                collector(view, change).opened += 1;
            }
            What::Closed(reason, counters) => self.closed(view, change, reason, &counters),
            What::Started | What::Stalled | What::Recovered => {
                if let Some(row) = view.sessions.get_mut(&id) {
                    row.state = if change.what == What::Stalled { State::Stalling } else { State::Running };
                    if change.what == What::Started && row.started_at.is_none() {
                        row.started_at = Some(change.at);
                        if row.facts.kind == Kind::Play {
                            view.times.first_media.record(micros(change.at, row.facts.opened_at));
                        }
                    }
                }
            }
            What::Updated(counters) => {
                if let Some(row) = view.sessions.get_mut(&id) {
                    let grown = grow(&mut row.counters, &counters);
                    add(collector(view, change).moved.entry(change.facts.kind).or_default(), &grown);
                    // The bytes passed since the shard's last report, as far as control can know.
                    self.note(view, change, &grown);
                }
            }
            What::Authorized | What::Denied(_) => {
                // The verdict completed the facts: a no may know who was refused, too.
                if let Some(row) = view.sessions.get_mut(&id) {
                    row.facts = Arc::clone(&change.facts);
                }
            }
            What::Altered | What::Overflowed { .. } => {}
        }
    }

    fn closed(&mut self, view: &mut View, change: &Change, reason: CloseReason, counters: &Counters) {
        let facts = &change.facts;
        let Some(mut row) = view.sessions.remove(&facts.id) else { return };
        self.meters.remove(facts.id);
        let grown = grow(&mut row.counters, counters);
        row.facts = Arc::clone(facts);
        row.state = State::Finished;
        row.queue_bytes = 0;
        row.rates = Rates::default();
        row.closed = Some((change.at, reason));

        let collector = collector(view, change);
        add(collector.moved.entry(facts.kind).or_default(), &grown);
        *collector.reasons.entry((facts.kind, reason)).or_default() += 1;
        if row.started_at.is_some() {
            let totals = Totals { sessions: 1, rx_bytes: row.counters.rx_bytes, tx_bytes: row.counters.tx_bytes };
            add_totals(&mut collector.finished, totals);
            let key = (facts.kind, facts.key.clone(), facts.remote);
            let recency = self.recency.entry(facts.protocol.collector()).or_default();
            remember(collector, recency, self.history_keys_max, key, totals);
        }

        if self.finished_kept > 0 {
            if view.finished.len() >= self.finished_kept {
                view.finished.pop_front();
            }
            view.finished.push_back(row);
        }
    }

    /// A connection was refused before it became a session.
    pub fn attempt(&mut self, view: &mut View, attempt: &Attempt) {
        let collector = view.collectors.entry(attempt.protocol.collector()).or_default();
        *collector.attempts.entry(attempt.reason).or_default() += 1;
    }

    /// Something happened to a stream; `known` says whether the registry still has it.
    pub fn stream(&mut self, view: &mut View, event: &StreamEvent, known: bool) {
        match event.what {
            StreamWhat::Online { publisher, shard, .. } => {
                let row = view.streams.entry(event.key.clone()).or_insert_with(|| unseen(&event.key));
                row.publisher = Some((publisher, shard));
                // A take-over does not interrupt the stream; coming back from the resume window does.
                row.online_at.get_or_insert(event.at);
            }
            StreamWhat::Idle => {
                if let Some(row) = view.streams.get_mut(&event.key) {
                    row.publisher = None;
                    row.online_at = None;
                    row.sample.published = false;
                }
            }
            StreamWhat::Offline { .. } => self.forget_if_over(view, &event.key, known),
        }
    }

    /// A shard has subscribers of a stream, published or not.
    pub fn wanted(&mut self, view: &mut View, key: &StreamKey) {
        view.streams.entry(key.clone()).or_insert_with(|| unseen(key));
    }

    /// Drops a stream's row when nothing is left of the stream: `known` says whether the registry still has it.
    pub fn forget_if_over(&mut self, view: &mut View, key: &StreamKey, known: bool) {
        if let Some(row) = view.streams.get(key)
            && !known
            && row.publisher.is_none()
            && !self.reported.iter().any(|shard| shard.contains(key))
        {
            view.streams.remove(key);
        }
    }

    /// A shard's numbers. `home` says where a stream's media comes from, `known` whether the registry has it. `moved`
    /// is told of every session whose bytes did.
    pub fn report(
        &mut self,
        view: &mut View,
        report: &Report,
        home: impl Fn(&StreamKey) -> Option<ShardId>,
        known: impl Fn(&StreamKey) -> bool,
        mut moved: impl FnMut(&SessionRow),
    ) {
        let Some(shard) = view.shards.get_mut(report.shard.index()) else { return };
        let since = since(shard.reported_at, report.at);
        shard.load = report.load;
        shard.reported_at = Some(shard.reported_at.map_or(report.at, |before| before.max(report.at)));
        for sample in &report.sessions {
            if let Some(row) = self.sample(view, sample, since, report.at) {
                moved(row);
            }
        }
        self.streams(view, report, home, known);
    }

    /// Books a sample; returns the session's row if its bytes moved.
    fn sample<'v>(
        &mut self,
        view: &'v mut View,
        sample: &SessionSample,
        since: Instant,
        at: Instant,
    ) -> Option<&'v SessionRow> {
        // A sample of a session that is closed, or was never opened, is too late or too early to matter.
        let row = view.sessions.get_mut(&sample.id)?;
        let grown = grow(&mut row.counters, &sample.counters);
        if sample.state != State::Finished {
            row.state = sample.state;
        }
        row.queue_bytes = sample.queue_bytes;
        if row.facts.kind == Kind::Play {
            view.times.queue.record(sample.queue_bytes);
        }
        let moved = grown.rx_bytes | grown.tx_bytes != 0;
        if moved {
            row.rates = self.meters.record(sample.id, since, at, grown.rx_bytes, grown.tx_bytes);
        }
        let facts = &row.facts;
        if let Some(collector) = view.collectors.get_mut(facts.protocol.collector()) {
            add(collector.moved.entry(facts.kind).or_default(), &grown);
        }
        moved.then_some(&*row)
    }

    fn note(&mut self, view: &mut View, change: &Change, grown: &Counters) {
        if grown.rx_bytes | grown.tx_bytes == 0 {
            return;
        }
        let reported_at = view.shards.get(change.facts.shard.index()).and_then(|shard| shard.reported_at);
        let since = since(reported_at, change.at);
        if let Some(row) = view.sessions.get_mut(&change.facts.id) {
            row.rates = self.meters.record(change.facts.id, since, change.at, grown.rx_bytes, grown.tx_bytes);
        }
    }

    fn streams(
        &mut self,
        view: &mut View,
        report: &Report,
        home: impl Fn(&StreamKey) -> Option<ShardId>,
        known: impl Fn(&StreamKey) -> bool,
    ) {
        let now: HashSet<StreamKey> = report.streams.iter().map(|sample| sample.key.clone()).collect();
        for sample in &report.streams {
            let row = view.streams.entry(sample.key.clone()).or_insert_with(|| unseen(&sample.key));
            if sample.players == 0 {
                row.players.remove(&report.shard);
            } else {
                row.players.insert(report.shard, sample.players);
            }
            // The home measures; a relayed copy only stands in while there is no home.
            if home(&sample.key).is_none_or(|home| home == report.shard) {
                row.sample.clone_from(sample);
            }
        }
        let Some(before) = self.reported.get_mut(report.shard.index()) else { return };
        let before = std::mem::replace(before, now);
        for key in before {
            if self.reported.get(report.shard.index()).is_some_and(|now| now.contains(&key)) {
                continue;
            }
            if let Some(row) = view.streams.get_mut(&key) {
                row.players.remove(&report.shard);
            }
            let is_known = known(&key);
            self.forget_if_over(view, &key, is_known);
        }
    }

    /// Lets the rates of silent sessions fall; at most `budget` of them. Returns true when more are due.
    pub fn sweep(&mut self, view: &mut View, now: Instant, budget: usize) -> bool {
        self.meters.sweep(now, budget, |id, rates| {
            if let Some(row) = view.sessions.get_mut(&id) {
                row.rates = rates;
            }
        })
    }
}

/// The beginning of the interval that a report at `at` covers.
fn since(reported_at: Option<Instant>, at: Instant) -> Instant {
    let oldest = at.checked_sub(INTERVAL_MAX).unwrap_or(at);
    reported_at.map_or(at, |before| before.clamp(oldest, at))
}

/// How long it was from `since` to `at`.
pub(super) fn micros(at: Instant, since: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(since).as_micros()).unwrap_or(u64::MAX)
}

fn collector<'a>(view: &'a mut View, change: &Change) -> &'a mut Collector {
    view.collectors.entry(change.facts.protocol.collector()).or_default()
}

/// Takes over what is larger, and returns by how much each total grew. Totals never fall: a smaller one is late.
fn grow(row: &mut Counters, news: &Counters) -> Counters {
    let mut grown = Counters::default();
    for (have, told, by) in [
        (&mut row.rx_bytes, news.rx_bytes, &mut grown.rx_bytes),
        (&mut row.tx_bytes, news.tx_bytes, &mut grown.tx_bytes),
        (&mut row.rx_media_bytes, news.rx_media_bytes, &mut grown.rx_media_bytes),
        (&mut row.tx_media_bytes, news.tx_media_bytes, &mut grown.tx_media_bytes),
        (&mut row.rx_frames, news.rx_frames, &mut grown.rx_frames),
        (&mut row.tx_frames, news.tx_frames, &mut grown.tx_frames),
        (&mut row.dropped_frames, news.dropped_frames, &mut grown.dropped_frames),
        (&mut row.overflows, news.overflows, &mut grown.overflows),
        (&mut row.queue_peak_bytes, news.queue_peak_bytes, &mut grown.queue_peak_bytes),
    ] {
        *by = told.saturating_sub(*have);
        *have = told.max(*have);
    }
    grown.queue_peak_bytes = row.queue_peak_bytes;
    grown
}

fn add(sum: &mut Counters, grown: &Counters) {
    sum.rx_bytes += grown.rx_bytes;
    sum.tx_bytes += grown.tx_bytes;
    sum.rx_media_bytes += grown.rx_media_bytes;
    sum.tx_media_bytes += grown.tx_media_bytes;
    sum.rx_frames += grown.rx_frames;
    sum.tx_frames += grown.tx_frames;
    sum.dropped_frames += grown.dropped_frames;
    sum.overflows += grown.overflows;
    sum.queue_peak_bytes = sum.queue_peak_bytes.max(grown.queue_peak_bytes);
}

fn add_totals(sum: &mut Totals, more: Totals) {
    sum.sessions += more.sessions;
    sum.rx_bytes += more.rx_bytes;
    sum.tx_bytes += more.tx_bytes;
}

/// The order in which a collector's history keys last finished, for folding the oldest.
#[derive(Default)]
struct Recency {
    /// Finishes in order. A key that finished again stands here more than once; only its last place counts.
    order: VecDeque<(u64, HistoryKey)>,
    last: HashMap<HistoryKey, u64>,
    count: u64,
}

fn remember(collector: &mut Collector, recency: &mut Recency, keys_max: usize, key: HistoryKey, totals: Totals) {
    if keys_max == 0 {
        add_totals(&mut collector.history_other, totals);
        return;
    }
    recency.count += 1;
    recency.last.insert(key.clone(), recency.count);
    recency.order.push_back((recency.count, key.clone()));
    add_totals(collector.history.entry(key).or_default(), totals);

    while collector.history.len() > keys_max {
        let Some((number, oldest)) = recency.order.pop_front() else { break };
        if recency.last.get(&oldest) == Some(&number) {
            recency.last.remove(&oldest);
            if let Some(folded) = collector.history.remove(&oldest) {
                add_totals(&mut collector.history_other, folded);
                collector.history_folded += 1;
            }
        }
    }
    // Outdated places are cleared away before they outnumber the keys: constant work per finish on average.
    if recency.order.len() > 2 * collector.history.len().max(64) {
        let last = &recency.last;
        recency.order.retain(|(number, key)| last.get(key) == Some(number));
    }
}

/// A stream of which no shard has reported numbers yet.
pub(super) fn unseen(key: &StreamKey) -> StreamRow {
    let sample = StreamSample {
        key: key.clone(),
        published: false,
        players: 0,
        video_codec: String::new(),
        audio_codec: String::new(),
        width: 0,
        height: 0,
        frame_rate: 0.0,
        sample_rate: 0,
        channels: 0,
        video_bps: 0,
        audio_bps: 0,
        gop_ms: 0,
        gop_frames: 0,
        cache_bytes: 0,
        frames: 0,
        discontinuities: 0,
    };
    StreamRow { sample, publisher: None, online_at: None, players: std::collections::BTreeMap::new() }
}

#[cfg(test)]
mod tests;
