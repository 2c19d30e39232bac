//! What the API leaves out while the server is short of memory or CPU.

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use crate::api::{Problem, Shared, dialect, refuse};

/// When to ask again.
const RETRY_AFTER_S: u64 = 5;

/// Answers a request for a list with 503 from orange on: a list of everybody is what may wait. Single sessions, ends of
/// sessions, health and numbers are always answered.
pub(crate) async fn pause_lists(State(api): State<Shared>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_list = matches!(path, "/v1/sessions" | "/v1/streams") || dialect::claims(path);
    if is_list && matches!(*request.method(), Method::GET | Method::HEAD) {
        let load = api.control.view(|view| view.load);
        if !load.state.lists() {
            let detail = format!("the server is overloaded (load state {}) and makes no lists", load.state.as_str());
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail);
            return refuse(path, Problem { retry_after: Some(RETRY_AFTER_S), ..problem });
        }
    }
    next.run(request).await
}
