//! Fetching a small document, as the key set of a token's issuer.

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use reqwest::Url;
use tokio::time::timeout;

use crate::admission::Failure;
use crate::admission::token::base64;
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
        let mut url = Url::parse(url).map_err(|_| Failure::Connect)?;
        if let Some(credentials) = credentials(&url) {
            headers.insert(header::AUTHORIZATION, credentials);
            // They are said in the header and nowhere else.
            if url.set_username("").and_then(|()| url.set_password(None)).is_err() {
                return Err(Failure::Connect);
            }
        }
        let uri = uri(url.as_str()).ok_or(Failure::Connect)?;
        let mut response = self.http.send(Method::GET, uri, headers, Bytes::new()).await?;
        if response.status() != StatusCode::OK.as_u16() {
            return Err(Failure::Status(response.status()));
        }
        let body = response.body(DOCUMENT_BYTES_MAX).await?;
        String::from_utf8(body).map_err(|_| Failure::Malformed("text"))
    }
}

/// User and password of a URL, as RFC 7617 has them in a header.
fn credentials(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut pair = unescape(url.username());
    pair.push(b':');
    pair.extend(unescape(url.password().unwrap_or_default()));
    let mut text = base64::encode(&pair).replace('-', "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    let mut value = HeaderValue::from_str(&format!("Basic {text}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Undoes percent escapes; what only looks like one stays.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|two| *first == b'%' && two.iter().all(u8::is_ascii_hexdigit));
        let escaped = escaped.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        out.push(escaped.unwrap_or(*first));
        rest = after.get(if escaped.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    out
}
