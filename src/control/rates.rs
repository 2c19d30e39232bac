//! Bits a second over 1, 10 and 30 seconds, from counter differences.
//!
//! Shards report only sessions whose numbers changed, a few times a second. Each difference is spread evenly
//! over the time since the shard's previous report, into three rings of buckets, one for each window. A window is
//! the sum of its buckets, the oldest taken in part, so that the result neither jumps with the phase of the
//! reports nor forgets bytes. A session costs 240 bytes and no allocation of its own.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::control::view::Rates;
use crate::names::SessionId;

/// One ring: `BUCKETS` buckets of `WIDTH_MS`; the window is one bucket shorter than the ring.
#[derive(Clone, Copy)]
struct Ring<const BUCKETS: usize, const WIDTH_MS: u64> {
    /// Bytes received and sent. 32 bits hold 11 Gbit/s for the widest bucket; beyond that a rate saturates.
    buckets: [[u32; 2]; BUCKETS],
}

impl<const BUCKETS: usize, const WIDTH_MS: u64> Ring<BUCKETS, WIDTH_MS> {
    const WINDOW_MS: u64 = WIDTH_MS * (BUCKETS as u64 - 1);

    const fn new() -> Self {
        Self { buckets: [[0; 2]; BUCKETS] }
    }

    fn bucket(&mut self, number: u64) -> &mut [u32; 2] {
        #[allow(clippy::cast_possible_truncation)] // A remainder below BUCKETS.
        let index = (number % BUCKETS as u64) as usize;
        &mut self.buckets[index]
    }

    /// Empties the buckets that time has moved into.
    fn advance(&mut self, from_ms: u64, to_ms: u64) {
        let (from, to) = (from_ms / WIDTH_MS, to_ms / WIDTH_MS);
        for number in (from + 1).max(to.saturating_sub(BUCKETS as u64 - 1))..=to {
            *self.bucket(number) = [0; 2];
        }
    }

    /// Spreads bytes over (`from_ms`, `to_ms`]; the ring stands at `to_ms`. What is older than the ring is left out.
    fn add(&mut self, from_ms: u64, to_ms: u64, bytes: [u64; 2]) {
        let newest = to_ms / WIDTH_MS;
        let oldest = newest.saturating_sub(BUCKETS as u64 - 1);
        let length = to_ms.saturating_sub(from_ms);
        if length == 0 {
            add_to(self.bucket(newest), bytes);
            return;
        }
        // Shares are differences of running sums, so that they add up to the whole whatever the rounding.
        let share = |until_ms: u64, bytes: u64| {
            let part = u128::from(bytes) * u128::from(until_ms.clamp(from_ms, to_ms) - from_ms) / u128::from(length);
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        for number in oldest.max(from_ms / WIDTH_MS)..=newest {
            let (start, end) = (number * WIDTH_MS, (number + 1) * WIDTH_MS);
            add_to(self.bucket(number), bytes.map(|bytes| share(end, bytes) - share(start, bytes)));
        }
    }

    /// Bits a second over the window that ends at `now_ms`, where the ring stands.
    #[allow(clippy::cast_precision_loss)] // Sums stay far below 2^52.
    fn bps(&self, now_ms: u64, age_ms: u64) -> [f64; 2] {
        let newest = now_ms / WIDTH_MS;
        let oldest = newest.checked_sub(BUCKETS as u64 - 1);
        let oldest_part = 1.0 - (now_ms % WIDTH_MS) as f64 / WIDTH_MS as f64;
        let mut sums = [0.0; 2];
        for (index, bucket) in (0u64..).zip(&self.buckets) {
            let part = if oldest.is_some_and(|oldest| oldest % BUCKETS as u64 == index) { oldest_part } else { 1.0 };
            for (sum, bytes) in sums.iter_mut().zip(bucket) {
                *sum += f64::from(*bytes) * part;
            }
        }
        // A session younger than the window is judged by its life, but by no less than a second: the burst with
        // which a player is filled at its start is not its rate.
        let over_ms = Self::WINDOW_MS.min(age_ms.max(1_000)) as f64;
        sums.map(|bytes| bytes * 8_000.0 / over_ms)
    }
}

fn add_to(bucket: &mut [u32; 2], bytes: [u64; 2]) {
    for (to, from) in bucket.iter_mut().zip(bytes) {
        *to = to.saturating_add(u32::try_from(from).unwrap_or(u32::MAX));
    }
}

/// One session's recent past.
struct Meter {
    born_ms: u64,
    /// Up to when the rings are filled.
    at_ms: u64,
    one: Ring<5, 250>,
    ten: Ring<11, 1_000>,
    thirty: Ring<11, 3_000>,
    /// It stands in the queue of the sweep.
    queued: bool,
}

impl Meter {
    fn new(now_ms: u64) -> Self {
        Self { born_ms: now_ms, at_ms: now_ms, one: Ring::new(), ten: Ring::new(), thirty: Ring::new(), queued: false }
    }

    fn advance(&mut self, to_ms: u64) {
        if to_ms > self.at_ms {
            self.one.advance(self.at_ms, to_ms);
            self.ten.advance(self.at_ms, to_ms);
            self.thirty.advance(self.at_ms, to_ms);
            self.at_ms = to_ms;
        }
    }

    fn rates(&self) -> Rates {
        let age_ms = self.at_ms.saturating_sub(self.born_ms);
        let [one, ten, thirty] =
            [self.one.bps(self.at_ms, age_ms), self.ten.bps(self.at_ms, age_ms), self.thirty.bps(self.at_ms, age_ms)];
        Rates { rx_bps: [one[0], ten[0], thirty[0]], tx_bps: [one[1], ten[1], thirty[1]] }
    }
}

/// How long after its last change a session is looked at again, and then how often until its rates are zero.
const SWEEP_EVERY_MS: u64 = 500;

/// The meters of all running sessions.
pub struct Meters {
    origin: Instant,
    running: HashMap<SessionId, Meter>,
    /// Sessions whose rates are not zero, each once, by when to look at them again. That is always the same time
    /// after now, so the queue is in order by itself.
    queue: VecDeque<(u64, SessionId)>,
}

impl Meters {
    /// No meters; times are counted from `origin`.
    #[must_use]
    pub fn new(origin: Instant) -> Self {
        Self { origin, running: HashMap::new(), queue: VecDeque::new() }
    }

    /// Notes that `rx_bytes` and `tx_bytes` passed between two instants, and returns the rates at the later.
    pub fn record(&mut self, id: SessionId, from: Instant, to: Instant, rx_bytes: u64, tx_bytes: u64) -> Rates {
        let (from_ms, to_ms) = (self.ms(from), self.ms(to));
        let meter = self.running.entry(id).or_insert_with(|| Meter::new(from_ms.min(to_ms)));
        meter.advance(to_ms);
        // A report that comes late, after the sweep has moved the meter on, is put where the meter stands.
        let to_ms = meter.at_ms;
        meter.one.add(from_ms, to_ms, [rx_bytes, tx_bytes]);
        meter.ten.add(from_ms, to_ms, [rx_bytes, tx_bytes]);
        meter.thirty.add(from_ms, to_ms, [rx_bytes, tx_bytes]);
        if !meter.queued {
            meter.queued = true;
            self.queue.push_back((to_ms + SWEEP_EVERY_MS, id));
        }
        meter.rates()
    }

    /// Forgets a session.
    pub fn remove(&mut self, id: SessionId) {
        self.running.remove(&id);
    }

    /// Lets the rates of silent sessions fall: at most `budget` of those that are due. Returns true when more
    /// are due.
    pub fn sweep(&mut self, now: Instant, budget: usize, mut changed: impl FnMut(SessionId, Rates)) -> bool {
        let now_ms = self.ms(now);
        for _ in 0..budget {
            let Some((due_ms, id)) = self.queue.front().copied() else { return false };
            if due_ms > now_ms {
                return false;
            }
            self.queue.pop_front();
            let Some(meter) = self.running.get_mut(&id) else { continue };
            if now_ms.saturating_sub(meter.at_ms) >= SWEEP_EVERY_MS {
                meter.advance(now_ms);
                let rates = meter.rates();
                changed(id, rates);
                if rates == Rates::default() {
                    meter.queued = false;
                    continue;
                }
            }
            self.queue.push_back((now_ms + SWEEP_EVERY_MS, id));
        }
        true
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX)
    }
}

/// The oldest a report's interval may be taken to be: what a shard reports after a longer silence of its own
/// still came within the widest window.
pub(super) const INTERVAL_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    // Zero is exact: nothing was ever added.
    #![allow(clippy::float_cmp)]

    use super::*;

    const MIB: u64 = 1 << 20;

    fn id(n: u8) -> SessionId {
        SessionId::new(1, [n; 10])
    }

    fn near(value: f64, wanted: f64, tolerance: f64) -> bool {
        (value - wanted).abs() <= wanted * tolerance
    }

    #[test]
    fn a_steady_stream_shows_its_rate_in_every_window() {
        let origin = Instant::now();
        let mut meters = Meters::new(origin);
        let mut rates = Rates::default();
        let mut last = origin;
        // 2 Mbit/s reported about every 250 ms, never exactly.
        for step in 1..=200u64 {
            let at = origin + Duration::from_millis(step * 250 + step * 7 % 40);
            let bytes = u64::try_from((at - last).as_millis()).unwrap() * 250;
            rates = meters.record(id(1), last, at, 0, bytes);
            last = at;
        }
        for bps in rates.tx_bps {
            assert!(near(bps, 2e6, 0.01), "{rates:?}");
        }
        assert_eq!(rates.rx_bps, [0.0; 3]);
    }

    #[test]
    fn a_young_session_is_judged_by_its_life() {
        let origin = Instant::now();
        let mut meters = Meters::new(origin);
        let mut rates = Rates::default();
        for step in 0..8u32 {
            let from = origin + Duration::from_millis(250) * step;
            rates = meters.record(id(1), from, from + Duration::from_millis(250), 25_000, 0);
        }
        for bps in rates.rx_bps {
            assert!(near(bps, 800e3, 0.02), "{rates:?}");
        }
    }

    #[test]
    fn silence_decays_to_zero_without_any_report() {
        let origin = Instant::now();
        let mut meters = Meters::new(origin);
        meters.record(id(1), origin, origin + Duration::from_secs(1), MIB, MIB);
        let mut seen = Rates::default();
        let mut history = Vec::new();
        for step in 0..80u64 {
            let now = origin + Duration::from_secs(1) + Duration::from_millis(step * 500);
            meters.sweep(now, 10, |_, rates| seen = rates);
            history.push(seen);
        }
        assert!(history.iter().any(|rates| rates.tx_bps[0] == 0.0 && rates.tx_bps[1] > 0.0), "1 s falls first");
        assert!(history.iter().any(|rates| rates.tx_bps[1] == 0.0 && rates.tx_bps[2] > 0.0), "then 10 s");
        assert_eq!(seen, Rates::default());
        assert!(meters.queue.is_empty(), "a silent session costs nothing");
    }

    #[test]
    fn bytes_in_the_rings_are_the_bytes_reported() {
        let origin = Instant::now();
        let mut meters = Meters::new(origin);
        let mut last = origin;
        let mut sum = 0;
        for step in 1..=20u64 {
            let at = origin + Duration::from_millis(step * 333);
            meters.record(id(1), last, at, step * 1_001 + 7, 0);
            sum += step * 1_001 + 7;
            last = at;
        }
        let meter = &meters.running[&id(1)];
        let in_ten: u64 = meter.ten.buckets.iter().map(|bucket| u64::from(bucket[0])).sum();
        let in_thirty: u64 = meter.thirty.buckets.iter().map(|bucket| u64::from(bucket[0])).sum();
        assert_eq!((in_ten, in_thirty), (sum, sum));
    }

    #[test]
    fn a_meter_is_small() {
        assert!(size_of::<Meter>() <= 248, "{}", size_of::<Meter>());
    }

    #[test]
    fn the_sweep_keeps_to_its_budget() {
        let origin = Instant::now();
        let mut meters = Meters::new(origin);
        for n in 0..100 {
            meters.record(id(n), origin, origin + Duration::from_millis(250), 1, 1);
        }
        let mut visited = 0;
        assert!(meters.sweep(origin + Duration::from_secs(2), 30, |_, _| visited += 1));
        assert_eq!(visited, 30);
        while meters.sweep(origin + Duration::from_secs(2), 30, |_, _| visited += 1) {}
        assert_eq!(visited, 100);
    }

    #[test]
    fn a_shard_that_was_stuck_does_not_look_like_a_burst() {
        let origin = Instant::now();
        let mut meters = Meters::new(origin);
        // Ten seconds of 1 Mbit/s told at once.
        let rates = meters.record(id(1), origin, origin + Duration::from_secs(10), 1_250_000, 0);
        assert!(near(rates.rx_bps[0], 1e6, 0.01), "{rates:?}");
        assert!(near(rates.rx_bps[1], 1e6, 0.01), "{rates:?}");
    }
}
