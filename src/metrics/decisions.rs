//! What was decided about those who asked.

use crate::admission::Counts;
use crate::metrics::text::{Page, Type};

pub(super) fn render(page: &mut Page, counts: &Counts) {
    let Counts { allowed, refused, gone, ended, asked, shared, cached, stale, let_in, failures, redirects, .. } =
        counts;
    page.family("sluicegate_decisions_total", Type::Counter, "Questions that control decided, by what was said.");
    page.sample(&[("result", "allow")], allowed);
    page.sample(&[("result", "deny")], refused.values().sum::<u64>());
    page.sample(&[("result", "gone")], gone);
    page.family("sluicegate_decisions_open", Type::Gauge, "Questions that wait for their decision.");
    page.sample(&[], counts.open());
    page.family("sluicegate_decision_cache_total", Type::Counter, "Where answers of back ends came from.");
    page.sample(&[("result", "asked")], asked);
    page.sample(&[("result", "shared")], shared);
    page.sample(&[("result", "cached")], cached);
    page.sample(&[("result", "stale")], stale);
    page.sample(&[("result", "let_in")], let_in);
    page.family("sluicegate_decision_failures_total", Type::Counter, "Back ends that gave no usable answer.");
    for (failure, count) in failures {
        page.sample(&[("failure", failure)], count);
    }
    page.family(
        "sluicegate_redirects_total",
        Type::Counter,
        "Refusals that named another place, by what became of it.",
    );
    page.sample(&[("result", "told")], redirects.0);
    page.sample(&[("result", "refused")], redirects.1);
    page.family("sluicegate_admission_ends_total", Type::Counter, "Running sessions ended by a rule, by reason.");
    let mut by_reason = std::collections::BTreeMap::<&str, u64>::new();
    for (reason, count) in ended {
        *by_reason.entry(reason.reason.as_str()).or_default() += count;
    }
    for (reason, count) in by_reason {
        page.sample(&[("reason", reason)], count);
    }
}
