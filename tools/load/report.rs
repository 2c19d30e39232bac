//! What a run prints: a line every two seconds, and at the end a table or JSON.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// Microseconds up to two minutes, three digits.
pub struct Latency(Histogram<u64>);

impl Latency {
    const MAX_US: u64 = 120_000_000;

    /// Nothing recorded yet.
    pub fn new() -> Self {
        Self(
            Histogram::new_with_bounds(1, Self::MAX_US, 3).expect("the bounds are constants that hdrhistogram accepts"),
        )
    }

    /// Adds a value; what is beyond the bounds counts as the bound.
    pub fn record_ns(&mut self, ns: u64) {
        self.0.saturating_record((ns / 1_000).max(1));
    }

    /// Adds a value.
    pub fn record(&mut self, time: Duration) {
        self.record_ns(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds the time from one stage to the next, where both were reached.
    pub fn record_between(&mut self, from: Option<Instant>, to: Option<Instant>) {
        if let (Some(from), Some(to)) = (from, to) {
            self.record(to.saturating_duration_since(from));
        }
    }

    /// Values recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// A percentile in milliseconds.
    pub fn ms_at(&self, percentile: f64) -> f64 {
        self.0.value_at_percentile(percentile) as f64 / 1_000.0
    }

    /// The usual percentiles in milliseconds.
    pub fn to_json(&self) -> Value {
        json!({
            "count": self.count(),
            "mean": round(self.0.mean() / 1_000.0),
            "p50": self.ms_at(50.0),
            "p90": self.ms_at(90.0),
            "p99": self.ms_at(99.0),
            "p999": self.ms_at(99.9),
            "max": self.0.max() as f64 / 1_000.0,
        })
    }
}

/// Three digits after the point are all that a table needs.
pub fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// Counts by text, for failures that should be few and of few kinds.
#[derive(Default)]
pub struct Tally(std::collections::BTreeMap<String, u64>);

impl Tally {
    /// Counts one.
    pub fn add(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    /// All of them together.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// By text.
    pub fn to_json(&self) -> Value {
        json!(self.0)
    }
}

/// The progress line.
pub struct Progress {
    every: Duration,
    next: Instant,
    began: Instant,
    quiet: bool,
}

impl Progress {
    /// A line each two seconds from now on.
    pub fn new(quiet: bool) -> Self {
        let now = Instant::now();
        let every = Duration::from_secs(2);
        Self { every, next: now + every, began: now, quiet }
    }

    /// Prints `line` when one is due.
    pub fn tick(&mut self, now: Instant, line: impl FnOnce() -> String) {
        if now >= self.next {
            self.next = now + self.every;
            if !self.quiet {
                eprintln!("{:6.1} s  {}", now.duration_since(self.began).as_secs_f64(), line());
            }
        }
    }
}

/// Prints the result of a run as JSON, or as lines of `name  value`.
pub fn print(result: &Value, as_json: bool) {
    if as_json {
        println!("{result}");
    } else if let Value::Object(fields) = result {
        let mut text = String::new();
        lines(&mut text, "", fields);
        print!("{text}");
    }
}

fn lines(text: &mut String, prefix: &str, fields: &Map<String, Value>) {
    for (key, value) in fields {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Object(latency) if latency.contains_key("p99") => {
                let of = |key| latency.get(key).and_then(Value::as_f64).unwrap_or_default();
                let _ = writeln!(
                    text,
                    "{name:<28} p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3}  (n = {})",
                    of("p50"),
                    of("p90"),
                    of("p99"),
                    of("p999"),
                    of("max"),
                    of("count"),
                );
            }
            Value::Object(inner) => lines(text, &name, inner),
            Value::Array(items) if items.len() > 20 => {
                let _ = writeln!(text, "{name:<28} ({} entries; see --json)", items.len());
            }
            other => {
                let _ = writeln!(text, "{name:<28} {other}");
            }
        }
    }
}

/// How busy this thread was, and how long one turn of its loop took: a generator near 1.0 measures itself.
pub struct LoopGauge {
    began: Instant,
    cpu: Duration,
    turn_began: Instant,
    turn_max: Duration,
}

impl LoopGauge {
    /// Begins to measure the calling thread.
    pub fn start() -> Self {
        let now = Instant::now();
        Self { began: now, cpu: crate::net::thread_cpu(), turn_began: now, turn_max: Duration::ZERO }
    }

    /// The poll returned: a turn begins.
    pub fn on_turn(&mut self, now: Instant) {
        self.turn_began = now;
    }

    /// The turn's work is done.
    pub fn on_turn_end(&mut self, now: Instant) {
        self.turn_max = self.turn_max.max(now.duration_since(self.turn_began));
    }

    /// Share of a core and the longest turn in milliseconds.
    pub fn to_json(&self) -> Value {
        let cpu = crate::net::thread_cpu().saturating_sub(self.cpu).as_secs_f64();
        let wall = self.began.elapsed().as_secs_f64().max(1e-9);
        json!({
            "cpu_s": round(cpu),
            "core_share": round(cpu / wall),
            "turn_max_ms": round(self.turn_max.as_secs_f64() * 1_000.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_milliseconds() {
        let mut latency = Latency::new();
        for ms in 1..=100 {
            latency.record(Duration::from_millis(ms));
        }
        latency.record(Duration::from_secs(100_000));
        assert!((latency.ms_at(50.0) - 51.0).abs() < 0.2, "{}", latency.ms_at(50.0));
        assert_eq!(latency.count(), 101);
    }
}
