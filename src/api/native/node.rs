//! `GET /v1/node` and `POST /v1/drain`: the server itself.

use std::time::{Duration, Instant};

use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::native::json;
use crate::api::native::wire::{Both, millis, rfc3339};
use crate::api::query::Params;
use crate::api::{Problem, Shared, body};
use crate::control::view::ShardRow;
use crate::metrics::Process;
use crate::stdx::units::parse_duration;

/// How long a drain may take.
const DRAIN_MAX: Duration = Duration::from_hours(24);

/// The server.
#[derive(Serialize, ToSchema)]
pub struct Node {
    /// The server's version.
    version: &'static str,
    /// When it started.
    #[schema(format = DateTime)]
    started_at: String,
    /// For how long it runs.
    uptime_ms: u64,
    /// All listeners are armed.
    ready: bool,
    /// It takes no new sessions.
    draining: bool,
    /// Which configuration is in force: 1 is that of the start, each reload that takes effect makes the next.
    config_generation: u64,
    /// How hard pressed it is: `green`, `yellow`, `orange` or `red`.
    load_state: &'static str,
    /// Running sessions.
    sessions: usize,
    /// Streams that are published, played, or wait for their publisher.
    streams: usize,
    /// Memory of the process.
    memory: Memory,
    /// Descriptors of the process.
    descriptors: Descriptors,
    /// Its cores.
    shards: Vec<Shard>,
}

/// Memory of the process; zero where the kernel does not say.
#[derive(Default, Serialize, ToSchema)]
pub struct Memory {
    /// Resident.
    rss_bytes: u64,
    /// Packaged media that shards hold for newcomers and slow players.
    media_bytes: u64,
}

/// Descriptors of the process; zero where the kernel does not say.
#[derive(Default, Serialize, ToSchema)]
pub struct Descriptors {
    /// In use.
    open: u64,
    /// The most there may be.
    limit: u64,
}

/// One core.
#[derive(Serialize, ToSchema)]
#[allow(clippy::struct_field_names)] // Elsewhere a shard is named so, too.
pub struct Shard {
    /// Its index.
    shard: usize,
    /// How long ago it last reported; null before its first report.
    reported_ms_ago: Option<u64>,
    /// Connections open.
    connections: usize,
    /// Of those, not yet admitted.
    unauthenticated: usize,
    /// Connections accepted since the start.
    accepted: u64,
    /// Connections refused at accept since the start.
    refused: u64,
    /// The longest time its executor was late, in the last report period, in microseconds.
    loop_lag_max_us: u64,
    /// Bytes waiting for all players together.
    queue_bytes: u64,
    /// Packaged media held.
    log_bytes: u64,
    /// Bytes since the start.
    bytes: Both,
    /// Write calls since the start.
    writes: u64,
    /// Read calls since the start.
    reads: u64,
    /// Rounds of the pump since the start.
    rounds: u64,
    /// Times that a connection had to leave messages to its next turn, since the start.
    turns_cut: u64,
    /// Times that mail or a relay woke the core, since the start.
    wakeups: u64,
    /// Times that it looked at the clock, since the start.
    ticks: u64,
    /// Frames dropped for slow players since the start.
    dropped_frames: u64,
    /// Frames dropped between shards since the start.
    relay_dropped: u64,
    /// Glitches seen on connections since the start.
    glitches: u64,
    /// Defects of ours that closed one connection each, since the start.
    internal_errors: u64,
    /// Bans in force.
    bans: usize,
    /// Requests refused by a ban since the start.
    ban_hits: u64,
    /// CPU time of its thread.
    cpu_ms: u64,
    /// Messages to control that wait.
    mail_backlog: usize,
}

/// How to drain.
#[derive(ToSchema)]
#[allow(dead_code)] // Read by the description only; the values are read by `body`.
pub struct DrainBody {
    /// Over how long the goodbyes are spread: a duration with its unit, at most a day. Without it, what the server is
    /// configured to.
    #[schema(required = false, pattern = "^([1-9][0-9]{0,3}(ms|s)|[1-9][0-9]{0,2}m|([1-9]|1[0-9]|2[0-4])h)$")]
    over: String,
}

/// The drain has begun.
#[derive(Serialize, ToSchema)]
pub struct Draining {
    /// Always true.
    draining: bool,
    /// Over how long the goodbyes are spread.
    over_ms: u64,
}

/// The server itself: shards, queues, memory.
#[utoipa::path(get, path = "/v1/node", tag = "node",
    responses((status = 200, description = "The server", body = Node)))]
pub(crate) async fn node(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    let process = Process::read();
    let now = Instant::now();
    let node = api.control.view(|view| Node {
        version: env!("CARGO_PKG_VERSION"),
        started_at: rfc3339(view.wall.since_epoch(view.started_at)),
        uptime_ms: millis(now.saturating_duration_since(view.started_at)),
        ready: view.ready,
        draining: view.draining,
        config_generation: view.config_generation,
        load_state: view.load.state.as_str(),
        sessions: view.sessions.len(),
        streams: view.streams.len(),
        memory: Memory {
            rss_bytes: process.resident_bytes.unwrap_or(0),
            media_bytes: view.shards.iter().map(|row| row.load.log_bytes).sum(),
        },
        descriptors: Descriptors { open: process.fds.unwrap_or(0), limit: process.fds_max.unwrap_or(0) },
        shards: view.shards.iter().enumerate().map(|(index, row)| Shard::new(index, row, now)).collect(),
    });
    Ok(json(&node))
}

/// Begins a drain: no new sessions, goodbyes spread over the given time, then exit.
#[utoipa::path(post, path = "/v1/drain", tag = "node", request_body = DrainBody,
    responses((status = 202, description = "The drain has begun", body = Draining)))]
pub(crate) async fn drain(State(api): State<Shared>, request: Request) -> Result<Response, Problem> {
    Params::parse(request.uri().query(), &[])?;
    let mut body = body::read(request).await?;
    let over = match body.take_text("over")? {
        None => api.control.drain_timeout(),
        Some(text) => parse_duration(&text).map_err(|message| Problem::body("over", message))?,
    };
    body.finish()?;
    if over > DRAIN_MAX {
        return Err(Problem::body("over", "a drain takes at most a day"));
    }
    api.control.drain(over);
    Ok((StatusCode::ACCEPTED, json(&Draining { draining: true, over_ms: millis(over) })).into_response())
}

impl Shard {
    fn new(shard: usize, row: &ShardRow, now: Instant) -> Self {
        let load = &row.load;
        Self {
            shard,
            reported_ms_ago: row.reported_at.map(|at| millis(now.saturating_duration_since(at))),
            connections: load.connections,
            unauthenticated: load.unauthenticated,
            accepted: load.accepted,
            refused: load.refused,
            loop_lag_max_us: u64::try_from(load.loop_lag_max.as_micros()).unwrap_or(u64::MAX),
            queue_bytes: load.queue_bytes,
            log_bytes: load.log_bytes,
            bytes: Both { rx: load.rx_bytes, tx: load.tx_bytes },
            writes: load.writes,
            reads: load.reads,
            rounds: load.rounds,
            turns_cut: load.turns_cut,
            wakeups: load.wakeups,
            ticks: load.ticks,
            dropped_frames: load.dropped_frames,
            relay_dropped: load.relay_dropped,
            glitches: load.glitches.iter().map(|(_, count)| count).sum(),
            internal_errors: load.internal_errors,
            bans: load.bans,
            ban_hits: load.ban_hits,
            cpu_ms: millis(load.cpu),
            mail_backlog: load.mail_backlog,
        }
    }
}
