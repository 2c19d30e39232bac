//! The pump: hands new frames to players, merged by load.
//!
//! An idle shard writes each frame at once. As the share of the core that this would take grows, the pump waits before
//! each round, so that one write carries all that has become due for a player: half the writes at twice the wait.
//! The wait is bounded by `latency_max`, and where one core would not do without merging by up to `latency_max_busy`.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use glommio::timer::sleep;

use crate::shard::connection::Write;
use crate::shard::{Phase, Settings, Shard};
use crate::stream::Subscriber;

/// Players served before the executor is asked whether others are due. A step of a write is done for all of them before the
/// next step: as many as whose places, sessions and sockets stay in the second-level cache together.
const PLAYERS_PER_SLICE: usize = 32;
/// Rounds at least this far apart read the publishers as well.
const REST_MIN: Duration = Duration::from_millis(5);
/// A wait shorter than this costs more than it merges.
const WAIT_MIN: Duration = Duration::from_micros(200);

/// Runs for the life of the shard.
pub async fn run(shard: Rc<Shard>) {
    let mut load = Load::new(Instant::now());
    let (mut players, mut ends, mut writes) = (Vec::new(), Vec::new(), Vec::new());
    let mut last_round_at = Instant::now();
    while shard.state.get() != Phase::Stopped {
        wait_for_frames(&shard).await;
        let deliveries = shard.core.borrow_mut().streams.take_deliveries();
        load.on_deliveries(Instant::now(), deliveries);
        let least = load.wait(&shard.settings.borrow());
        shard.reads_in_rounds.set(least >= REST_MIN);
        let due = last_round_at + least;
        let wait = due.saturating_duration_since(Instant::now());
        if wait >= WAIT_MIN {
            sleep(wait).await;
        }
        last_round_at = Instant::now();
        shard.read_resting(last_round_at);
        let deliveries = {
            let mut core = shard.core.borrow_mut();
            players.clear();
            ends.clear();
            core.streams.take_dirty(&mut players, &mut ends);
            core.streams.take_deliveries()
        };
        load.on_deliveries(last_round_at, deliveries);
        shard.wake_paced();
        let busy = round(&shard, &players, &ends, &mut writes).await;
        load.on_round(players.len(), busy);
        let mut totals = shard.totals.borrow_mut();
        totals.rounds += 1;
    }
}

async fn wait_for_frames(shard: &Shard) {
    poll_fn(|cx| {
        if shard.has_round() || shard.state.get() == Phase::Stopped {
            return Poll::Ready(());
        }
        *shard.pump_waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
}

/// One write for each player; returns the time it took, others' turns in between left out.
/// `ends` are the ends of the streams among the players: when the last of a stream has its frames, they have been handed
/// out, and how long that took is counted.
async fn round(shard: &Shard, players: &[Subscriber], ends: &[(usize, Instant)], writes: &mut Vec<Write>) -> Duration {
    let mut busy = Duration::ZERO;
    let mut served = 0;
    let mut ends = ends.iter().peekable();
    for slice in players.chunks(PLAYERS_PER_SLICE) {
        let began = Instant::now();
        shard.write_to(slice, began, writes);
        let done_at = Instant::now();
        busy += done_at.saturating_duration_since(began);
        served += slice.len();
        while let Some((_, came_at)) = ends.next_if(|(end, _)| *end <= served) {
            let took = done_at.saturating_duration_since(*came_at).as_micros();
            shard.totals.borrow_mut().fanout.record(u64::try_from(took).unwrap_or(u64::MAX));
        }
        shard.post_outgoing(began);
        glommio::yield_if_needed().await;
    }
    busy
}

impl Shard {
    /// Lets publishers read on that were held back until their frames were handed out.
    fn wake_paced(&self) {
        let mut paced = self.paced.borrow_mut();
        let connections = self.connections.borrow();
        for key in paced.drain(..) {
            if let Some(connection) = connections.get(key) {
                connection.wake();
            }
        }
    }
}

/// What writing each frame by itself would cost, as a share of the core.
struct Load {
    measured_at: Instant,
    deliveries: u64,
    per_second: f64,
    seconds_per_write: f64,
}

/// How long a measurement of deliveries takes.
const MEASURE: Duration = Duration::from_millis(100);
/// What a small write costs until the first round has been measured.
const SECONDS_PER_WRITE: f64 = 5e-6;

impl Load {
    fn new(now: Instant) -> Self {
        Self { measured_at: now, deliveries: 0, per_second: 0.0, seconds_per_write: SECONDS_PER_WRITE }
    }

    fn on_deliveries(&mut self, now: Instant, deliveries: u64) {
        self.deliveries += deliveries;
        let over = now.saturating_duration_since(self.measured_at);
        if over >= MEASURE {
            #[expect(clippy::cast_precision_loss, reason = "a count of a tenth of a second")]
            let rate = self.deliveries as f64 / over.as_secs_f64();
            // Half the weight to the newest tenth of a second: load is followed within a few of them, and a single
            // burst does not make everybody wait.
            self.per_second = f64::midpoint(self.per_second, rate);
            self.deliveries = 0;
            self.measured_at = now;
        }
    }

    fn on_round(&mut self, players: usize, busy: Duration) {
        if players > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a count of connections")]
            let per_write = (busy.as_secs_f64() / players as f64).clamp(1e-6, 20e-6);
            self.seconds_per_write += (per_write - self.seconds_per_write) / 8.0;
        }
    }

    /// The least time between the beginnings of two rounds.
    fn wait(&self, settings: &Settings) -> Duration {
        let share = self.per_second * self.seconds_per_write;
        let factor = (share * f64::from(settings.merge_factor)).clamp(0.0, 1.0);
        let more = settings.latency_max_busy.saturating_sub(settings.latency_max);
        (settings.latency_max + more.mul_f64((share - 1.0).clamp(0.0, 1.0))).mul_f64(factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(players: u64, frames_per_second: u64) -> Load {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        for _ in 0..40 {
            now += MEASURE;
            load.on_deliveries(now, players * frames_per_second / 10);
        }
        load
    }

    #[test]
    fn an_idle_shard_does_not_wait() {
        assert!(load(1, 70).wait(&Settings::default()) < WAIT_MIN);
    }

    #[test]
    fn a_busy_shard_waits_for_as_long_as_it_may() {
        let settings = Settings::default();
        assert_eq!(load(2_000, 70).wait(&settings), settings.latency_max);
        let half = load(250, 70).wait(&settings);
        assert!(half > settings.latency_max / 4 && half < settings.latency_max, "{half:?}");
    }

    #[test]
    fn who_would_need_more_than_its_core_waits_longer_and_twice_as_long_at_most() {
        let settings = Settings::default();
        let more = load(4_000, 70).wait(&settings);
        assert!(more > settings.latency_max && more < settings.latency_max_busy, "{more:?}");
        assert_eq!(load(10_000, 70).wait(&settings), settings.latency_max_busy);
        let strict = Settings { latency_max_busy: Duration::ZERO, ..settings };
        assert_eq!(load(10_000, 70).wait(&strict), strict.latency_max);
    }

    #[test]
    fn merging_can_be_turned_off() {
        let settings = Settings { merge_factor: 0, ..Settings::default() };
        assert_eq!(load(4_000, 70).wait(&settings), Duration::ZERO);
    }
}
