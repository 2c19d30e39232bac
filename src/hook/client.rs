//! One back end: its address, its connections, its secrets. What is sent is signed, what comes back is bounded.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Uri};
use tokio::time::timeout;

use crate::admission::Failure;
use crate::hook::http::{Head, Http};
use crate::hook::settings::Settings;
use crate::hook::sign::{EVENT_ID, KEY_ID, SIGNATURE, Signer, TIMESTAMP};
use crate::stdx::units::Secret;

/// How long the rest of a response is read that nobody needs.
const REST: Duration = Duration::from_millis(500);

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
    http: Http,
    uri: Uri,
    /// Replaced when the secrets are.
    signer: Mutex<Signer>,
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
        headers_max: Option<usize>,
    ) -> Result<Self, StartError> {
        let uri = uri(url).ok_or_else(|| StartError::Url(name.to_owned()))?;
        let http = Http::new(settings, private, headers_max)?;
        let body_max = usize::try_from(settings.response_body).unwrap_or(usize::MAX);
        Ok(Self { http, uri, signer: Mutex::new(Signer::new(secrets)), body_max })
    }

    /// Sends one request and reads the response to its end. The caller sets the deadline: dropping this closes the
    /// connection, so that what is late is never taken for an answer to something else.
    pub(crate) async fn post(&self, event_id: &str, body: Bytes) -> Result<Reply, Failure> {
        let mut response = self.send(event_id, body).await?;
        let (status, headers) = (response.status(), response.headers());
        // Two lengths at once is how one response becomes two.
        if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Failure::Malformed("length"));
        }
        let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_vec());
        let back_off = retry_after(status, headers);
        let body = response.body(self.body_max).await?;
        Ok(Reply { status, encoding, back_off, body })
    }

    /// Sends one request of whose response only the status matters: once it is here, nothing that follows makes it undone.
    pub(crate) async fn notify(&self, event_id: &str, body: Bytes) -> Result<Status, Failure> {
        let mut response = self.send(event_id, body).await?;
        let status = response.status();
        let back_off = retry_after(status, response.headers());
        // A connection whose response was read to its end can be used again; one that goes on is closed.
        let _ = timeout(REST, response.body(self.body_max)).await;
        Ok(Status { status, back_off })
    }

    async fn send(&self, event_id: &str, body: Bytes) -> Result<Head, Failure> {
        let headers = self.headers(event_id, &body);
        self.http.send(Method::POST, self.uri.clone(), headers, body).await
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

/// How long the back end asks to be left alone, in whole seconds; a date is not worth a parser.
fn retry_after(status: u16, headers: &HeaderMap) -> Option<Duration> {
    if !matches!(status, 429 | 503) {
        return None;
    }
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A URL as it is asked for: names of hosts and odd characters as they are written on the wire.
pub(crate) fn uri(url: &str) -> Option<Uri> {
    reqwest::Url::parse(url).ok()?.as_str().parse().ok()
}
