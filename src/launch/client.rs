//! A client of a running server's API, for the commands and the demo.

use std::fmt;
use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::stdx::units::Secret;

/// How long one answer may take. The server answers from memory; a proxy between may not.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Sessions asked for at once; the server gives no more.
const PAGE: &str = "1000";
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A session as `GET /v1/sessions` gives it; what the table does not show is left out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// `publish`, `play`, `ingest`, `push`.
    pub kind: String,
    /// `establishing`, `running`, `stalling`.
    pub state: String,
    /// Virtual host.
    pub vhost: String,
    /// Application.
    pub app: String,
    /// Stream.
    pub stream: String,
    /// The peer.
    pub remote: String,
    /// From first contact until now.
    pub duration_ms: u64,
    /// Bytes in total.
    pub bytes: Both,
    /// Bits a second.
    pub rates: Rates,
    /// Bytes that wait for it.
    pub queue_bytes: u64,
    /// Frames that it did not get.
    pub dropped_frames: u64,
}

/// A quantity in both directions, seen from the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Both {
    /// Received.
    pub rx: u64,
    /// Sent.
    pub tx: u64,
}

/// Bits a second; of the windows the table shows the middle one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// Received, over 10 s.
    pub rx_bps_10s: u64,
    /// Sent, over 10 s.
    pub tx_bps_10s: u64,
}

/// What came of a kick.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Terminated {
    /// Sessions that matched (the first thousand).
    pub ids: Vec<String>,
    /// How many matched.
    pub matched: usize,
    /// How many were closed.
    pub closed: usize,
    /// Bans made.
    pub banned: usize,
    /// Nothing was done.
    pub dry_run: bool,
}

/// What came of ending one session.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Closed {
    /// Which.
    pub id: String,
    /// It had ended before.
    pub already_closed: bool,
    /// Bans made.
    pub banned: usize,
}

/// What came of a reload.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Reloaded {
    /// Which configuration is in force.
    pub generation: u64,
    /// Keys that have another value now.
    pub changed: Vec<String>,
    /// Keys that take effect at a restart.
    pub pending: Vec<String>,
    /// What is doubtful.
    pub warnings: Vec<String>,
    /// Sessions that were ended.
    pub closed: usize,
}

/// A drain has begun.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Draining {
    /// Over how long.
    pub over_ms: u64,
}

#[derive(Deserialize)]
struct Page<T> {
    sessions: Vec<T>,
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
    field: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The address cannot be used.
    Address(String),
    /// Nobody answers there.
    Unreachable {
        /// Where.
        api: String,
        /// Why.
        cause: String,
    },
    /// The server wants a token, or another one.
    Unauthorized {
        /// True when one was sent.
        token_sent: bool,
    },
    /// The server refused, in its own words.
    Refused {
        /// The status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// Something answered that is no Sluicegate.
    Foreign {
        /// Where.
        api: String,
        /// What was wrong with the answer.
        cause: String,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(why) => write!(f, "--api: {why}; write an address as \"http://127.0.0.1:8081\""),
            Self::Unreachable { api, cause } => write!(
                f,
                "no server answers at {api} ({cause}); is `sluicegate run` up? Another address is given with --api"
            ),
            Self::Unauthorized { token_sent: false } => {
                f.write_str("the server wants a token; give it with SLUICEGATE_TOKEN or --token")
            }
            Self::Unauthorized { token_sent: true } => f.write_str("the server does not know this token"),
            Self::Refused { status, message } => write!(f, "the server refused ({status}): {message}"),
            Self::Foreign { api, cause } => write!(f, "what answers at {api} is not a Sluicegate API: {cause}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// The client. Its token is never printed.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    api: Url,
    token: Option<Secret>,
}

impl Client {
    /// A client of the API at `api`, as `http://127.0.0.1:8081`; the scheme may be left out.
    ///
    /// # Errors
    /// When that is no address.
    pub fn new(api: &str, token: Option<Secret>) -> Result<Self, ClientError> {
        let text = if api.contains("://") { api.to_owned() } else { format!("http://{api}") };
        let api = Url::parse(&text).map_err(|error| ClientError::Address(format!("`{api}`: {error}")))?;
        if api.scheme() != "http" {
            let message = format!("`{}` is not spoken here, only http", api.scheme());
            return Err(ClientError::Address(message));
        }
        let http = reqwest::Client::builder()
            .timeout(ANSWER_WITHIN)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ClientError::Address(error.to_string()))?;
        Ok(Self { http, api, token })
    }

    /// All sessions that match, page after page.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn sessions<T: DeserializeOwned>(&self, filters: &[(&str, String)]) -> Result<Vec<T>, ClientError> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut url = self.url("/v1/sessions");
            {
                let mut query = url.query_pairs_mut();
                query.append_pair("limit", PAGE);
                for (name, value) in filters {
                    query.append_pair(name, value);
                }
                if let Some(cursor) = &cursor {
                    query.append_pair("cursor", cursor);
                }
            }
            let page: Page<T> = self.ask(self.http.request(Method::GET, url)).await?;
            let empty = page.sessions.is_empty();
            all.extend(page.sessions);
            // A cursor that does not move would be asked for ever.
            if page.cursor.is_none() || (empty && page.cursor == cursor) {
                return Ok(all);
            }
            cursor = page.cursor;
        }
    }

    /// Ends one session.
    ///
    /// # Errors
    /// Why there is no answer; an unknown id is `Refused` with 404.
    pub async fn close(&self, id: &str, ban_for: Option<&str>) -> Result<Closed, ClientError> {
        let mut url = self.url("/v1/sessions");
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(id);
        }
        if let Some(time) = ban_for {
            url.query_pairs_mut().append_pair("ban_for", time);
        }
        self.ask(self.http.request(Method::DELETE, url)).await
    }

    /// Ends the sessions that match.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn terminate(
        &self,
        filters: &[(&str, String)],
        ban_for: Option<&str>,
        dry_run: bool,
        all: bool,
    ) -> Result<Terminated, ClientError> {
        let filter: serde_json::Map<String, serde_json::Value> =
            filters.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
        let mut body = serde_json::json!({ "filter": filter, "dry_run": dry_run });
        if let (Some(time), Some(body)) = (ban_for, body.as_object_mut()) {
            body.insert("ban_for".into(), time.into());
        }
        if let (true, Some(body)) = (all, body.as_object_mut()) {
            body.insert("confirm".into(), "all".into());
        }
        self.ask(self.http.request(Method::POST, self.url("/v1/sessions/terminate")).json(&body)).await
    }

    /// Has the server read its configuration again.
    ///
    /// # Errors
    /// Why there is no answer; a configuration that is wrong is `Refused` with 422.
    pub async fn reload(&self) -> Result<Reloaded, ClientError> {
        self.ask(self.http.request(Method::POST, self.url("/v1/reload"))).await
    }

    /// Begins a drain.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn drain(&self, over: Option<&str>) -> Result<Draining, ClientError> {
        let mut body = serde_json::Map::new();
        body.extend(over.map(|time| ("over".to_owned(), time.into())));
        self.ask(self.http.request(Method::POST, self.url("/v1/drain")).json(&body)).await
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.api.clone();
        url.set_path(path);
        url.set_query(None);
        url
    }

    async fn ask<T: DeserializeOwned>(&self, mut request: reqwest::RequestBuilder) -> Result<T, ClientError> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        let api = self.api.origin().ascii_serialization();
        let unreachable =
            |error: &reqwest::Error| ClientError::Unreachable { api: api.clone(), cause: root_cause(error) };
        let mut answer = request.send().await.map_err(|error| unreachable(&error))?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len() + part.len() > ANSWER_BYTES_MAX {
                return Err(ClientError::Foreign { api, cause: "the answer does not end".into() });
            }
            body.extend_from_slice(&part);
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(ClientError::Unauthorized { token_sent: self.token.is_some() });
        }
        if !status.is_success() {
            let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
            let said = if problem.detail.is_empty() { problem.title } else { problem.detail };
            let message = match problem.field {
                Some(field) => format!("{field}: {said}"),
                None if said.is_empty() => status.canonical_reason().unwrap_or("no reason given").to_owned(),
                None => said,
            };
            return Err(ClientError::Refused { status: status.as_u16(), message });
        }
        serde_json::from_slice(&body).map_err(|error| ClientError::Foreign { api, cause: error.to_string() })
    }
}

/// The innermost cause: "connection refused" rather than "error sending request".
fn root_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
