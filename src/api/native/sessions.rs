//! `GET /v1/sessions` and `GET /v1/sessions/{id}`.

use std::ops::Bound;
use std::time::Instant;

use axum::extract::{RawQuery, State};
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::api::native::wire::Session;
use crate::api::native::{json, page};
use crate::api::query::{Params, decode};
use crate::api::{Problem, Shared};
use crate::control::filter::FILTER_FIELDS;
use crate::control::view::SessionRow;
use crate::control::{Filter, View};
use crate::names::SessionId;

/// A page of sessions, by id, which is by time of opening.
#[derive(Serialize, ToSchema)]
pub struct SessionPage {
    /// The sessions.
    sessions: Vec<Session>,
    /// Where the next page begins, as in `next`; null on the last.
    cursor: Option<String>,
    /// The address of the next page; null on the last.
    next: Option<String>,
}

/// The filter. A comma between alternatives means or, several fields mean and; at most 8 alternatives in all.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // Read by the description only, which adds the patterns; the values are read by `Params`.
pub struct FilterParams {
    /// Sessions with these ids.
    #[param(required = false)]
    id: String,
    /// Sessions of these kinds: `publish`, `play`, `ingest`, `push`.
    #[param(required = false)]
    kind: String,
    /// Sessions of these protocols: `rtmp`.
    #[param(required = false)]
    protocol: String,
    /// Sessions on these virtual hosts.
    #[param(required = false)]
    vhost: String,
    /// Sessions in these applications.
    #[param(required = false)]
    app: String,
    /// Sessions on these streams: the name, or `app/stream`, or `vhost/app/stream`.
    #[param(required = false)]
    stream: String,
    /// Sessions of these users.
    #[param(required = false)]
    user: String,
    /// Sessions from these addresses: an address, an address with port, or a CIDR block.
    #[param(required = false)]
    remote: String,
    /// Sessions in these states: `establishing`, `running`, `stalling`, `finished`. Without it, finished sessions
    /// are left out.
    #[param(required = false)]
    state: String,
}

/// How much of a list. (That `cursor` is a parameter too is between `next` and the server: whoever makes one up is
/// refused.)
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // Read by the description only.
pub struct PageParams {
    /// Rows on the page; more than 1000 is taken for 1000. Go on with `next` of the answer.
    #[param(required = false, minimum = 1, default = 100)]
    limit: u64,
}

/// Lists sessions.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", params(FilterParams, PageParams),
    responses((status = 200, description = "A page of sessions", body = SessionPage)))]
pub(crate) async fn list(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &[&FILTER_FIELDS, &["limit", "cursor"]])?;
    let limit = page::limit(params.take("limit"))?;
    let given = params.take("cursor");
    let filter = params.take_filter()?;
    let list = format!("sessions {filter:?}");
    let mut after = match given {
        None => None,
        Some(text) => Some(id_of(&page::read_cursor(&list, &text)?)?),
    };
    let (mut sessions, mut more) = (Vec::new(), true);
    let now = Instant::now();
    while more && sessions.len() < limit {
        let slice = api.control.view(|view| slice(view, &filter, after, limit - sessions.len(), now));
        sessions.extend(slice.sessions);
        after = slice.last.or(after);
        more = slice.more;
        // Between slices control may do something else.
        tokio::task::yield_now().await;
    }
    let cursor = after.filter(|_| more).map(|id| page::cursor(&list, id.to_string().as_bytes()));
    let next = cursor.as_deref().map(|cursor| page::next_link("/v1/sessions", query.as_deref(), cursor));
    Ok(json(&SessionPage { sessions, cursor, next }))
}

/// One session, also for some time after its end.
#[utoipa::path(get, path = "/v1/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "The session's id", format = Uuid)),
    responses((status = 200, description = "The session", body = Session)))]
pub(crate) async fn one(State(api): State<Shared>, uri: Uri, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    let id = path_id(&uri)?;
    let now = Instant::now();
    api.control
        .view(|view| view.session(id).map(|row| Session::new(row, &view.wall, now)))
        .map(|session| json(&session))
        .ok_or_else(|| Problem::not_found("no session has this id").about("id"))
}

/// The id at the end of a path.
pub(super) fn path_id(uri: &Uri) -> Result<SessionId, Problem> {
    let text = uri.path().rsplit('/').next().unwrap_or_default();
    decode(text, false)
        .and_then(|text| SessionId::parse(&text))
        .ok_or_else(|| Problem::parameter("id", "this is not a session id (8-4-4-4-12 hexadecimal digits)"))
}

struct Slice {
    sessions: Vec<Session>,
    /// The last row looked at.
    last: Option<SessionId>,
    /// There are rows after it.
    more: bool,
}

/// At most `room` sessions after `after` that meet `filter`, from a bounded number of rows.
fn slice(view: &View, filter: &Filter, after: Option<SessionId>, room: usize, now: Instant) -> Slice {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    // With ids, sessions are looked up rather than looked through.
    let running: Box<dyn Iterator<Item = &SessionRow>> = if filter.ids.is_empty() {
        Box::new(view.sessions.range((from, Bound::Unbounded)).map(|(_, row)| row))
    } else {
        view.select_after(filter, after)
    };
    // Finished rows lie in the order of their ends, and are bounded in number; they are listed on request only.
    let mut finished: Vec<&SessionRow> = if filter.states.contains(&crate::session::State::Finished) {
        view.finished
            .iter()
            .filter(|row| after.is_none_or(|after| row.facts.id > after) && filter.matches(row))
            .collect()
    } else {
        Vec::new()
    };
    finished.sort_unstable_by_key(|row| row.facts.id);
    let mut slice = Slice { sessions: Vec::new(), last: None, more: false };
    let mut looked_at = 0;
    let mut running = running.peekable();
    let mut finished = finished.into_iter().peekable();
    loop {
        let from_finished = match (running.peek(), finished.peek()) {
            (None, None) => return slice,
            (Some(one), Some(other)) => other.facts.id < one.facts.id,
            (None, Some(_)) => true,
            (Some(_), None) => false,
        };
        if looked_at == page::SLICE || slice.sessions.len() == room {
            slice.more = true;
            return slice;
        }
        let Some(row) = (if from_finished { finished.next() } else { running.next() }) else { return slice };
        looked_at += 1;
        slice.last = Some(row.facts.id);
        if filter.matches(row) {
            slice.sessions.push(Session::new(row, &view.wall, now));
        }
    }
}

fn id_of(key: &[u8]) -> Result<SessionId, Problem> {
    let id = std::str::from_utf8(key).ok().and_then(SessionId::parse);
    id.ok_or_else(|| Problem::parameter("cursor", "this is not a cursor of this list"))
}
