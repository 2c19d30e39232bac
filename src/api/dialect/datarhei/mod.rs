//! datarhei Core v16.16.0: its two session endpoints, byte for byte.

pub mod collect;
pub mod number;
pub mod query;
pub mod render;
pub mod writer;

use std::io::Write as _;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::api::settings::Datarhei;
use crate::api::{Problem, Shared};
use collect::Collected;
use writer::Writer;

/// A body of so many bytes is compressed for who accepts it.
const GZIP_FROM: usize = 1_000;
/// From so many sessions on an answer is rendered on another thread: control has other things to do.
const RENDER_APART_FROM: usize = 500;

/// The routes.
pub(crate) fn routes(settings: &Datarhei) -> Router<Shared> {
    let mut routes = Router::new().route("/api/v3/session", get(summary)).route("/api/v3/session/active", get(active));
    if settings.plural_alias {
        routes = routes.route("/api/v3/sessions", get(summary)).route("/api/v3/sessions/active", get(active));
    }
    routes
}

async fn summary(State(api): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    answer(&api, &uri, &headers, true).await
}

async fn active(State(api): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    answer(&api, &uri, &headers, false).await
}

async fn answer(api: &Shared, uri: &Uri, headers: &HeaderMap, with_summary: bool) -> Response {
    let names = query::collectors(uri.query());
    let pretty = query::is_present(uri.query(), "pretty");
    let gzip = accepts_gzip(headers);
    let settings = api.datarhei.clone();
    let collected = api.control.view(|view| Collected::new(view, &settings, &names, with_summary));
    let large = collected.len() >= RENDER_APART_FROM;
    let render = move || {
        let mut out = Writer::new(pretty);
        render::write(&mut out, &names, &collected, &settings, with_summary);
        let body = out.finish();
        if gzip && body.len() >= GZIP_FROM { (compress(&body), true) } else { (body, false) }
    };
    let (body, compressed) = if large {
        let Ok(done) = tokio::task::spawn_blocking(render).await else {
            let detail = "the answer could not be rendered";
            return error(&Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail));
        };
        done
    } else {
        render()
    };
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    if compressed {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn compress(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    // Writing to memory cannot fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

/// True when `Accept-Encoding` has gzip and does not weigh it zero.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|item| {
            let mut parts = item.split(';').map(str::trim);
            let coding = parts.next().unwrap_or_default();
            let refused = parts
                .filter_map(|parameter| parameter.strip_prefix("q="))
                .any(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0));
            (coding.eq_ignore_ascii_case("gzip") || coding == "*") && !refused
        })
    })
}

/// A refusal in Core's shape.
pub(crate) fn error(problem: &Problem) -> Response {
    let detail = match problem.status {
        StatusCode::UNAUTHORIZED => "Missing or invalid JWT token",
        StatusCode::NOT_FOUND => "Not Found",
        StatusCode::METHOD_NOT_ALLOWED => "Method Not Allowed",
        _ => problem.detail.as_str(),
    };
    let mut out = Writer::new(false);
    out.object(|out| {
        out.key("code").whole(u64::from(problem.status.as_u16()));
        out.key("message").text(problem.status.canonical_reason().unwrap_or("Error"));
        out.key("details").list(|out| {
            for line in detail.split('\n') {
                out.item().text(line);
            }
        });
    });
    let mut response = (problem.status, [(header::CONTENT_TYPE, "application/json")], out.finish()).into_response();
    problem.add_headers(response.headers_mut());
    response
}

/// The headers of every answer under `/api`.
pub(crate) fn add_headers(headers: &mut HeaderMap, has_origin: bool) {
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if has_origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

/// The answer to a browser that asks whether it may ask.
pub(crate) fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    if asked.contains_key(header::ORIGIN) {
        let fixed: [(HeaderName, &str); 3] = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET,HEAD,PUT,POST,DELETE,PATCH"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "Origin,Content-Length,Content-Type,Authorization"),
            (header::ACCESS_CONTROL_MAX_AGE, "86400"),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Method"));
    headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    response
}
