//! Fetching a small document, as the key set of a token's issuer.

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::time::timeout;

use crate::admission::Failure;
use crate::hook::client::{StartError, uri};
use crate::hook::http::Http;
use crate::hook::settings::Settings;

/// The most bytes of a document.
pub const DOCUMENT_BYTES_MAX: usize = 256 << 10;

/// Fetches documents. Clones share their connections.
#[derive(Clone)]
pub struct Fetcher {
    http: Http,
    patience: std::time::Duration,
}

impl Fetcher {
    /// Makes ready to fetch. A document may come from this machine or its network: its URL is the operator's own word.
    ///
    /// # Errors
    /// When TLS cannot be set up: the system has no certificates, for one.
    pub fn new(settings: &Settings) -> Result<Self, StartError> {
        Ok(Self { http: Http::new(settings, true, None)?, patience: settings.decide_timeout })
    }

    /// The document at `url`, which must answer 200 with UTF-8 text within `hook.decide_timeout`.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn get(&self, url: &str) -> Result<String, Failure> {
        timeout(self.patience, self.read(url)).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn read(&self, url: &str) -> Result<String, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        let uri = uri(url).ok_or(Failure::Connect)?;
        let mut response = self.http.send(Method::GET, uri, headers, Bytes::new()).await?;
        if response.status() != StatusCode::OK.as_u16() {
            return Err(Failure::Status(response.status()));
        }
        let body = response.body(DOCUMENT_BYTES_MAX).await?;
        String::from_utf8(body).map_err(|_| Failure::Malformed("text"))
    }
}
