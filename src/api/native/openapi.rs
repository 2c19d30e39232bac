//! `GET /openapi.json`: what we serve, described for programs (OpenAPI 3.1).

use std::sync::LazyLock;

use axum::extract::RawQuery;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{AdditionalProperties, Schema};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use crate::api::Problem;
use crate::api::native::{events, health, node, sessions, streams, summary, terminate};
use crate::api::problem::ProblemBody;
use crate::api::query::Params;

#[derive(OpenApi)]
#[openapi(
    info(title = "Sluicegate", description = "Sessions, streams and the server itself. Errors are RFC 9457 problem \
        details that name the field."),
    paths(sessions::list, sessions::one, terminate::close, terminate::terminate, summary::summary, streams::list,
        streams::one, events::events, node::node, node::drain, health::healthz, health::readyz, health::metrics,
        openapi),
    components(schemas(ProblemBody, events::EventBody)),
    security(("bearer" = [])),
    modifiers(&Common)
)]
struct Description;

/// What all operations have in common.
struct Common;

impl Modify for Common {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        // Each server is asked at its own address.
        openapi.servers = None;
        if let Some(components) = &mut openapi.components {
            let scheme = HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some(
                    "Roles: read, control, admin. Without any token configured, peers on loopback need none.",
                ))
                .build();
            components.security_schemes.insert("bearer".to_owned(), SecurityScheme::Http(scheme));
            // What we read is read strictly; what we write may grow.
            for name in ["TerminateBody", "FilterBody", "DrainBody"] {
                if let Some(RefOr::T(Schema::Object(schema))) = components.schemas.get_mut(name) {
                    schema.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
                }
            }
        }
        for (path, item) in &mut openapi.paths.paths {
            let methods = [(&mut item.get, false), (&mut item.post, true), (&mut item.delete, true)];
            for (operation, changes) in methods {
                if let Some(operation) = operation {
                    add_problems(path, operation, changes);
                }
            }
        }
    }
}

fn add_problems(path: &str, operation: &mut Operation, changes: bool) {
    let open = path == "/healthz";
    let has_body = operation.request_body.is_some();
    let problems = [
        ("400", "The request is malformed; `field` says where", true),
        ("401", "No token, or one that is not known", !open),
        ("403", "The token's role does not allow this, or a page of another origin asked", changes),
        ("404", "There is no such thing", path.contains('{')),
        ("405", "The method does not work here", true),
        ("408", "The body took too long", has_body),
        ("413", "The body is longer than 1 MiB", has_body),
        ("415", "The body is not application/json", has_body),
        ("421", "The server is bound to loopback and the Host is not a name of it", true),
        ("429", "Too many requests, or too many refused tokens from this address", true),
        ("503", "The server is stopping, or a shard did not answer in time", changes),
    ];
    for (status, description, applies) in problems {
        if applies && !operation.responses.responses.contains_key(status) {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            let response =
                ResponseBuilder::new().description(description).content("application/problem+json", content).build();
            operation.responses.responses.insert(status.to_owned(), RefOr::T(response));
        }
    }
}

static TEXT: LazyLock<String> = LazyLock::new(|| Description::openapi().to_json().unwrap_or_default());

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "description",
    responses((status = 200, description = "The description", body = Object)))]
pub(crate) async fn openapi(RawQuery(query): RawQuery) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    Ok(([(header::CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_with_its_errors() {
        let description = Description::openapi();
        let text = serde_json::to_value(&description).unwrap();
        assert_eq!(text["openapi"], "3.1.0");
        let paths = text["paths"].as_object().unwrap();
        for path in [
            "/v1/sessions",
            "/v1/sessions/{id}",
            "/v1/sessions/terminate",
            "/v1/summary",
            "/v1/streams",
            "/v1/streams/{vhost}/{app}/{stream}",
            "/v1/node",
            "/v1/events",
            "/v1/drain",
            "/healthz",
            "/readyz",
            "/metrics",
            "/openapi.json",
        ] {
            assert!(paths.contains_key(path), "{path} is not described");
        }
        for (path, item) in paths {
            for (method, operation) in item.as_object().unwrap() {
                assert!(operation["responses"]["400"].is_object(), "{method} {path}");
                assert!(operation["responses"]["429"].is_object(), "{method} {path}");
            }
        }
        assert!(paths["/v1/sessions/terminate"]["post"]["responses"]["415"].is_object());
    }
}
