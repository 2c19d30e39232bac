//! One back end: its address, its connections, its secrets. What is sent is signed, what comes back is bounded.

use std::error::Error as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Response, Url};
use tokio::time::timeout;

use crate::admission::Failure;
use crate::hook::resolver::{Resolver, System};
use crate::hook::settings::Settings;
use crate::hook::sign::{EVENT_ID, KEY_ID, SIGNATURE, Signer, TIMESTAMP};
use crate::stdx::units::Secret;

/// A connection that nothing goes over is closed after this.
const IDLE: Duration = Duration::from_secs(30);
/// How long the rest of a response is read that nobody needs.
const REST: Duration = Duration::from_millis(500);
/// The most headers of a response.
const HEADERS_MAX: usize = 64;

/// Why a back end cannot be spoken to at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its URL is none; it was checked before.
    #[error("`{0}` has no usable URL")]
    Url(String),
    /// TLS or the system's certificates.
    #[error("no HTTP client: {0}")]
    Client(String),
}

/// Where and how to send.
pub(crate) struct BackEnd {
    client: Client,
    url: Url,
    /// Replaced when the secrets are.
    signer: Mutex<Signer>,
    headers_max: usize,
    body_max: usize,
}

/// What came back.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) encoding: Option<Vec<u8>>,
    /// How long the back end asks to be left alone; only for statuses that mean it.
    pub(crate) back_off: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

/// What came back, where only that matters.
pub(crate) struct Status {
    pub(crate) status: u16,
    pub(crate) back_off: Option<Duration>,
}

impl BackEnd {
    pub(crate) fn new(
        settings: &Settings,
        name: &str,
        url: &str,
        secrets: &[Secret],
        private: bool,
    ) -> Result<Self, StartError> {
        let url = Url::parse(url).map_err(|_| StartError::Url(name.to_owned()))?;
        let client = client(settings, private)?;
        let bytes = |most: u64| usize::try_from(most).unwrap_or(usize::MAX);
        let (headers_max, body_max) = (bytes(settings.response_headers), bytes(settings.response_body));
        Ok(Self { client, url, signer: Mutex::new(Signer::new(secrets)), headers_max, body_max })
    }

    /// Sends one request and reads the response to its end. The caller sets the deadline: dropping this closes the
    /// connection, so that what is late is never taken for an answer to something else.
    pub(crate) async fn post(&self, event_id: &str, body: Bytes) -> Result<Reply, Failure> {
        let mut response = self.send(event_id, body).await?;
        let status = response.status().as_u16();
        let headers = response.headers();
        let size: usize =
            headers.iter().map(|(name, value)| name.as_str().len().saturating_add(value.len()).saturating_add(4)).sum();
        if size > self.headers_max {
            return Err(Failure::Malformed("headers"));
        }
        // Two lengths at once is how one response becomes two.
        if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Failure::Malformed("length"));
        }
        let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_vec());
        let back_off = retry_after(status, headers);
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| failure(&error))? {
            if body.len().saturating_add(piece.len()) > self.body_max {
                return Err(Failure::Malformed("body"));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Reply { status, encoding, back_off, body })
    }

    /// Sends one request of whose response only the status matters: once it is here, nothing that follows makes it undone.
    pub(crate) async fn notify(&self, event_id: &str, body: Bytes) -> Result<Status, Failure> {
        let mut response = self.send(event_id, body).await?;
        let status = response.status().as_u16();
        let back_off = retry_after(status, response.headers());
        // A connection whose response was read to its end can be used again; one that goes on is closed.
        let rest = async {
            let mut left = self.body_max;
            while let Ok(Some(piece)) = response.chunk().await {
                left = left.saturating_sub(piece.len());
                if left == 0 {
                    break;
                }
            }
        };
        let _ = timeout(REST, rest).await;
        Ok(Status { status, back_off })
    }

    async fn send(&self, event_id: &str, body: Bytes) -> Result<Response, Failure> {
        let headers = self.headers(event_id, &body);
        let request = self.client.post(self.url.clone()).headers(headers).body(body);
        request.send().await.map_err(|error| failure(&error))
    }

    /// Signs with other secrets from now on.
    pub(crate) fn sign_with(&self, secrets: &[Secret]) {
        *self.signer.lock().unwrap_or_else(PoisonError::into_inner) = Signer::new(secrets);
    }

    fn headers(&self, event_id: &str, body: &[u8]) -> HeaderMap {
        // Receivers compare the time with theirs: it is the wall clock's, also when that was set since the start.
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(TIMESTAMP, HeaderValue::from(timestamp));
        let secrets = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        let signed = secrets.sign(timestamp, event_id, body);
        let values = [
            (EVENT_ID, Some(event_id)),
            (SIGNATURE, signed.as_ref().map(|(signature, _)| signature.as_str())),
            (KEY_ID, signed.as_ref().map(|(_, key_ids)| *key_ids)),
        ];
        for (name, value) in values {
            // Ours are all of letters, digits and punctuation.
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

/// A client with connections of its own: no redirects, no proxies, nothing remembered, addresses checked after they were
/// looked up.
pub(crate) fn client(settings: &Settings, private: bool) -> Result<Client, StartError> {
    let resolver = Resolver::new(System, settings.connect_timeout / 2, private);
    // No cookies, no compression, no HTTP/2 and no proxies of the environment are compiled in or switched on.
    Client::builder()
        .user_agent(concat!("sluicegate/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .http1_max_headers(HEADERS_MAX)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .connect_timeout(settings.connect_timeout)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(settings.concurrency)
        .tcp_nodelay(true)
        .dns_resolver(resolver)
        .build()
        .map_err(|error| StartError::Client(sentence(&error)))
}

/// How long the back end asks to be left alone, in whole seconds; a date is not worth a parser.
fn retry_after(status: u16, headers: &HeaderMap) -> Option<Duration> {
    if !matches!(status, 429 | 503) {
        return None;
    }
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What a client's error means.
pub(crate) fn failure(error: &reqwest::Error) -> Failure {
    if error.is_connect() {
        return Failure::Connect;
    }
    if error.is_timeout() {
        return Failure::Timeout;
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(http) = inner.downcast_ref::<hyper::Error>() {
            if http.is_parse() {
                return Failure::Malformed("http");
            }
            if http.is_incomplete_message() {
                return Failure::Malformed("truncated");
            }
        }
        // What is wrong with a body comes as an error of reading.
        match inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(std::io::ErrorKind::UnexpectedEof) => return Failure::Malformed("truncated"),
            Some(std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData) => {
                return Failure::Malformed("http");
            }
            _ => {}
        }
        cause = inner.source();
    }
    Failure::Connect
}

/// An error with its causes, without the URL: it may carry a key.
fn sentence(error: &reqwest::Error) -> String {
    let mut text = error.source().map_or_else(|| "it does not say why".to_owned(), ToString::to_string);
    let mut cause = error.source().and_then(std::error::Error::source);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
