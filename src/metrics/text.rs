//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};
use std::time::Duration;

use crate::stdx::histogram::Histogram;

/// What to send the page as.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's numbers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only rise. The name ends in `_total`.
    Counter,
    /// Rise and fall.
    Gauge,
    /// Counts of values by size, added with [`Page::histogram`].
    Histogram,
}

/// A page under way: families one after the other, each followed by its samples.
#[derive(Default)]
pub struct Page {
    text: String,
    name: String,
}

impl Page {
    /// Begins a family. Its name and help are ours; a line break in the help would end the line, so it is escaped.
    pub fn family(&mut self, name: &str, kind: Type, help: &str) {
        debug_assert!(is_name(name), "{name} is not a metric's name");
        debug_assert_eq!(kind == Type::Counter, name.ends_with("_total"), "{name}");
        name.clone_into(&mut self.name);
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        escape(&mut self.text, help, false);
        // Writing to a string cannot fail.
        let _ = write!(self.text, "\n# TYPE {name} {kind}\n");
    }

    /// Adds one sample to the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(&self.name);
        let mut before = '{';
        for (label, value) in labels {
            debug_assert!(is_name(label) && !label.contains(':'), "{label} is not a label's name");
            self.text.push(before);
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(&mut self.text, value, true);
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// Adds a histogram of times to the family. `buckets` gives the upper ends and how many fell below each and not into
    /// an earlier one.
    pub fn buckets(
        &mut self,
        labels: &[(&str, &str)],
        buckets: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum: Duration,
    ) {
        let mut below = 0u64;
        let ends = buckets.map(|(end, count)| {
            below = below.saturating_add(count);
            (end, below)
        });
        self.cumulated(labels, ends, count, sum.as_secs_f64());
    }

    /// Adds a histogram to the family, each value of which is `unit` times what was counted. Every line of it but the last
    /// two has a label more, `le`.
    pub fn histogram<const FIRST: u32>(
        &mut self,
        labels: &[(&str, &str)],
        values: &Histogram<FIRST>,
        unit: impl Fn(u64) -> f64,
    ) {
        let ends = values.buckets().map(|(end, count)| (unit(end), count));
        self.cumulated(labels, ends, values.count(), unit(values.sum()));
    }

    /// The same from how many values were up to each upper end, all of them, and their sum.
    fn cumulated(&mut self, labels: &[(&str, &str)], ends: impl Iterator<Item = (f64, u64)>, count: u64, sum: f64) {
        let name = self.name.clone();
        self.name = format!("{name}_bucket");
        let ends = ends.map(|(end, below)| (end.to_string(), below));
        for (end, below) in ends.chain([("+Inf".to_owned(), count)]) {
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", end.as_str())]).collect();
            self.sample(&labels, below);
        }
        self.name = format!("{name}_sum");
        self.sample(labels, sum);
        self.name = format!("{name}_count");
        self.sample(labels, count);
        self.name = name;
    }

    /// The whole page.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

/// Backslash and line break are escaped everywhere, quotes in labels.
fn escape(to: &mut String, text: &str, is_label: bool) {
    for c in text.chars() {
        match c {
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '"' if is_label => to.push_str("\\\""),
            c => to.push(c),
        }
    }
}

fn is_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
        && name.chars().next().is_some_and(|c| !c.is_ascii_digit())
}
