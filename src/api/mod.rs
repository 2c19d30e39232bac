//! What we say over HTTP: our own API, and other systems' dialects.
//!
//! Every request passes one door ([`auth`]): whose it is, whether it came by way of a foreign web page,
//! whether it may, and how often. Behind the door the handlers read control's model and send it commands;
//! none of them touches a shard. The API runs on control's thread, so nothing here may take long: lists are
//! read in slices and large answers are rendered elsewhere.

pub mod auth;
pub mod backend;
pub mod body;
pub mod dialect;
pub mod native;
pub(crate) mod pressure;
pub mod problem;
pub mod query;
pub mod serve;
pub mod settings;

pub use backend::Backend;
pub use problem::Problem;
pub use serve::serve;
pub use settings::Settings;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use crate::ledger::history::History;

/// What every handler holds.
pub(crate) type Shared = Arc<State>;

/// The API's own state: where it reads, and what it obeys.
pub(crate) struct State {
    /// Control.
    pub(crate) control: Box<dyn Backend>,
    /// What the dialect obeys.
    pub(crate) datarhei: settings::Datarhei,
    /// The door, which knows whether loopback needs a token.
    pub(crate) door: Arc<auth::Door>,
    /// Other machines reach the API, and what they say crosses the network as it is.
    pub(crate) plaintext: bool,
    /// Places for event streams.
    pub(crate) event_streams: Arc<tokio::sync::Semaphore>,
    /// What the ledger has; `None` without one.
    pub(crate) history: Option<History>,
    /// Places for exports of it.
    pub(crate) exports: Arc<tokio::sync::Semaphore>,
}

/// Everything the API serves, behind its door; `history` is the ledger's, where there is one. The router expects
/// [`ConnectInfo`](axum::extract::ConnectInfo) of the peer with each request, as [`serve()`] gives it; a request
/// without it counts as a stranger's.
pub fn router(control: impl Backend, history: Option<History>, settings: &Settings) -> Router {
    router_behind(&Arc::new(auth::Door::new(settings, Instant::now())), control, history, settings)
}

/// The same behind a door that the caller keeps, to change its locks.
pub fn router_behind(
    door: &Arc<auth::Door>,
    control: impl Backend,
    history: Option<History>,
    settings: &Settings,
) -> Router {
    let door = Arc::clone(door);
    let state: Shared = Arc::new(State {
        control: Box::new(control),
        datarhei: settings.datarhei.clone(),
        door: Arc::clone(&door),
        plaintext: !settings.listen.ip().to_canonical().is_loopback(),
        event_streams: Arc::new(tokio::sync::Semaphore::new(serve::EVENT_STREAMS_MAX)),
        history,
        exports: Arc::new(tokio::sync::Semaphore::new(native::history::EXPORTS_MAX)),
    });
    let mut routes = native::routes();
    if settings.datarhei.enabled {
        routes = routes.merge(dialect::datarhei::routes(&settings.datarhei));
    }
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), pressure::pause_lists))
        .with_state(state)
        .layer(middleware::from_fn(move |request, next| auth::admit(Arc::clone(&door), request, next)))
        .layer(middleware::from_fn(common_headers))
}

/// Answers about sessions are true for a moment only, and are never a page.
async fn common_headers(request: Request, next: Next) -> Response {
    let dialect = dialect::claims(request.uri().path());
    let origin = request.headers().contains_key(header::ORIGIN);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if dialect {
        dialect::datarhei::add_headers(headers, origin);
    }
    response
}

async fn not_found(uri: Uri) -> Response {
    refuse(uri.path(), Problem::not_found("there is nothing at this path"))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    refuse(uri.path(), Problem::method_not_allowed(&method))
}

/// A refusal in the words of whoever owns the path.
pub(crate) fn refuse(path: &str, problem: Problem) -> Response {
    if dialect::claims(path) { dialect::datarhei::error(&problem) } else { problem.into_response() }
}
