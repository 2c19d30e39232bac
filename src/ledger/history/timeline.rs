//! How many were there, and how much they moved, over time.

use std::ops::ControlFlow;

use crate::ledger::history::life::Span;
use crate::ledger::history::row::NARROW;
use crate::ledger::history::sweep::{Arrivals, Sweep};
use crate::ledger::history::walk::Direction;
use crate::ledger::history::{Error, Filter, Reader};

/// The most points; with smaller buckets there would be more, and they are made larger.
pub const BUCKETS_MAX: u64 = 2_000;

/// Binary digits behind the point of a byte.
const FRACTION: u32 = 20;

/// What is drawn.
#[derive(Clone, Debug)]
pub struct TimelineQuery {
    /// Which sessions. Its range is that of `from_ms` and `to_ms`.
    pub filter: Filter,
    /// The first moment.
    pub from_ms: u64,
    /// The moment after the last.
    pub to_ms: u64,
    /// The length of a bucket.
    pub bucket_ms: u64,
    /// Until when sessions that still run have lasted.
    pub now_ms: u64,
}

/// The line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// The length of a bucket. The last may be shorter.
    pub bucket_ms: u64,
    /// One for each bucket, also for those in which nobody was there.
    pub points: Vec<Point>,
}

/// What was in one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Its first moment.
    pub from_ms: u64,
    /// Its length.
    pub length_ms: u64,
    /// The most that were there at once.
    pub peak: u64,
    /// The time that all were there, together; over the length it is how many were there on average.
    pub there_ms: u64,
    /// Sessions that opened.
    pub opened: u64,
    /// Sessions that ended.
    pub closed: u64,
    /// Bytes received. Each session's are spread evenly over its time.
    pub rx_bytes: u64,
    /// Bytes sent, as those received.
    pub tx_bytes: u64,
}

impl Reader {
    /// Draws the line.
    ///
    /// # Errors
    /// When it takes too long, or a file cannot be read.
    pub fn timeline(&self, query: &TimelineQuery) -> Result<Timeline, Error> {
        let range = Span { from: query.from_ms, to: query.to_ms.max(query.from_ms) };
        let bucket_ms = query.bucket_ms.max(range.ms().div_ceil(BUCKETS_MAX)).max(1);
        let mut drawing = Drawing::new(range, bucket_ms);
        if range.ms() > 0 {
            let filter = Filter { from_ms: Some(range.from), to_ms: Some(range.to), ..query.filter.clone() };
            self.walk(&filter, Direction::Ascending, None, NARROW, &mut |sight, meant| {
                if !meant {
                    return Ok(ControlFlow::Continue(()));
                }
                let life = sight.life()?;
                drawing.count(life.opened_ms, |point| point.opened += 1);
                if let Some(closed) = life.closed_ms {
                    drawing.count(closed.max(life.opened_ms), |point| point.closed += 1);
                }
                let whole = life.whole(query.now_ms);
                drawing.spread(whole, whole.ms(), |edge, ms| edge.there_ms += ms, |step| &mut step.there);
                let (moved, rx, tx) = (life.counted(), sight.rx_bytes()?, sight.tx_bytes()?);
                drawing.spread(moved, rx, |point, bytes| point.rx_bytes += bytes, |step| &mut step.rx);
                drawing.spread(moved, tx, |point, bytes| point.tx_bytes += bytes, |step| &mut step.tx);
                let id_ms = u64::try_from(sight.id()? >> 80).unwrap_or(0);
                drawing.arrive(id_ms, whole.at_least_a_moment().within(range));
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(Timeline { bucket_ms, points: drawing.finish() })
    }
}

/// The line while it is drawn.
struct Drawing {
    range: Span,
    bucket_ms: u64,
    points: Vec<Point>,
    /// By how much what every whole bucket gets grows or shrinks with each; so a session costs the same however long
    /// it was there.
    steps: Vec<Step>,
    arrivals: Arrivals,
    sweep: Sweep,
}

/// In parts of a byte, or of a millisecond.
#[derive(Clone, Copy, Default)]
struct Step {
    there: i128,
    rx: i128,
    tx: i128,
}

impl Drawing {
    fn new(range: Span, bucket_ms: u64) -> Self {
        let starts = (0..range.ms().div_ceil(bucket_ms)).map(|at| range.from + at * bucket_ms);
        let points: Vec<Point> = starts
            .map(|from_ms| Point { from_ms, length_ms: bucket_ms.min(range.to - from_ms), ..Point::default() })
            .collect();
        let steps = vec![Step::default(); points.len() + 1];
        Self { range, bucket_ms, points, steps, arrivals: Arrivals::default(), sweep: Sweep::default() }
    }

    /// The bucket of a moment in the range.
    fn bucket(&self, at: u64) -> usize {
        usize::try_from(at.saturating_sub(self.range.from) / self.bucket_ms).unwrap_or(usize::MAX)
    }

    fn count(&mut self, at: u64, add: impl FnOnce(&mut Point)) {
        if at < self.range.from || at >= self.range.to {
            return;
        }
        let bucket = self.bucket(at);
        if let Some(point) = self.points.get_mut(bucket) {
            add(point);
        }
    }

    /// Spreads `total` evenly over `span`: exactly into the buckets in which it begins and ends, and the same into
    /// each between.
    fn spread(&mut self, span: Span, total: u64, add: impl Fn(&mut Point, u64), step: impl Fn(&mut Step) -> &mut i128) {
        let part = span.at_least_a_moment().within(self.range);
        if part.ms() == 0 || total == 0 {
            return;
        }
        let (first, last) = (self.bucket(part.from), self.bucket(part.to - 1));
        for at in [Some(first), (last > first).then_some(last)].into_iter().flatten() {
            if let Some(point) = self.points.get_mut(at) {
                let bucket = Span { from: point.from_ms, to: point.from_ms + point.length_ms };
                add(point, span.share(bucket, total));
            }
        }
        if last > first + 1 {
            let each =
                i128::try_from((u128::from(total) * u128::from(self.bucket_ms)) << FRACTION).unwrap_or(i128::MAX);
            let each = each / i128::from(span.ms().max(1));
            for (at, sign) in [(first + 1, 1), (last, -1)] {
                if let Some(found) = self.steps.get_mut(at) {
                    *step(found) += each * sign;
                }
            }
        }
    }

    fn arrive(&mut self, id_ms: u64, span: Span) {
        let Self { range, bucket_ms, points, arrivals, sweep, .. } = self;
        let mut raise = |span: Span, level| raise(points, *range, *bucket_ms, span, level);
        arrivals.push(id_ms, span, 0, &mut |span, _| sweep.arrive(span, &mut raise));
    }

    fn finish(mut self) -> Vec<Point> {
        let Self { range, bucket_ms, points, arrivals, sweep, .. } = &mut self;
        let mut raise = |span: Span, level| raise(points, *range, *bucket_ms, span, level);
        arrivals.finish(&mut |span, _| sweep.arrive(span, &mut raise));
        sweep.finish(&mut raise);
        let mut now = Step::default();
        for (point, step) in self.points.iter_mut().zip(&self.steps) {
            now.there += step.there;
            now.rx += step.rx;
            now.tx += step.tx;
            let whole = |parts: i128| u64::try_from(parts >> FRACTION).unwrap_or(0);
            point.there_ms += whole(now.there);
            point.rx_bytes += whole(now.rx);
            point.tx_bytes += whole(now.tx);
        }
        self.points
    }
}

/// So many were there for so long.
fn raise(points: &mut [Point], range: Span, bucket_ms: u64, span: Span, level: u64) {
    let at = |moment: u64| usize::try_from((moment - range.from) / bucket_ms).unwrap_or(usize::MAX);
    let (first, last) = (at(span.from), at(span.to - 1).min(points.len().saturating_sub(1)));
    for point in points.get_mut(first..=last).unwrap_or_default() {
        point.peak = point.peak.max(level);
    }
}
