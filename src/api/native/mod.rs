//! Our own API, under `/v1`, with health, metrics and its own description.

pub mod bans;
pub mod events;
pub mod health;
pub mod history;
pub mod node;
pub mod openapi;
pub mod page;
pub mod reload;
pub mod sessions;
pub mod streams;
pub mod summary;
pub mod terminate;
pub mod wire;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::Serialize;

use crate::api::Shared;

/// The routes.
pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/sessions/terminate", post(terminate::terminate))
        .route("/v1/sessions/{id}", delete(terminate::close).get(sessions::one))
        .route("/v1/bans", get(bans::list).post(bans::ban))
        .route("/v1/bans/{id}", delete(bans::lift))
        .route("/v1/summary", get(summary::summary))
        .route("/v1/streams", get(streams::list))
        .route("/v1/streams/{*path}", get(streams::one))
        .route("/v1/node", get(node::node))
        .route("/v1/events", get(events::events))
        .route("/v1/history/sessions", get(history::list))
        .route("/v1/history/sessions/{id}", get(history::one))
        .route("/v1/history/summary", get(history::summary))
        .route("/v1/history/timeline", get(history::timeline))
        .route("/v1/history/export", get(history::export))
        .route("/v1/drain", post(node::drain))
        .route("/v1/reload", post(reload::reload))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::openapi))
}

/// An answer in JSON.
pub(crate) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        // Our own structs have text keys only, which is all that could fail.
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
