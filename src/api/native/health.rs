//! `/healthz`, `/readyz`, `/metrics`.

use std::time::{Duration, Instant};

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::admission::LoadState;
use crate::api::native::json;
use crate::api::query::Params;
use crate::api::{Problem, Shared};
use crate::control::{Dependencies, View};
use crate::hook::{BreakerState, Status};
use crate::ledger::Health as LedgerHealth;
use crate::metrics::{Beside, CONTENT_TYPE, Process, render};

/// A shard that has not reported for so long does not answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// How long a shard may take to report for the first time.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// How the server is.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `ok`, or what is wrong.
    status: &'static str,
}

/// What readiness is made of.
#[derive(Serialize, ToSchema)]
pub struct Readiness {
    /// `ok`, or what is wrong.
    status: &'static str,
    /// The parts; absent unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    checks: Option<Vec<Check>>,
}

/// One part of readiness.
#[derive(Serialize, ToSchema)]
pub struct Check {
    /// What was looked at.
    name: &'static str,
    /// It is well.
    ok: bool,
    /// In words.
    detail: String,
}

/// Is the process alive: has every shard answered within two seconds? Looks at nothing outside.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, description = "Alive", body = Health),
        (status = 503, description = "A shard does not answer", body = Health)))]
pub(crate) async fn healthz(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    let now = Instant::now();
    let silent = api.control.view(|view| silent(view, now));
    Ok(if silent.is_empty() {
        json(&Health { status: "ok" })
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, json(&Health { status: "shard_silent" })).into_response()
    })
}

/// May new peers be sent here?
#[utoipa::path(get, path = "/readyz", tag = "health", security((), ("bearer" = [])),
    params(("verbose" = Option<bool>, Query, description = "List the parts; needs a token")),
    responses((status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Starting, draining, or overloaded", body = Readiness)))]
pub(crate) async fn readyz(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let verbose = Params::parse(query.as_deref(), &[&["verbose"]])?.take_flag("verbose")?.unwrap_or(false);
    let now = Instant::now();
    let (ready, draining, silent, load) =
        api.control.view(|view| (view.ready, view.draining, silent(view, now), view.load.state));
    let check = |name, ok: bool, yes: &str, no: &str| Check { name, ok, detail: if ok { yes } else { no }.to_owned() };
    let checks = vec![
        check("listeners", ready, "all are armed", "not all are armed yet"),
        check("draining", !draining, "new sessions are taken", "no new sessions are taken"),
        Check { name: "load", ok: load < LoadState::Red, detail: load.as_str().to_owned() },
        Check {
            name: "shards",
            ok: silent.is_empty(),
            detail: if silent.is_empty() {
                "all report".to_owned()
            } else {
                format!("silent: {}", silent.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            },
        },
    ];
    let checks = checks.into_iter().chain(dependencies(&api.control.dependencies())).collect::<Vec<_>>();
    let status = match () {
        () if draining => "draining",
        () if !ready => "starting",
        () if !silent.is_empty() => "shard_silent",
        () if load >= LoadState::Red => "overloaded",
        () => "ok",
    };
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((code, json(&Readiness { status, checks: verbose.then_some(checks) })).into_response())
}

/// Numbers for scraping.
#[utoipa::path(get, path = "/metrics", tag = "health", security((), ("bearer" = [])),
    responses((status = 200, description = "Prometheus text", body = String,
        content_type = "text/plain")))]
pub(crate) async fn metrics(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    // The next event's number is one more than there were events.
    let events = api.control.subscribe(None).next.saturating_sub(1);
    let dependencies = api.control.dependencies();
    let beside = Beside { process: Process::read(), events, api_plaintext: api.plaintext, dependencies };
    let now = Instant::now();
    let text = api.control.view(|view| render(view, &beside, now));
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

/// Those on whom the server depends. What ails them does not make it unready: whoever is here is served, and what is to
/// be told waits.
fn dependencies(on: &Dependencies) -> impl Iterator<Item = Check> + '_ {
    let ledger = on.ledger.iter().map(|ledger| Check {
        name: "ledger",
        ok: ledger.health == LedgerHealth::Ok,
        detail: ledger.trouble.clone().unwrap_or_else(|| ledger.health.as_str().to_owned()),
    });
    let hook = |name: &'static str, status: &Status| Check {
        name,
        ok: status.breaker == BreakerState::Closed,
        detail: format!("{}: breaker {}, {} waiting", status.name, status.breaker.as_str(), status.queue),
    };
    let asks = on.asks.iter().map(move |status| hook("hook.ask", status));
    let tells = on.tells.iter().map(move |status| hook("hook.tell", status));
    ledger.chain(asks).chain(tells)
}

/// The shards that do not answer.
fn silent(view: &View, now: Instant) -> Vec<usize> {
    let since = |at: Instant| now.saturating_duration_since(at);
    let is_silent = |reported_at: Option<Instant>| match reported_at {
        Some(at) => since(at) > ANSWERS_WITHIN,
        None => since(view.started_at) > STARTS_WITHIN,
    };
    view.shards.iter().enumerate().filter(|(_, row)| is_silent(row.reported_at)).map(|(index, _)| index).collect()
}
