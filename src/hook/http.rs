//! The client of the calls that we make: HTTP/1.1 over TCP or TLS, and of what comes back no more than the limits allow. It
//! knows no redirects, no proxies, no cookies and no compression, and remembers nothing.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tower::Service;

use crate::admission::Failure;
use crate::hook::client::StartError;
use crate::hook::resolver::{Resolver, System};
use crate::hook::settings::Settings;

/// A connection that nothing goes over is closed after this.
const IDLE: Duration = Duration::from_secs(30);
/// How often the kernel asks whether the other end of a silent connection is still there, and how often in vain.
const KEEPALIVE: (Duration, u32) = (Duration::from_secs(15), 3);
/// How long the kernel tries to get bytes to a peer that acknowledges none.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// The most headers of a response.
pub const HEADERS_MAX: usize = 64;
/// The most interim responses (1xx) before the response.
pub const INTERIM_MAX: usize = 8;
/// What a head has beside its headers: the status line with its phrase, and the empty line.
const STATUS_LINE_BYTES_MAX: usize = 1 << 10;
/// The smallest buffer that hyper reads with.
const BUFFER_BYTES_MIN: usize = 8 << 10;

/// A client with connections of its own. Clones share them.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<Connector, Full<Bytes>>,
    headers_max: Option<usize>,
}

/// A response whose head is within the limits.
pub(crate) struct Head(Response<Incoming>);

impl Http {
    /// Makes ready. Addresses are checked after they were looked up, unless `private` says that any will do. The headers of
    /// a response have at most `headers_max` bytes, or what hyper takes for sane, which is 400 KiB.
    pub(crate) fn new(settings: &Settings, private: bool, headers_max: Option<usize>) -> Result<Self, StartError> {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(settings.concurrency)
            .http1_max_headers(HEADERS_MAX);
        if let Some(most) = headers_max {
            builder.http1_max_buf_size(most.saturating_add(STATUS_LINE_BYTES_MAX).max(BUFFER_BYTES_MIN));
        }
        Ok(Self { client: builder.build(Connector::new(settings, private)?), headers_max })
    }

    /// Sends one request and waits for the head of its response. Dropping this closes the connection.
    pub(crate) async fn send(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Head, Failure> {
        const AGENT: HeaderValue = HeaderValue::from_static(concat!("sluicegate/", env!("CARGO_PKG_VERSION")));
        let mut request = Request::new(Full::new(body));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
        request.headers_mut().insert(header::USER_AGENT, AGENT);
        let interim = Arc::new(Interim::default());
        let counted = Arc::clone(&interim);
        hyper::ext::on_informational(&mut request, move |_| counted.add());
        let response = tokio::select! {
            biased;
            () = interim.too_many.notified() => return Err(Failure::Malformed("interim")),
            response = self.client.request(request) => response.map_err(|error| failure_of_request(&error))?,
        };
        let headers = response.headers();
        let size = |(name, value): (&header::HeaderName, &HeaderValue)| {
            // The colon, a blank and the end of the line.
            name.as_str().len().saturating_add(value.len()).saturating_add(4)
        };
        let bytes = headers.iter().map(size).fold(0, usize::saturating_add);
        if self.headers_max.is_some_and(|most| bytes > most) {
            return Err(Failure::Malformed("headers"));
        }
        Ok(Head(response))
    }
}

impl Head {
    pub(crate) fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }

    /// The body to its end.
    pub(crate) async fn body(&mut self, bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(frame) = self.0.body_mut().frame().await {
            let frame = frame.map_err(|error| failure(&error))?;
            // What follows the body is no part of it.
            let Some(piece) = frame.data_ref() else { continue };
            if body.len().saturating_add(piece.len()) > bytes_max {
                return Err(Failure::Malformed("body"));
            }
            body.extend_from_slice(piece);
        }
        Ok(body)
    }
}

/// Interim responses to one request. Each of them starts the wait for the response anew, as far as HTTP is concerned.
#[derive(Default)]
struct Interim {
    count: AtomicUsize,
    too_many: Notify,
}

impl Interim {
    fn add(&self) {
        if self.count.fetch_add(1, Ordering::Relaxed) >= INTERIM_MAX {
            self.too_many.notify_one();
        }
    }
}

/// Opens connections, and is done with one within `hook.connect_timeout`, TLS included.
#[derive(Clone)]
struct Connector {
    inner: HttpsConnector<HttpConnector<Resolver<System>>>,
    patience: Duration,
}

impl Connector {
    fn new(settings: &Settings, private: bool) -> Result<Self, StartError> {
        let patience = settings.connect_timeout;
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new(System, patience / 2, private));
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(patience));
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE.0));
        tcp.set_keepalive_interval(Some(KEEPALIVE.0));
        tcp.set_keepalive_retries(Some(KEEPALIVE.1));
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let tls = tls().map_err(|error| StartError::Client(error.to_string()))?;
        Ok(Self { inner: HttpsConnector::from((tcp, tls)), patience })
    }
}

/// TLS 1.2 and 1.3, checked against the system's certificates.
fn tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(&provider))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

type Wrong = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Wrong;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Wrong>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Wrong>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = timeout(self.patience, self.inner.call(uri));
        Box::pin(async move { connecting.await? })
    }
}

fn failure_of_request(error: &legacy::Error) -> Failure {
    if error.is_connect() { Failure::Connect } else { failure(error) }
}

/// What an error of a connection means.
fn failure(error: &(dyn Error + 'static)) -> Failure {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(http) = inner.downcast_ref::<hyper::Error>() {
            if http.is_parse_too_large() {
                return Failure::Malformed("headers");
            }
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
