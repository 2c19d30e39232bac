//! Fetching a small document, as the key set of a token's issuer.

use reqwest::{Client, StatusCode};
use tokio::time::timeout;

use crate::admission::Failure;
use crate::hook::client::{StartError, client, failure};
use crate::hook::settings::Settings;

/// The most bytes of a document.
pub const DOCUMENT_BYTES_MAX: usize = 256 << 10;

/// Fetches documents. Clones share their connections.
#[derive(Clone)]
pub struct Fetcher {
    client: Client,
    patience: std::time::Duration,
}

impl Fetcher {
    /// Makes ready to fetch. A document may come from this machine or its network: its URL is the operator's own word.
    ///
    /// # Errors
    /// When TLS cannot be set up: the system has no certificates, for one.
    pub fn new(settings: &Settings) -> Result<Self, StartError> {
        Ok(Self { client: client(settings, true)?, patience: settings.decide_timeout })
    }

    /// The document at `url`, which must answer 200 with UTF-8 text within `hook.decide_timeout`.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn get(&self, url: &str) -> Result<String, Failure> {
        timeout(self.patience, self.read(url)).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn read(&self, url: &str) -> Result<String, Failure> {
        let mut response = self.client.get(url).send().await.map_err(|error| failure(&error))?;
        if response.status() != StatusCode::OK {
            return Err(Failure::Status(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| failure(&error))? {
            if body.len().saturating_add(piece.len()) > DOCUMENT_BYTES_MAX {
                return Err(Failure::Malformed("body"));
            }
            body.extend_from_slice(&piece);
        }
        String::from_utf8(body).map_err(|_| Failure::Malformed("text"))
    }
}
