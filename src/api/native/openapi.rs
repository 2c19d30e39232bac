//! `GET /openapi.json`: what we serve, described for programs (OpenAPI 3.1).

use std::sync::LazyLock;

use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use crate::api::native::{bans, events, health, history, node, reload, sessions, streams, summary, terminate};
use crate::api::problem::ProblemBody;
use crate::api::query::Params;
use crate::api::{Problem, Shared};
use crate::names::{APP_BYTES_MAX, STREAM_BYTES_MAX};
use crate::session::Reason;

#[derive(OpenApi)]
#[openapi(
    info(title = "Sluicegate", description = "Sessions, streams and the server itself. Errors are RFC 9457 problem \
        details that name the field."),
    paths(sessions::list, sessions::one, terminate::close, terminate::terminate, bans::list, bans::ban, bans::lift,
        summary::summary, streams::list,
        streams::one, history::list, history::one, history::summary, history::timeline, history::export,
        events::events, node::node, node::drain, reload::reload, health::healthz, health::readyz, health::metrics,
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
        ("503", "The server is overloaded and makes no lists", matches!(path, "/v1/sessions" | "/v1/streams")),
        ("503", "The server is stopping, or a shard did not answer in time", changes),
        (
            "503",
            "There is no ledger (`ledger-off`), a file of it cannot be read (`ledger-damaged`), too many ask \
             (`history-busy`), or there is too much to look through (`history-too-long`)",
            path.starts_with("/v1/history/"),
        ),
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

/// The description with tokens, and without: then they are optional.
static TEXTS: LazyLock<[String; 2]> = LazyLock::new(|| [false, true].map(|open| describe(open).to_string()));

/// What the macros cannot say is added to the finished text.
fn describe(open: bool) -> Value {
    let mut text = serde_json::to_value(Description::openapi()).unwrap_or_default();
    if open {
        text["security"] = json!([{}, {"bearer": []}]);
    }
    let schemas = &mut text["components"]["schemas"];
    let mut filter = json!({"type": "object", "additionalProperties": false, "properties": {},
        "description": "The fields of the list's filter, as in its query string."});
    for (name, _) in FILTER_SCHEMAS {
        filter["properties"][name] = filter_schema(name);
    }
    schemas["Filter"] = filter;
    for name in ["TerminateBody", "DrainBody", "BanRequest"] {
        schemas[name]["additionalProperties"] = json!(false);
    }
    let terminate = &mut schemas["TerminateBody"];
    terminate["properties"]["filter"] = json!({"$ref": "#/components/schemas/Filter"});
    terminate["properties"]["confirm"]["enum"] = json!(["all"]);
    // To end everything must be said, or only be tried.
    terminate["anyOf"] = json!([
        {"required": ["filter"], "properties": {"filter": {"minProperties": 1}}},
        {"required": ["confirm"]},
        {"required": ["dry_run"], "properties": {"dry_run": {"const": true}}},
    ]);
    let ban = &mut schemas["BanRequest"];
    ban["dependentRequired"] = json!({"app": ["stream"], "stream": ["app"], "vhost": ["app", "stream"]});
    for name in ["kind", "vhost", "app", "stream"] {
        ban["properties"][name]["pattern"] = filter_schema(name)["pattern"].clone();
    }
    for (name, longest) in [("vhost", APP_BYTES_MAX), ("app", APP_BYTES_MAX), ("stream", STREAM_BYTES_MAX)] {
        // In characters, where names are measured in bytes: a schema cannot say it closer.
        ban["properties"][name]["maxLength"] = json!(longest);
    }
    let items = text["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    let operations = items.filter_map(Value::as_object_mut).flat_map(|item| item.values_mut());
    let parameters = operations.filter_map(|operation| operation.get_mut("parameters")?.as_array_mut()).flatten();
    for parameter in parameters {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        // The fields of a filter are told from others of the same name by not being about one thing.
        let of_filter = parameter["description"].as_str().is_some_and(|text| text.starts_with("Sessions "));
        let schema = &mut parameter["schema"];
        if of_filter && FILTER_SCHEMAS.iter().any(|(field, _)| *field == name) {
            *schema = filter_schema(&name);
        }
        if name == "reason" {
            *schema = json!({"type": "string", "pattern": reasons()});
        }
        // A parameter is there or it is not; it is never null. And a limit may be as large as it likes.
        if let Some(types) = schema["type"].as_array() {
            schema["type"] = types.iter().find(|one| **one != "null").cloned().unwrap_or_default();
        }
        if schema["type"] == "boolean" {
            // A name without a value says yes.
            *schema = json!({"type": "string", "enum": ["true", "false", ""]});
        }
        if let Some(members) = schema.as_object_mut()
            && members.get("type").is_some_and(|one| one == "integer")
        {
            members.remove("format");
        }
    }
    text
}

/// A name, or several with slashes between them: what [`Name`](crate::names::Name) takes. One alternative only: how
/// many there may be depends on the other fields, which a schema cannot say.
const NAME: &str = concat!(
    r#"^(?!\s|\.{1,2}(/|$))[^,/\x00-\x1f\x7f-\x9f\\"'<>`?#%|^{}\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\u061c]+(?<!\s)"#,
    r#"(/(?!\s|\.{1,2}(/|$))[^,/\x00-\x1f\x7f-\x9f\\"'<>`?#%|^{}\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\u061c]+(?<!\s))*$"#
);

/// What each field of a filter looks like.
const FILTER_SCHEMAS: [(&str, &str); 9] = [
    ("id", "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"),
    ("kind", "^(publish|play|ingest|push)$"),
    ("protocol", "^rtmp$"),
    ("vhost", NAME),
    ("app", NAME),
    ("stream", NAME),
    ("user", r"^[^,\x00-\x1f\x7f-\x9f]+$"),
    (
        "remote",
        "^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(:[1-9][0-9]{0,3}|/[12]?[0-9])?$|^([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}$",
    ),
    ("state", "^(establishing|running|stalling|finished)$"),
];

/// Any one reason for an end.
fn reasons() -> String {
    let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    format!("^({})$", names.join("|"))
}

fn filter_schema(name: &str) -> Value {
    let pattern = FILTER_SCHEMAS.iter().find(|(field, _)| *field == name).map_or("", |(_, pattern)| pattern);
    json!({"type": "string", "pattern": pattern})
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "description",
    responses((status = 200, description = "The description", body = Object)))]
pub(crate) async fn openapi(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    let text = TEXTS[usize::from(api.door.is_open())].as_str();
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_with_its_errors() {
        let text = describe(false);
        assert_eq!(text["openapi"], "3.1.0");
        let paths = text["paths"].as_object().unwrap();
        for path in [
            "/v1/sessions",
            "/v1/sessions/{id}",
            "/v1/sessions/terminate",
            "/v1/bans",
            "/v1/bans/{id}",
            "/v1/summary",
            "/v1/streams",
            "/v1/streams/{vhost}/{app}/{stream}",
            "/v1/history/sessions",
            "/v1/history/sessions/{id}",
            "/v1/history/summary",
            "/v1/history/timeline",
            "/v1/history/export",
            "/v1/node",
            "/v1/events",
            "/v1/drain",
            "/v1/reload",
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
        assert_eq!(text["security"], json!([{"bearer": []}]));
        assert_eq!(describe(true)["security"], json!([{}, {"bearer": []}]));
        for (field, schema) in FILTER_SCHEMAS {
            assert_eq!(text["components"]["schemas"]["Filter"]["properties"][field]["pattern"], schema);
        }
    }
}
