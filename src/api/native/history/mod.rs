//! `GET /v1/history/…`: sessions of the past, and sums and lines over them.
//!
//! The questions are asked of the ledger's files on threads that may wait, and answers are written there too: control's
//! thread only hands them on.

pub mod ask;
pub mod export;
pub mod wire;

use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_lite::stream;
use tokio::sync::OwnedSemaphorePermit;

use crate::api::native::history::ask::{DAY_MS, HISTORY_FIELDS};
use crate::api::native::history::export::Format;
use crate::api::native::history::wire::{HistoryPage, HistorySession, HistorySummary, HistoryTimeline};
use crate::api::native::sessions::{PageParams, path_id};
use crate::api::native::{json, page};
use crate::api::query::Params;
use crate::api::{Problem, Shared};
use crate::ledger::history::{Error, Filter, History, SummaryQuery, TimelineQuery, Work};
use crate::names::SessionId;

/// Exports at once; each holds one batch of rows.
pub const EXPORTS_MAX: usize = 8;

/// Lists sessions of the past and of now, the newest first. A page may have fewer rows than `limit` when much had to be
/// looked through; while `next` is not null there may be more.
#[utoipa::path(get, path = "/v1/history/sessions", tag = "history", params(ask::HistoryParams, PageParams),
    responses((status = 200, description = "A page of sessions", body = HistoryPage)))]
pub(crate) async fn list(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &[&HISTORY_FIELDS, &["limit", "cursor"]])?;
    let limit = page::limit(params.take("limit"))?;
    let given = params.take("cursor");
    let filter = ask::filter(&mut params)?;
    let list = format!("history {filter:?}");
    let after = given.map(|text| id_of(&page::read_cursor(&list, &text)?)).transpose()?;
    let answer = ledger(&api)?.ask(Work::Page, move |reader| {
        let found = reader.sessions(&filter, after, limit)?;
        let cursor = found.after.map(|id| page::cursor(&list, id.to_string().as_bytes()));
        let next = cursor.as_deref().map(|cursor| page::next_link("/v1/history/sessions", query.as_deref(), cursor));
        let sessions = found.records.iter().map(HistorySession::from).collect();
        Ok(json(&HistoryPage { sessions, cursor, next }))
    });
    Ok(answer.await?)
}

/// One session of the past or of now.
#[utoipa::path(get, path = "/v1/history/sessions/{id}", tag = "history",
    params(("id" = String, Path, description = "The session's id", format = Uuid)),
    responses((status = 200, description = "The session", body = HistorySession)))]
pub(crate) async fn one(State(api): State<Shared>, uri: Uri, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    let id = path_id(&uri)?;
    let answer = ledger(&api)?
        .ask(Work::Page, move |reader| Ok(reader.session(id)?.map(|record| json(&HistorySession::from(&record)))));
    answer.await?.ok_or_else(|| Problem::not_found("no session on record has this id").about("id"))
}

/// Sums over sessions: how many, bytes, watch time, how many at once, how many users and addresses. Grouped by any
/// fields, and split by hour or day of UTC.
#[utoipa::path(get, path = "/v1/history/summary", tag = "history", params(ask::HistoryParams, ask::SummaryParams),
    responses((status = 200, description = "The sums", body = HistorySummary)))]
pub(crate) async fn summary(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &[&HISTORY_FIELDS, &["group_by", "every", "order", "limit"]])?;
    let limit = page::limit(params.take("limit"))?;
    let group_by = ask::group_by(params.take("group_by").as_deref())?;
    let every = ask::every(params.take("every"))?;
    let order = ask::order(params.take("order"))?;
    let filter = ask::filter(&mut params)?;
    let now_ms = now_ms(&api);
    let answer = ledger(&api)?.ask(Work::Scan, move |reader| {
        let query = SummaryQuery { filter, group_by, every, order, limit, now_ms };
        let summary = reader.summary(&query)?;
        Ok(json(&HistorySummary::new(&query, summary)))
    });
    Ok(answer.await?)
}

/// How many sessions there were and how much they moved, over time. Bytes of a session are spread evenly over its
/// time. Without `from` it is the day before `to`; without `to` it ends now.
#[utoipa::path(get, path = "/v1/history/timeline", tag = "history", params(ask::HistoryParams, ask::TimelineParams),
    responses((status = 200, description = "The line", body = HistoryTimeline)))]
pub(crate) async fn timeline(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &[&HISTORY_FIELDS, &["bucket"]])?;
    let bucket_ms = ask::bucket(params.take("bucket"))?;
    let filter = ask::filter(&mut params)?;
    let now_ms = now_ms(&api);
    let to_ms = filter.to_ms.unwrap_or_else(|| now_ms.max(filter.from_ms.unwrap_or(0)));
    let from_ms = filter.from_ms.unwrap_or_else(|| to_ms.saturating_sub(DAY_MS));
    let bucket_ms = bucket_ms.unwrap_or_else(|| ask::bucket_for(to_ms.saturating_sub(from_ms)));
    let answer = ledger(&api)?.ask(Work::Scan, move |reader| {
        let query = TimelineQuery { filter, from_ms, to_ms, bucket_ms, now_ms };
        Ok(json(&HistoryTimeline::new(&query, &reader.timeline(&query)?)))
    });
    Ok(answer.await?)
}

/// All sessions that match, the newest first, as lines of JSON or CSV. They are read as the client takes them; an
/// answer that breaks off is not complete, and does not end as an answer should.
#[utoipa::path(get, path = "/v1/history/export", tag = "history", params(ask::HistoryParams, ask::ExportParams),
    responses((status = 200, description = "The sessions",
        content((String = "application/x-ndjson"), (String = "text/csv")))))]
pub(crate) async fn export(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &[&HISTORY_FIELDS, &["format"]])?;
    let format = ask::format(params.take("format"))?;
    let filter = ask::filter(&mut params)?;
    let history = ledger(&api)?.clone();
    let place = std::sync::Arc::clone(&api.exports).try_acquire_owned().map_err(|_| {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-exports", "too many exports are running");
        Problem { retry_after: Some(10), ..problem }
    })?;
    let mut export = Export { history, filter, format, after: None, begun: false, ended: false, _place: place };
    // What is wrong at once is told as a refusal.
    let first = export.next().await?;
    let rest = stream::unfold((first, export), |(ready, mut export)| async move {
        let piece = match ready {
            Some(piece) => Ok(piece),
            None => export.next().await.transpose()?,
        };
        if let Err(error) = &piece {
            tracing::warn!(%error, "an export of the history broke off");
            export.ended = true;
        }
        Some((piece, (None, export)))
    });
    let headers = [(header::CONTENT_TYPE, format.content_type()), (header::CONTENT_DISPOSITION, format.disposition())];
    Ok((headers, Body::from_stream(rest)).into_response())
}

/// An export that goes on as its reader does. Between batches it holds no file.
struct Export {
    history: History,
    filter: Filter,
    format: Format,
    after: Option<SessionId>,
    begun: bool,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Export {
    /// The next batch; `None` at the end. A batch may be empty only at the end, or where the next is not.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while !self.ended {
            let (filter, format, after, begun) = (self.filter.clone(), self.format, self.after, self.begun);
            let answer =
                self.history.ask(Work::Page, move |reader| export::batch(reader, &filter, after, format, !begun));
            let batch = answer.await?;
            self.begun = true;
            self.after = batch.after;
            self.ended = batch.after.is_none();
            if !batch.bytes.is_empty() {
                return Ok(Some(batch.bytes.into()));
            }
        }
        Ok(None)
    }
}

fn ledger(api: &Shared) -> Result<&History, Problem> {
    api.history.as_ref().ok_or_else(|| {
        let detail = "this server keeps no ledger: `ledger.directory` is not set";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ledger-off", detail)
    })
}

fn now_ms(api: &Shared) -> u64 {
    api.control.view(|view| view.wall.unix_ms(Instant::now()))
}

fn id_of(key: &[u8]) -> Result<SessionId, Problem> {
    let id = std::str::from_utf8(key).ok().and_then(SessionId::parse);
    id.ok_or_else(|| Problem::parameter("cursor", "this is not a cursor of this list"))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        let unavailable = |kind| Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail.clone());
        match error {
            Error::Busy => Self { retry_after: Some(1), ..unavailable("history-busy") },
            Error::TooLong(_) | Error::GivenUp => unavailable("history-too-long"),
            Error::TooManyGroups => Self::new(StatusCode::BAD_REQUEST, "too-many-groups", detail).about("group_by"),
            Error::TooManyTimes => Self::new(StatusCode::BAD_REQUEST, "too-many-groups", detail).about("every"),
            Error::File { .. } => {
                tracing::error!(error = %detail, "a file of the ledger could not be read");
                unavailable("ledger-damaged")
            }
            Error::Defect => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal-error", detail),
        }
    }
}
