//! The ledger and the back ends: how they are.

use std::time::Duration;

use crate::control::Dependencies;
use crate::hook::Status;
use crate::hook::meter::BUCKETS_MS;
use crate::ledger::{self, Health};
use crate::metrics::text::{Page, Type};

pub(super) fn render(page: &mut Page, dependencies: &Dependencies) {
    if let Some(status) = &dependencies.ledger {
        ledger(page, status);
    }
    let asks = dependencies.asks.iter().map(|status| ("ask", status));
    let hooks: Vec<(&str, &Status)> = asks.chain(dependencies.tells.iter().map(|status| ("tell", status))).collect();
    if !hooks.is_empty() {
        render_hooks(page, &hooks);
    }
    if let Some(status) = dependencies.ledger.as_ref().filter(|_| !dependencies.tells.is_empty()) {
        page.family("sluicegate_hook_spool_bytes", Type::Gauge, "Bytes of events that wait for a receiver on disk.");
        for tell in &dependencies.tells {
            let waiting = status.spools.iter().find(|(sink, _)| **sink == *tell.name);
            page.sample(&[("hook", &tell.name)], waiting.map_or(0, |(_, bytes)| *bytes));
        }
    }
}

fn ledger(page: &mut Page, status: &ledger::Status) {
    page.family("sluicegate_ledger_state", Type::Gauge, "0 while records reach the disk, 1 while they wait in memory.");
    page.sample(&[], u8::from(status.health == Health::Degraded));
    page.family("sluicegate_ledger_lag_seconds", Type::Gauge, "How long the oldest record has been waiting.");
    page.sample(&[], status.lag.as_secs_f64());
    page.family("sluicegate_ledger_sync_seconds", Type::Gauge, "How long the last commit took, its flush included.");
    page.sample(&[], status.sync_time.as_secs_f64());
    page.family("sluicegate_ledger_queue_bytes", Type::Gauge, "Bytes of records that wait.");
    page.sample(&[], status.queue_bytes);
    page.family("sluicegate_ledger_records_total", Type::Counter, "Records committed.");
    page.sample(&[], status.records);
    page.family("sluicegate_ledger_commits_total", Type::Counter, "Commits made.");
    page.sample(&[], status.commits);
    page.family("sluicegate_ledger_dropped_total", Type::Counter, "What was not recorded for want of room.");
    for (kind, count) in status.dropped.counts() {
        page.sample(&[("kind", kind)], count);
    }
    page.family("sluicegate_ledger_suspect_files_total", Type::Counter, "Files given up after an I/O error.");
    page.sample(&[], status.suspect_files);
    page.family(
        "sluicegate_ledger_lost_rows",
        Type::Gauge,
        "Events that could not be read again when their file was given up.",
    );
    page.sample(&[], status.lost_rows);
}

/// Names of hooks come from the configuration, so there are few and they are plain.
fn render_hooks(page: &mut Page, hooks: &[(&str, &Status)]) {
    page.family("sluicegate_hook_requests_total", Type::Counter, "Requests to back ends, by what came of them.");
    for (call, status) in hooks {
        for (result, count) in &status.requests {
            page.sample(&[("call", call), ("hook", &status.name), ("result", result)], count);
        }
    }
    page.family("sluicegate_hook_seconds", Type::Histogram, "How long requests to back ends took.");
    for (call, status) in hooks {
        let ends = BUCKETS_MS.iter().map(|ms| Duration::from_millis(*ms).as_secs_f64());
        let counts = ends.zip(status.seconds.counts);
        page.buckets(&[("call", call), ("hook", &status.name)], counts, status.seconds.count(), status.seconds.sum);
    }
    page.family("sluicegate_hook_queue", Type::Gauge, "Questions that wait; events held in memory.");
    for (call, status) in hooks {
        page.sample(&[("call", call), ("hook", &status.name)], status.queue);
    }
    page.family(
        "sluicegate_hook_breaker",
        Type::Gauge,
        "0 while requests pass, 1 while they do not, 2 while one is tried.",
    );
    for (call, status) in hooks {
        page.sample(&[("call", call), ("hook", &status.name)], status.breaker as u8);
    }
    page.family("sluicegate_hook_events_total", Type::Counter, "Events for receivers, by what became of them.");
    for (call, status) in hooks.iter().filter(|(call, _)| *call == "tell") {
        let told = status.told;
        for (result, count) in
            [("taken", told.taken), ("retried", told.retried), ("replaced", told.replaced), ("given_up", told.given_up)]
        {
            page.sample(&[("call", call), ("hook", &status.name), ("result", result)], count);
        }
    }
}
