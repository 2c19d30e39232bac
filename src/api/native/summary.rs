//! `GET /v1/summary`: active and finished, per collector.

use std::collections::BTreeMap;
use std::ops::Bound;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::native::wire::{Both, SideName, WireRates, WireTotals};
use crate::api::native::{json, page};
use crate::api::query::Params;
use crate::api::{Problem, Shared};
use crate::control::view::{Collector, Rates};
use crate::names::{Kind, SessionId};

/// The sums of every collector, by its name.
#[derive(Serialize, ToSchema)]
pub struct Summary {
    /// Collectors by name.
    collectors: BTreeMap<&'static str, CollectorSummary>,
}

/// The sums of one protocol family.
#[derive(Serialize, ToSchema)]
pub struct CollectorSummary {
    /// Sessions that have not ended.
    active: Active,
    /// Sessions that were started and have ended; here and below those of earlier lives of the server are counted too,
    /// where there is a ledger.
    finished: WireTotals,
    /// Why they ended, most frequent first.
    reasons: Vec<ReasonCount>,
    /// Connections that never became a session, most frequent first.
    attempts: Vec<AttemptCount>,
    /// Sessions opened.
    opened: u64,
}

/// The sums of running sessions.
#[derive(Default, Serialize, ToSchema)]
pub struct Active {
    /// How many.
    sessions: u64,
    /// How many of each kind and state.
    by_kind: BTreeMap<&'static str, StateCounts>,
    /// Their bytes so far.
    bytes: Both,
    /// Bits a second, all together.
    rates: WireRates,
}

/// How many are where in their life.
#[derive(Default, Serialize, ToSchema)]
pub struct StateCounts {
    /// Waiting for a verdict or for first media.
    establishing: u64,
    /// With media.
    running: u64,
    /// Whose media stopped.
    stalling: u64,
}

/// A close reason and its count.
#[derive(Serialize, ToSchema)]
pub struct ReasonCount {
    /// What the sessions were.
    kind: &'static str,
    /// The reason.
    reason: &'static str,
    /// The rule, limit or cause within it; empty when the reason says all.
    detail: &'static str,
    /// Whose side it was.
    #[schema(inline)]
    side: SideName,
    /// How many.
    count: u64,
}

/// A reason why connections never became sessions, and its count.
#[derive(Serialize, ToSchema)]
pub struct AttemptCount {
    /// The reason.
    reason: &'static str,
    /// The rule, limit or cause within it; empty when the reason says all.
    detail: &'static str,
    /// Whose side it was.
    #[schema(inline)]
    side: SideName,
    /// How many.
    count: u64,
}

#[derive(Default)]
struct Sums {
    active: Active,
    rates: Rates,
}

/// Sums of active and finished sessions.
#[utoipa::path(get, path = "/v1/summary", tag = "sessions",
    responses((status = 200, description = "The sums", body = Summary)))]
pub(crate) async fn summary(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    let mut sums: BTreeMap<&'static str, Sums> = BTreeMap::new();
    let mut after = None;
    loop {
        after = api.control.view(|view| sum(view, after, &mut sums));
        if after.is_none() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut collectors = api.control.view(|view| {
        let one = |(name, collector): (&&'static str, &Collector)| {
            (*name, CollectorSummary::new(sums.remove(name).unwrap_or_default(), collector))
        };
        view.collectors.iter().map(one).collect::<BTreeMap<_, _>>()
    });
    for (name, sums) in sums {
        collectors.insert(name, CollectorSummary::new(sums, &Collector::default()));
    }
    Ok(json(&Summary { collectors }))
}

/// Adds the next rows; returns the last of them when there may be more.
fn sum(
    view: &crate::control::View,
    after: Option<SessionId>,
    sums: &mut BTreeMap<&'static str, Sums>,
) -> Option<SessionId> {
    use crate::session::State as Life;
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut last = None;
    for (seen, (id, row)) in view.sessions.range((from, Bound::Unbounded)).enumerate() {
        if seen == page::SLICE {
            return last;
        }
        last = Some(*id);
        let sums = sums.entry(row.facts.protocol.collector()).or_default();
        let counts = sums.active.by_kind.entry(row.facts.kind.as_str()).or_default();
        match row.state {
            Life::Establishing => counts.establishing += 1,
            Life::Running => counts.running += 1,
            Life::Stalling => counts.stalling += 1,
            Life::Finished => continue,
        }
        sums.active.sessions += 1;
        sums.active.bytes.rx += row.counters.rx_bytes;
        sums.active.bytes.tx += row.counters.tx_bytes;
        for (to, from) in sums.rates.rx_bps.iter_mut().zip(row.rates.rx_bps) {
            *to += from;
        }
        for (to, from) in sums.rates.tx_bps.iter_mut().zip(row.rates.tx_bps) {
            *to += from;
        }
    }
    None
}

impl CollectorSummary {
    fn new(sums: Sums, collector: &Collector) -> Self {
        let mut active = sums.active;
        active.rates = sums.rates.into();
        for kind in Kind::ALL {
            active.by_kind.entry(kind.as_str()).or_default();
        }
        let mut reasons: Vec<ReasonCount> = collector
            .reasons
            .iter()
            .map(|((kind, reason), count)| ReasonCount {
                kind: kind.as_str(),
                reason: reason.reason.as_str(),
                detail: reason.detail,
                side: reason.reason.side().into(),
                count: *count,
            })
            .collect();
        reasons.sort_by_key(|entry| std::cmp::Reverse(entry.count));
        let mut attempts: Vec<AttemptCount> = collector
            .attempts
            .iter()
            .map(|(reason, count)| AttemptCount {
                reason: reason.reason.as_str(),
                detail: reason.detail,
                side: reason.reason.side().into(),
                count: *count,
            })
            .collect();
        attempts.sort_by_key(|entry| std::cmp::Reverse(entry.count));
        Self { active, finished: (&collector.finished).into(), reasons, attempts, opened: collector.opened }
    }
}
