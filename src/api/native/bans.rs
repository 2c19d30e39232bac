//! Bans: `GET` and `POST /v1/bans`, `DELETE /v1/bans/{id}`.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use axum::extract::{RawQuery, Request, State};
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::admission::{Ban, Whom};
use crate::api::body;
use crate::api::native::{json, page, terminate, wire};
use crate::api::query::Params;
use crate::api::{Problem, Shared};
use crate::names::{DEFAULT_VHOST, Kind, Name, StreamKey};

/// One ban in force.
#[derive(Serialize, ToSchema)]
#[schema(as = Ban)]
pub struct BanBody {
    /// What `DELETE /v1/bans/{id}` takes: the same as long as the same peer, role and stream are meant.
    id: String,
    /// Whose.
    address: String,
    /// In which role; null in any.
    kind: Option<&'static str>,
    /// On which virtual host; null, as app and stream then are, on any stream.
    vhost: Option<String>,
    /// In which application.
    app: Option<String>,
    /// On which stream.
    stream: Option<String>,
    /// Until when.
    #[schema(format = DateTime)]
    until: String,
    /// Seconds left.
    seconds: f64,
}

/// A page of bans, those that end first first.
#[derive(Serialize, ToSchema)]
pub struct BanPage {
    /// The bans.
    bans: Vec<BanBody>,
    /// How many there are in all.
    total: usize,
}

/// Whom to ban, and for how long.
#[derive(ToSchema)]
#[allow(dead_code)] // Read by the description only; the values are read by `body`.
pub struct BanRequest {
    /// Whose.
    #[schema(format = Ipv4)]
    address: String,
    /// In which role; absent means in any.
    #[schema(required = false)]
    kind: String,
    /// On which virtual host, where a stream is named; absent means `default`.
    #[schema(required = false)]
    vhost: String,
    /// In which application; goes with `stream`.
    #[schema(required = false)]
    app: String,
    /// On which stream; absent means on any.
    #[schema(required = false)]
    stream: String,
    /// How long: `"10m"`, or whole seconds. More than a year is taken for a year.
    #[schema(schema_with = terminate::ban_for_schema)]
    ban_for: String,
}

/// What a ban did.
#[derive(Serialize, ToSchema)]
pub struct Banned {
    /// The ban.
    ban: BanBody,
    /// Sessions of that peer that it ended.
    closed: usize,
}

/// What became of a ban.
#[derive(Serialize, ToSchema)]
pub struct Lifted {
    /// There was one.
    lifted: bool,
}

/// The bans in force.
#[utoipa::path(get, path = "/v1/bans", tag = "bans",
    params(("limit" = Option<u64>, Query, minimum = 1,
        description = "The most bans to name; more than 1000 is taken for 1000.")),
    responses((status = 200, description = "The bans that end first", body = BanPage)))]
pub(crate) async fn list(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &[&["limit"]])?;
    let limit = page::limit(params.take("limit"))?;
    let now = Instant::now();
    let page = api.control.view(|view| {
        let in_force = view.bans.iter().filter(|(_, until)| *until > now);
        let bans = in_force.take(limit).map(|(whom, until)| show(whom, until, now, view)).collect();
        BanPage { bans, total: view.bans.len() }
    });
    Ok(json(&page))
}

/// Bans a peer, and ends the sessions that it has here.
#[utoipa::path(post, path = "/v1/bans", tag = "bans", request_body = BanRequest,
    responses((status = 200, description = "Every shard refuses the peer", body = Banned)))]
pub(crate) async fn ban(State(api): State<Shared>, request: Request) -> Result<Response, Problem> {
    Params::parse(request.uri().query(), &[])?;
    let mut body = body::read(request).await?;
    let mut texts = Texts::default();
    for name in WHOM_FIELDS {
        *texts.field(name) = body.take_text(name)?;
    }
    let ban_for = terminate::take_ban_for(&mut body)?
        .ok_or_else(|| Problem::body("ban_for", "say how long, as \"10m\" or in whole seconds"))?;
    body.finish()?;
    let whom = texts.whom().map_err(|(field, detail)| Problem::body(field, detail))?;
    let now = Instant::now();
    let until = now + ban_for.max(Duration::from_millis(1));
    let done = api.control.ban(Ban { whom: whom.clone(), until }).await?;
    // One that was there already and ends later stays in force.
    let ban = api.control.view(|view| {
        let in_force = view.bans.iter().find(|(other, _)| **other == whom).map(|(_, until)| until);
        show(&whom, in_force.unwrap_or(until), now, view)
    });
    Ok(json(&Banned { ban, closed: done.closed }))
}

/// Lifts a ban.
#[utoipa::path(delete, path = "/v1/bans/{id}", tag = "bans",
    params(("id" = String, Path, description = "The ban's id, as the list names it", pattern = "^[0-9a-f]{32}$")),
    responses((status = 200, description = "The peer may come back", body = Lifted)))]
pub(crate) async fn lift(State(api): State<Shared>, uri: Uri, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[])?;
    let id = uri.path().rsplit('/').next().unwrap_or_default();
    if id.len() != 2 * ID_BYTES || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Problem::parameter("id", "this is not the id of a ban (32 hexadecimal digits)"));
    }
    let whom = api.control.view(|view| view.bans.iter().map(|(whom, _)| whom).find(|whom| id_of(whom) == id).cloned());
    let gone = || Problem::not_found("no ban has this id").about("id");
    if api.control.unban(whom.ok_or_else(gone)?).await? { Ok(json(&Lifted { lifted: true })) } else { Err(gone()) }
}

/// Bytes of a ban's id.
const ID_BYTES: usize = 16;

/// The same for the same peer, role and stream, also after a restart.
fn id_of(whom: &Whom) -> String {
    use std::fmt::Write as _;
    let key = whom.key.as_ref().map(|key| [key.vhost(), key.app(), key.stream()].join("\0"));
    let mut hash = Sha256::new();
    for part in
        [whom.address.to_string().as_str(), whom.kind.map_or("", Kind::as_str), key.as_deref().unwrap_or_default()]
    {
        hash.update(part);
        hash.update(b"\0\0");
    }
    hash.finalize().iter().take(ID_BYTES).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The fields that say whom a ban concerns.
const WHOM_FIELDS: [&str; 5] = ["address", "kind", "vhost", "app", "stream"];

/// What was written in them.
#[derive(Default)]
struct Texts {
    address: Option<String>,
    kind: Option<String>,
    vhost: Option<String>,
    app: Option<String>,
    stream: Option<String>,
}

impl Texts {
    fn field(&mut self, name: &str) -> &mut Option<String> {
        match name {
            "address" => &mut self.address,
            "kind" => &mut self.kind,
            "vhost" => &mut self.vhost,
            "app" => &mut self.app,
            _ => &mut self.stream,
        }
    }

    /// Whom they name, or which of them is wrong.
    fn whom(&self) -> Result<Whom, (&'static str, String)> {
        let wrong = |field, detail: &str| Err((field, detail.to_owned()));
        let Some(address) = self.address.as_deref().and_then(|text| IpAddr::from_str(text).ok()) else {
            return wrong("address", "write one address, as 192.0.2.1 or 2001:db8::1");
        };
        let kind = match self.kind.as_deref() {
            None => None,
            Some(text) => match Kind::ALL.into_iter().find(|kind| kind.as_str() == text) {
                None => return wrong("kind", "write publish, play, ingest or push"),
                known => known,
            },
        };
        let name =
            |field, name: Result<Name, crate::names::NameError>| name.map_err(|error| (field, error.to_string()));
        let key = match (&self.app, &self.stream) {
            (None, None) if self.vhost.is_some() => return wrong("app", "a vhost goes with an app and a stream"),
            (None, None) => None,
            (Some(_), None) => return wrong("stream", "an app goes with a stream"),
            (None, Some(_)) => return wrong("app", "a stream goes with an app"),
            (Some(app), Some(stream)) => {
                let vhost = name("vhost", Name::app(self.vhost.as_deref().unwrap_or(DEFAULT_VHOST)))?;
                Some(StreamKey::new(&vhost, &name("app", Name::app(app))?, &name("stream", Name::stream(stream))?))
            }
        };
        Ok(Whom { address: address.to_canonical(), kind, key })
    }
}

fn show(whom: &Whom, until: Instant, now: Instant, view: &crate::control::View) -> BanBody {
    BanBody {
        id: id_of(whom),
        address: whom.address.to_string(),
        kind: whom.kind.map(Kind::as_str),
        vhost: whom.key.as_ref().map(|key| key.vhost().to_owned()),
        app: whom.key.as_ref().map(|key| key.app().to_owned()),
        stream: whom.key.as_ref().map(|key| key.stream().to_owned()),
        until: wire::rfc3339(view.wall.since_epoch(until)),
        seconds: until.saturating_duration_since(now).as_secs_f64(),
    }
}
