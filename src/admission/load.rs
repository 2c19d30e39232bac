//! How hard pressed the server is, and what that changes.
//!
//! Everything here is arithmetic: who measures is elsewhere, and so is who acts.

use std::time::{Duration, Instant};

use crate::names::Kind;
use crate::session::{CloseReason, Reason};

/// How hard pressed the server is. Each state does what the ones before it do, and more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LoadState {
    /// As it should be.
    #[default]
    Green,
    /// Deadlines and idle times shrink, caches halve.
    Yellow,
    /// No new viewers, little patience with strange peers, no lists in the API.
    Orange,
    /// No new publishers and no new connections; the slowest viewers are let go.
    Red,
}

impl LoadState {
    /// All of them, the calmest first.
    pub const ALL: [Self; 4] = [Self::Green, Self::Yellow, Self::Orange, Self::Red];

    /// The name used in APIs, logs and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Yellow => "yellow",
            Self::Orange => "orange",
            Self::Red => "red",
        }
    }

    /// 0 for green to 3 for red.
    #[must_use]
    pub fn level(self) -> u8 {
        self as u8
    }

    /// Why a newcomer who wants this is refused, if it is. Viewers are shed before publishers.
    #[must_use]
    pub fn refuses(self, kind: Kind) -> Option<CloseReason> {
        let from = match kind {
            Kind::Play | Kind::Push => Self::Orange,
            Kind::Publish | Kind::Ingest => Self::Red,
        };
        (self >= from).then(|| CloseReason::with(Reason::Overload, self.as_str()))
    }

    /// True while new connections are taken.
    #[must_use]
    pub fn accepts(self) -> bool {
        self < Self::Red
    }

    /// True while the API answers with lists.
    #[must_use]
    pub fn lists(self) -> bool {
        self < Self::Orange
    }

    /// Glitches that a connection may have on its score, where it otherwise may have `most`.
    #[must_use]
    pub fn glitches_max(self, most: u32) -> u32 {
        if self >= Self::Orange { most.min(PRESSED_GLITCHES_MAX) } else { most }
    }

    fn enters_at(self) -> Pressure {
        match self {
            Self::Green => Pressure(0),
            Self::Yellow => Pressure(700),
            Self::Orange => Pressure(850),
            Self::Red => Pressure(950),
        }
    }

    fn calmer(self) -> Self {
        match self {
            Self::Green | Self::Yellow => Self::Green,
            Self::Orange => Self::Yellow,
            Self::Red => Self::Orange,
        }
    }
}

/// The glitch score of a server that is short of CPU.
const PRESSED_GLITCHES_MAX: u32 = 8;

/// How much of what there is is used, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pressure(pub u32);

/// What pressure is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in use and how much may be.
    pub memory: (u64, u64),
    /// Open descriptors and how many may be.
    pub descriptors: (u64, u64),
    /// How late the latest shard is for its ticks, 99 times of 100.
    pub lag: Duration,
    /// The lateness that is red; a quarter of it is orange and a tenth yellow. Zero leaves lateness out.
    pub lag_max: Duration,
}

impl Pressure {
    /// The worst of memory, descriptors and lateness.
    #[must_use]
    pub fn of(usage: &Usage) -> Self {
        let share = |(used, most): (u64, u64)| {
            if most == 0 { 0 } else { u32::try_from(u128::from(used) * 1_000 / u128::from(most)).unwrap_or(u32::MAX) }
        };
        Self(share(usage.memory).max(share(usage.descriptors)).max(Self::of_lag(usage.lag, usage.lag_max)))
    }

    /// Lateness on the scale of the other two: a straight line between the thresholds.
    fn of_lag(lag: Duration, lag_max: Duration) -> u32 {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (lag, most) = (micros(lag), micros(lag_max));
        if most == 0 {
            return 0;
        }
        let marks = [(0, 0), (most / 10, 700), (most / 4, 850), (most, 950), (most.saturating_mul(2), 1_000)];
        for pair in marks.windows(2) {
            if let [(from, low), (to, high)] = *pair
                && lag < to
            {
                let part = (lag - from) * (high - low) / (to - from).max(1);
                return u32::try_from(low + part).unwrap_or(1_000);
            }
        }
        1_000
    }

    /// In red, viewers are let go until the pressure is below this.
    pub const RELIEVED: Self = Self(900);
}

/// How far below its threshold a state is left.
const MARGIN: u32 = 50;
/// For how long the pressure must have been there.
const CALM_FOR: Duration = Duration::from_secs(5);

/// What everybody is told: the state, and how much is left of deadlines and idle times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The state.
    pub state: LoadState,
    /// What is left of deadlines and idle times, in percent: 100 in green, 25 at the worst.
    pub patience_percent: u32,
}

impl Default for Load {
    fn default() -> Self {
        Self { state: LoadState::Green, patience_percent: 100 }
    }
}

impl Load {
    /// What is left of a deadline or idle time.
    #[must_use]
    pub fn patience(self, whole: Duration) -> Duration {
        if self.patience_percent >= 100 { whole } else { whole.saturating_mul(self.patience_percent) / 100 }
    }
}

/// The state machine. A state is entered at once and left slowly: the pressure must have been five points below its
/// threshold for five seconds.
#[derive(Clone, Debug, Default)]
pub struct LoadWatch {
    load: Load,
    /// Since when the pressure has been below yellow, orange and red, by their margins.
    calm_since: [Option<Instant>; 3],
}

impl LoadWatch {
    /// Where things stand.
    #[must_use]
    pub fn load(&self) -> Load {
        self.load
    }

    /// Takes a measurement. Returns what everybody is to be told, if that changed.
    pub fn sample(&mut self, now: Instant, pressure: Pressure) -> Option<Load> {
        let mut state = self.load.state;
        for (above, calm_since) in LoadState::ALL.into_iter().skip(1).zip(&mut self.calm_since) {
            if pressure >= above.enters_at() {
                state = state.max(above);
            }
            if pressure.0 < above.enters_at().0 - MARGIN {
                calm_since.get_or_insert(now);
            } else {
                *calm_since = None;
            }
        }
        while let Some(since) = self.calm_since.get(usize::from(state.level()).wrapping_sub(1)).copied().flatten() {
            if now.saturating_duration_since(since) < CALM_FOR {
                break;
            }
            state = state.calmer();
        }
        let load = Load { state, patience_percent: patience_percent(state, pressure) };
        let changed = load != self.load;
        self.load = load;
        changed.then_some(load)
    }
}

/// A straight line from all of it where yellow begins to a quarter where red does, in steps of five so that not every
/// tremor is news.
fn patience_percent(state: LoadState, pressure: Pressure) -> u32 {
    if state == LoadState::Green {
        return 100;
    }
    let (from, to) = (LoadState::Yellow.enters_at().0, LoadState::Red.enters_at().0);
    let beyond = pressure.0.clamp(from, to) - from;
    (100 - beyond * 75 / (to - from)) / 5 * 5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(watch: &mut LoadWatch, from: Instant, samples: &[(u64, u32)]) -> Vec<LoadState> {
        samples
            .iter()
            .map(|(ms, pressure)| {
                watch.sample(from + Duration::from_millis(*ms), Pressure(*pressure));
                watch.load().state
            })
            .collect()
    }

    #[test]
    fn load_states_are_entered_at_once() {
        use LoadState::{Green, Orange, Red, Yellow};
        let now = Instant::now();
        for (pressure, state) in [
            (0, Green),
            (699, Green),
            (700, Yellow),
            (849, Yellow),
            (850, Orange),
            (949, Orange),
            (950, Red),
            (u32::MAX, Red),
        ] {
            let mut watch = LoadWatch::default();
            assert_eq!(states(&mut watch, now, &[(0, pressure)]), [state], "{pressure}");
        }
    }

    #[test]
    fn load_states_are_left_after_five_seconds_five_points_below() {
        use LoadState::{Green, Orange, Red, Yellow};
        let now = Instant::now();
        let mut watch = LoadWatch::default();
        // Above the margin for as long as you like; then below it, interrupted once.
        assert_eq!(states(&mut watch, now, &[(0, 860), (60_000, 800), (60_250, 799)]), [Orange, Orange, Orange]);
        assert_eq!(states(&mut watch, now, &[(65_000, 799), (65_100, 820), (65_250, 799)]), [Orange; 3]);
        assert_eq!(states(&mut watch, now, &[(70_249, 799), (70_250, 799)]), [Orange, Yellow]);
        // From far above to nothing: every state's time has run all along.
        let mut watch = LoadWatch::default();
        assert_eq!(states(&mut watch, now, &[(0, 1_000), (100, 10), (5_099, 10), (5_100, 10)]), [Red, Red, Red, Green]);
        // Red is left for what the pressure still is.
        let mut watch = LoadWatch::default();
        assert_eq!(states(&mut watch, now, &[(0, 990), (100, 820), (5_100, 820)]), [Red, Red, Orange]);
    }

    #[test]
    fn load_pressure_is_the_worst_of_three() {
        let lag_max = Duration::from_millis(200);
        let usage = Usage { lag_max, ..Usage::default() };
        let of = |usage| Pressure::of(&usage).0;
        assert_eq!(of(usage), 0);
        assert_eq!(of(Usage { memory: (70, 100), descriptors: (50, 1_000), ..usage }), 700);
        assert_eq!(of(Usage { memory: (70, 100), descriptors: (855, 1_000), ..usage }), 855);
        for (ms, points) in
            [(0, 0), (10, 350), (20, 700), (35, 775), (50, 850), (125, 900), (200, 950), (10_000, 1_000)]
        {
            assert_eq!(of(Usage { lag: Duration::from_millis(ms), ..usage }), points, "{ms}");
        }
        // Lateness may be left out, and what has no limit presses nobody.
        assert_eq!(of(Usage { lag: Duration::from_secs(9), ..Usage::default() }), 0);
        assert_eq!(of(Usage { memory: (u64::MAX, 0), ..usage }), 0);
    }

    #[test]
    fn load_yellow_scales_deadlines_down_to_a_quarter() {
        let now = Instant::now();
        let mut watch = LoadWatch::default();
        let mut patience = |pressure| {
            watch.sample(now, Pressure(pressure));
            watch.load().patience(Duration::from_secs(20))
        };
        assert_eq!(patience(690), Duration::from_secs(20));
        assert_eq!(patience(700), Duration::from_secs(20));
        assert_eq!(patience(825), Duration::from_secs(12));
        assert_eq!(patience(950), Duration::from_secs(5));
        assert_eq!(patience(1_000), Duration::from_secs(5));
    }

    #[test]
    fn load_is_told_when_it_changes_and_not_otherwise() {
        let now = Instant::now();
        let mut watch = LoadWatch::default();
        assert_eq!(watch.sample(now, Pressure(100)), None);
        let told = watch.sample(now, Pressure(710)).unwrap();
        assert_eq!((told.state, told.patience_percent), (LoadState::Yellow, 95));
        assert_eq!(watch.sample(now, Pressure(711)), None);
        assert_eq!(watch.sample(now, Pressure(870)).unwrap().state, LoadState::Orange);
    }

    #[test]
    fn load_sheds_viewers_before_publishers() {
        use LoadState::{Green, Orange, Red, Yellow};
        let refused = |state: LoadState| Kind::ALL.map(|kind| state.refuses(kind).is_some());
        // Publish, play, ingest, push.
        assert_eq!(Kind::ALL, [Kind::Publish, Kind::Play, Kind::Ingest, Kind::Push]);
        assert_eq!(refused(Green), [false; 4]);
        assert_eq!(refused(Yellow), [false; 4]);
        assert_eq!(refused(Orange), [false, true, false, true]);
        assert_eq!(refused(Red), [true; 4]);
        assert_eq!(Red.refuses(Kind::Publish).unwrap().to_string(), "overload:red");
        assert_eq!([Green, Yellow, Orange, Red].map(LoadState::accepts), [true, true, true, false]);
        assert_eq!([Green, Yellow, Orange, Red].map(LoadState::lists), [true, true, false, false]);
        assert_eq!([Green, Yellow, Orange, Red].map(|state| state.glitches_max(32)), [32, 32, 8, 8]);
        assert_eq!(Red.glitches_max(4), 4);
    }
}
