//! Errors as RFC 9457 problem details, naming the field.

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::control::CommandError;
use crate::control::filter::FilterError;

/// A refusal: what kind, one sentence, and where in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The status of the answer.
    pub status: StatusCode,
    /// The last part of the problem's type, for programs.
    pub kind: &'static str,
    /// One sentence, for people.
    pub detail: String,
    /// The parameter, header or path in the body that it is about.
    pub field: Option<String>,
    /// Seconds after which a repeat may pass.
    pub retry_after: Option<u64>,
}

/// The members of a problem as they are sent (RFC 9457 §3.1, with `field` of ours).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// Names the kind of problem; stable, for programs.
    #[serde(rename = "type")]
    #[schema(example = "urn:sluicegate:problem:invalid-parameter")]
    kind: String,
    /// The status in words.
    #[schema(example = "Bad Request")]
    title: &'a str,
    /// The status again.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this request, in one sentence.
    detail: &'a str,
    /// The parameter, header or member of the body that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
}

impl Problem {
    /// A problem without a field.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), field: None, retry_after: None }
    }

    /// The same, about `field`.
    #[must_use]
    pub fn about(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// 400 for a query or path parameter.
    pub fn parameter(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-parameter", detail).about(field)
    }

    /// 400 for a member of the body.
    pub fn body(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-body", detail).about(field)
    }

    /// 401.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// 405.
    #[must_use]
    pub fn method_not_allowed(method: &Method) -> Self {
        // A method is a token of the peer's choosing, of any length.
        let name: String = method.as_str().chars().take(32).collect();
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", format!("{name} does not work here"))
    }

    /// 429 with the time to wait.
    pub fn too_many(detail: impl Into<String>, retry_after: u64) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail);
        Self { retry_after: Some(retry_after), ..problem }
    }
}

impl From<FilterError> for Problem {
    fn from(error: FilterError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-filter", error.message).about(error.field)
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string());
        match error {
            CommandError::Timeout => Self { retry_after: Some(1), ..problem },
            CommandError::Stopping => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemBody {
            kind: format!("urn:sluicegate:problem:{}", self.kind),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            field: self.field.as_deref(),
        };
        let text = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/problem+json")], text).into_response();
        self.add_headers(response.headers_mut());
        response
    }
}

impl Problem {
    /// The headers that belong to the status, whatever the body looks like.
    pub fn add_headers(&self, headers: &mut axum::http::HeaderMap) {
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
    }
}
