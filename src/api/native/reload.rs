//! `POST /v1/reload`: the configuration is read again.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::backend::{self, ReloadError};
use crate::api::native::json;
use crate::api::query::Params;
use crate::api::{Problem, Shared};

/// What came of a reload.
#[derive(Serialize, ToSchema)]
pub struct Reloaded {
    /// Which configuration is in force: 1 is that of the start, each reload that takes effect makes the next.
    generation: u64,
    /// Keys that have another value now.
    changed: Vec<String>,
    /// Keys of the file that take effect at a restart and not before.
    pending: Vec<String>,
    /// What is doubtful about the configuration.
    warnings: Vec<String>,
    /// Sessions that were ended because the new rules do not let them in.
    closed: usize,
}

/// Reads the configuration again, with the flags and the environment of the start, and puts it in force: all of it, or
/// nothing if anything is wrong with it. Reloads take turns.
#[utoipa::path(post, path = "/v1/reload", tag = "node",
    responses((status = 200, description = "It is in force, but for what is pending", body = Reloaded),
        (status = 422, description = "Something is wrong with the configuration, and nothing has changed",
            body = crate::api::problem::ProblemBody, content_type = "application/problem+json")))]
pub(crate) async fn reload(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    let backend::Reloaded { generation, changed, pending, warnings, closed } =
        api.control.reload().await.map_err(Problem::from)?;
    Ok(json(&Reloaded { generation, changed, pending, warnings, closed }))
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        match error {
            ReloadError::Refused(problems) => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Self::new(status, "configuration-refused", problems.join("\n"))
            }
            ReloadError::Busy => {
                let detail = "so many reloads wait already that the last of them will read what is there now";
                let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
                Self { retry_after: Some(1), ..problem }
            }
            ReloadError::Command(error) => error.into(),
        }
    }
}
