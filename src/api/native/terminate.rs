//! Ending sessions: `DELETE /v1/sessions/{id}` and `POST /v1/sessions/terminate`.

use std::time::Duration;

use axum::extract::{RawQuery, Request, State};
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};

use crate::api::body::{self, Value};
use crate::api::native::json;
use crate::api::native::sessions::path_id;
use crate::api::query::Params;
use crate::api::{Problem, Shared};
use crate::control::filter::FILTER_FIELDS;
use crate::control::{Filter, Terminate};
use crate::session::{Reason, State as Life};

/// The longest ban; longer is taken for this.
pub const BAN_MAX: Duration = Duration::from_hours(365 * 24);

/// What became of one session.
#[derive(Serialize, ToSchema)]
#[allow(clippy::struct_field_names)] // It is the word for it.
pub struct Closed {
    /// The session.
    #[schema(format = Uuid)]
    id: String,
    /// It had ended before; nothing was done, and nobody was banned.
    already_closed: bool,
    /// Bans made.
    banned: usize,
}

/// Which sessions to end, and how.
#[derive(ToSchema)]
#[allow(dead_code)] // Read by the description only; the values are read by `body`.
pub struct TerminateBody {
    /// Which: the fields of the list's filter. None at all means every session, and needs `confirm`.
    #[schema(required = false, value_type = Object)]
    filter: (),
    /// How long the same peers are refused on the same streams in the same role: `"30s"`, or whole seconds. More
    /// than a year is taken for a year.
    #[schema(required = false, schema_with = ban_for_schema)]
    ban_for: String,
    /// Only say which.
    #[schema(required = false, default = false)]
    dry_run: bool,
    /// `all`, to end every session.
    #[schema(required = false)]
    confirm: String,
}

/// A duration with its unit, or whole seconds.
pub(super) fn ban_for_schema() -> Schema {
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[1-9][0-9]{0,17}(ms|s|m|min|h|d)?$"))
        .description(Some("With its unit; without one, seconds"));
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).description(Some("Whole seconds"));
    OneOfBuilder::new().item(text).item(seconds).into()
}

/// What became of the sessions.
#[derive(Serialize, ToSchema)]
#[schema(as = Terminated)]
pub struct TerminatedBody {
    /// Sessions that matched, oldest first; the first 1000 are named.
    #[schema(value_type = Vec<String>)]
    ids: Vec<String>,
    /// How many matched.
    matched: usize,
    /// How many were closed; the rest had ended by themselves.
    closed: usize,
    /// Bans made.
    banned: usize,
    /// Nothing was done.
    dry_run: bool,
}

/// Ends one session. To end it again is no error.
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "The session's id", format = Uuid),
        ("ban_for" = Option<String>, Query, pattern = "^[1-9][0-9]{0,17}(ms|s|m|min|h|d)?$",
            description = "How long the same peer is refused on the same stream in the same role: a duration with \
                its unit, or whole seconds. More than a year is taken for a year.")),
    responses((status = 200, description = "The session has ended", body = Closed)))]
pub(crate) async fn close(State(api): State<Shared>, uri: Uri, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &[&["ban_for"]])?;
    let ban_for = params.take("ban_for").map(|text| ban_text(&text)).transpose()?;
    let id = path_id(&uri)?;
    let state = api
        .control
        .view(|view| view.session(id).map(|row| row.state))
        .ok_or_else(|| Problem::not_found("no session has this id").about("id"))?;
    if state == Life::Finished {
        return Ok(json(&Closed { id: id.to_string(), already_closed: true, banned: 0 }));
    }
    let filter = Filter { ids: vec![id], ..Filter::default() };
    let what = Terminate { filter, reason: reason(ban_for), ban_for, dry_run: false };
    let done = api.control.terminate(what).await?;
    Ok(json(&Closed { id: id.to_string(), already_closed: done.closed == 0, banned: done.banned }))
}

/// Ends sessions by filter.
#[utoipa::path(post, path = "/v1/sessions/terminate", tag = "sessions", request_body = TerminateBody,
    responses((status = 200, description = "The sessions have ended", body = TerminatedBody)))]
pub(crate) async fn terminate(State(api): State<Shared>, request: Request) -> Result<Response, Problem> {
    Params::parse(request.uri().query(), &[])?;
    let mut body = body::read(request).await?;
    let mut filter = Filter::default();
    if let Some(mut fields) = body.take_object("filter")? {
        for name in FILTER_FIELDS {
            if let Some(text) = fields.take_text(name)? {
                filter.add(name, &text).map_err(|error| {
                    let problem = Problem::from(error);
                    let field = problem.field.clone().unwrap_or_default();
                    problem.about(format!("filter.{field}"))
                })?;
            }
        }
        fields.finish()?;
    }
    let ban_for = take_ban_for(&mut body)?;
    let dry_run = body.take_flag("dry_run")?.unwrap_or(false);
    let confirm = body.take_text("confirm")?;
    body.finish()?;
    match confirm.as_deref() {
        None | Some("all") => {}
        Some(_) => return Err(Problem::body("confirm", "the only word here is \"all\"")),
    }
    if filter.is_empty() && confirm.is_none() && !dry_run {
        let detail = "an empty filter means every session; say \"confirm\":\"all\" if you mean that";
        return Err(Problem::body("confirm", detail));
    }
    let what = Terminate { filter, reason: reason(ban_for), ban_for, dry_run };
    let done = api.control.terminate(what).await?;
    Ok(json(&TerminatedBody {
        ids: done.ids.iter().map(ToString::to_string).collect(),
        matched: done.matched,
        closed: done.closed,
        banned: done.banned,
        dry_run,
    }))
}

fn reason(ban_for: Option<Duration>) -> crate::session::CloseReason {
    if ban_for.is_some() { Reason::Banned.into() } else { Reason::Kicked.into() }
}

/// The body's `ban_for`: a text with a unit, or whole seconds.
pub(super) fn take_ban_for(body: &mut body::Object) -> Result<Option<Duration>, Problem> {
    match body.take("ban_for") {
        None => Ok(None),
        Some(Value::Text(text)) => ban_text(&text).map(Some),
        Some(Value::Whole(seconds)) if seconds > 0 => Ok(Some(BAN_MAX.min(Duration::from_secs(seconds)))),
        Some(Value::Number(seconds)) if seconds >= 1.0 && seconds.fract() == 0.0 => {
            Ok(Some(BAN_MAX.min(Duration::try_from_secs_f64(seconds).unwrap_or(BAN_MAX))))
        }
        Some(_) => Err(ban_wrong()),
    }
}

/// `"30s"`, or `"30"` for seconds.
fn ban_text(text: &str) -> Result<Duration, Problem> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(ban_wrong()),
    };
    match number.parse::<u64>() {
        Ok(0) => Err(ban_wrong()),
        Ok(number) => Ok(BAN_MAX.min(Duration::from_millis(number.saturating_mul(unit_ms)))),
        // Digits that are no number any more are a very large number.
        Err(_) if digits > 0 => Ok(BAN_MAX),
        Err(_) => Err(ban_wrong()),
    }
}

fn ban_wrong() -> Problem {
    Problem::parameter(
        "ban_for",
        "write a time longer than zero with its unit (ms, s, m, h or d), as \"30s\" or \"10m\", or whole seconds; the most \
         is a year, \"365d\", and what is longer is taken for that",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ap_11_bans_are_positive_and_at_most_a_year() {
        assert_eq!(ban_text("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(ban_text("10"), Ok(Duration::from_secs(10)));
        assert_eq!(ban_text("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(ban_text("1000000000000s"), Ok(BAN_MAX));
        assert_eq!(ban_text("99999999999999999999999s"), Ok(BAN_MAX));
        for bad in ["0", "0s", "-1", "-1s", "", "s", "1.5s", "1 s", "ten", "2y"] {
            let problem = ban_text(bad).unwrap_err();
            assert_eq!(problem.field.as_deref(), Some("ban_for"), "{bad:?}");
            assert!(problem.detail.contains("365d"), "the limit is named");
        }
    }
}
