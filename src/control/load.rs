//! How hard pressed the server is: what is measured, what everybody is told, and whom it costs.

use std::time::{Duration, Instant};

use crate::admission::load::{LoadWatch, Pressure, Usage};
use crate::admission::{Load, LoadState};
use crate::control::View;
use crate::names::{Kind, SessionId};

/// Asks the machine what is used; told how many connections the shards have. Lateness is filled in here.
pub type Measure = Box<dyn FnMut(usize) -> Usage + Send>;

/// Control's watch over the load.
pub struct LoadDesk {
    measure: Measure,
    watch: LoadWatch,
    next_at: Instant,
}

/// What a look at the machine came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Every shard is to be told.
    pub told: Option<Load>,
    /// The state was another.
    pub entered: Option<LoadState>,
    /// Viewers to be let go, the slowest first.
    pub shed: Vec<SessionId>,
}

/// How often the machine is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// One of so many viewers is let go at each look while the server is in red. What that brought is seen at the next.
const SHED_SHARE: usize = 50;

impl LoadDesk {
    /// A watch that begins at `now`.
    #[must_use]
    pub fn new(now: Instant, measure: Measure) -> Self {
        Self { measure, watch: LoadWatch::default(), next_at: now }
    }

    /// When [`step`](Self::step) has something to do.
    #[must_use]
    pub fn next_due(&self) -> Instant {
        self.next_at
    }

    /// Looks at the machine, if it is time to.
    pub fn step(&mut self, now: Instant, view: &mut View) -> Step {
        if now < self.next_at {
            return Step::default();
        }
        self.next_at = now + SAMPLE_EVERY;
        let connections = view.shards.iter().map(|shard| shard.load.connections).sum();
        let lag = view.shards.iter().map(|shard| shard.load.loop_lag_p99).max().unwrap_or_default();
        let pressure = Pressure::of(&Usage { lag, ..(self.measure)(connections) });
        let before = self.watch.load().state;
        let told = self.watch.sample(now, pressure);
        let state = self.watch.load().state;
        view.load = self.watch.load();
        view.pressure = pressure;
        let is_pressed = state == LoadState::Red && pressure >= Pressure::RELIEVED;
        Step {
            told,
            entered: (state != before).then_some(state),
            shed: if is_pressed { slowest(view) } else { Vec::new() },
        }
    }
}

/// The viewers with the most bytes waiting, a share of all. One that keeps up is not let go: shedding those would be
/// shedding at random.
fn slowest(view: &View) -> Vec<SessionId> {
    let viewers = || view.sessions.values().filter(|row| matches!(row.facts.kind, Kind::Play | Kind::Push));
    let share = viewers().count().div_ceil(SHED_SHARE);
    let mut slow: Vec<(u64, SessionId)> =
        viewers().filter(|row| row.queue_bytes > 0).map(|row| (row.queue_bytes, row.facts.id)).collect();
    slow.sort_unstable_by(|one, other| other.cmp(one));
    slow.into_iter().take(share).map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::control::testing::{id, row};
    use crate::stdx::clock::WallAnchor;

    fn desk(now: Instant) -> (LoadDesk, Arc<AtomicU64>) {
        let used = Arc::new(AtomicU64::new(0));
        let reads = Arc::clone(&used);
        let measure = move |_| Usage {
            memory: (reads.load(Ordering::Relaxed), 1_000),
            lag_max: Duration::from_millis(200),
            ..Usage::default()
        };
        (LoadDesk::new(now, Box::new(measure)), used)
    }

    fn view(now: Instant) -> View {
        View::new(WallAnchor::now(), now, 2)
    }

    #[test]
    fn load_is_looked_at_four_times_a_second() {
        let start = Instant::now();
        let (mut desk, used) = desk(start);
        let mut view = view(start);
        assert_eq!(desk.step(start, &mut view), Step::default());
        used.store(860, Ordering::Relaxed);
        assert_eq!(desk.step(start + Duration::from_millis(249), &mut view), Step::default());
        let step = desk.step(start + Duration::from_millis(250), &mut view);
        assert_eq!(step.entered, Some(LoadState::Orange));
        assert_eq!(step.told.map(|load| load.state), Some(LoadState::Orange));
        assert_eq!((view.load.state, view.pressure), (LoadState::Orange, Pressure(860)));
        assert_eq!(desk.next_due(), start + Duration::from_millis(500));
        // A little more of it is told to shards and is no other state.
        used.store(900, Ordering::Relaxed);
        let step = desk.step(start + Duration::from_millis(500), &mut view);
        assert_eq!((step.entered, step.told.is_some()), (None, true));
    }

    #[test]
    fn load_of_the_latest_shard_counts() {
        let start = Instant::now();
        let (mut desk, _) = desk(start);
        let mut view = view(start);
        view.shards[1].load.loop_lag_p99 = Duration::from_millis(60);
        assert_eq!(desk.step(start, &mut view).entered, Some(LoadState::Orange));
    }

    #[test]
    fn load_red_lets_the_slowest_viewers_go_until_it_is_relieved() {
        let start = Instant::now();
        let (mut desk, used) = desk(start);
        let mut view = view(start);
        for n in 0..100 {
            let kind = if n == 99 { Kind::Publish } else { Kind::Play };
            let mut row = row(n, kind, "live/a", "192.0.2.1:1000");
            // The publisher has more waiting than anybody, and most viewers nothing.
            row.queue_bytes = if n == 99 { 1 << 40 } else { n.saturating_sub(95) };
            view.sessions.insert(row.facts.id, row);
        }
        used.store(960, Ordering::Relaxed);
        assert_eq!(desk.step(start, &mut view).shed, [id(98), id(97)]);
        view.sessions.remove(&id(98));
        view.sessions.remove(&id(97));
        used.store(900, Ordering::Relaxed);
        assert_eq!(desk.step(start + SAMPLE_EVERY, &mut view).shed, [id(96)], "who keeps up is not let go");
        used.store(899, Ordering::Relaxed);
        assert_eq!(desk.step(start + 2 * SAMPLE_EVERY, &mut view).shed, []);
        assert_eq!(view.load.state, LoadState::Red, "left too early");
    }

    #[test]
    fn load_orange_sheds_nobody() {
        let start = Instant::now();
        let (mut desk, used) = desk(start);
        let mut view = view(start);
        let mut slow = row(1, Kind::Play, "live/a", "192.0.2.1:1000");
        slow.queue_bytes = 1_000;
        view.sessions.insert(id(1), slow);
        used.store(949, Ordering::Relaxed);
        assert_eq!(desk.step(start, &mut view).shed, []);
    }
}
