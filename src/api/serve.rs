//! Connections to the API: bounded in number, in time, and in patience.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tower::ServiceExt as _;

/// Connections at once; one more is closed at once.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Of those, from one address that is not loopback.
pub const CONNECTIONS_PER_IP: usize = 128;
/// Of those, event streams.
pub const EVENT_STREAMS_MAX: usize = 256;
/// How long a request's head may take, and how long a connection may wait for the next.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// A peer whose answer waits must take [`READ_BYTES_MIN`] in each of these.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// See [`READ_WITHIN`]. The kernel's own buffer comes on top.
const READ_BYTES_MIN: u64 = 10 << 10;
/// How long connections may finish once the server stops.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves `router` on `listener` until `shutdown`, and then until open requests are answered or two seconds have
/// passed.
///
/// # Errors
/// None today: a failing accept is a matter of descriptors and is tried again.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let (stop, stopping) = watch::channel(false);
    let places = Arc::new(Places::default());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Dropping the stream closes it: a full house answers nobody, at no cost.
                    let Some(place) = Places::take(&places, peer.ip()) else { continue };
                    connections.spawn(connection(stream, peer, router.clone(), stopping.clone(), place));
                }
                Err(error) => {
                    tracing::warn!(%error, "the API could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let _ = tokio::time::timeout(GOODBYE, async { while connections.join_next().await.is_some() {} }).await;
    connections.shutdown().await;
    Ok(())
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut stopping: watch::Receiver<bool>,
    _place: Place,
) {
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    let served = builder.serve_connection(TokioIo::new(Paced::new(stream)), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = &mut served => ended,
        // The sender sends once, to say that the server stops, or is gone, which says the same.
        _ = stopping.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection to the API ended early");
    }
}

/// Who holds a connection.
#[derive(Default)]
struct Places(Mutex<(usize, HashMap<IpAddr, usize>)>);

struct Place {
    of: Arc<Places>,
    address: IpAddr,
}

impl Places {
    fn take(of: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut held = of.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_address) = &mut *held;
        let mine = by_address.get(&address).copied().unwrap_or(0);
        if *total >= CONNECTIONS_MAX || (mine >= CONNECTIONS_PER_IP && !address.is_loopback()) {
            return None;
        }
        *total += 1;
        by_address.insert(address, mine + 1);
        Some(Place { of: Arc::clone(of), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.0 -= 1;
        let left = held.1.get(&self.address).map_or(0, |mine| mine - 1);
        if left == 0 {
            held.1.remove(&self.address);
        } else {
            held.1.insert(self.address, left);
        }
    }
}

/// A socket that gives up on a peer who reads too slowly. An answer is held in memory until it is read, so how
/// long it may take is a limit on memory. (hyper has no such timeout.)
struct Paced<S> {
    inner: S,
    /// Set from the first write that had to wait until everything is written.
    waiting: Option<Waiting>,
}

struct Waiting {
    until: Pin<Box<Sleep>>,
    moved: u64,
}

impl<S> Paced<S> {
    fn new(inner: S) -> Self {
        Self { inner, waiting: None }
    }

    /// Counts what a write moved, and fails when the peer is too slow.
    fn pace(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &wrote {
            if let Some(waiting) = &mut self.waiting {
                waiting.moved += *bytes as u64;
            }
            return wrote;
        }
        if wrote.is_ready() {
            return wrote;
        }
        let waiting =
            self.waiting.get_or_insert_with(|| Waiting { until: Box::pin(tokio::time::sleep(READ_WITHIN)), moved: 0 });
        while waiting.until.as_mut().poll(cx).is_ready() {
            if waiting.moved < READ_BYTES_MIN {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads too slowly")));
            }
            waiting.moved = 0;
            waiting.until.as_mut().reset(Instant::now() + READ_WITHIN);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.pace(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.pace(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper flushes the socket when its own buffer is empty: the peer has caught up.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.waiting = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test(start_paused = true)]
    async fn ap_08_a_reader_below_the_least_rate_is_given_up() {
        let (near, mut far) = tokio::io::duplex(1_024);
        let mut near = Paced::new(near);
        let writer = tokio::spawn(async move { near.write_all(&vec![0; 1 << 20]).await });
        let slow = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if far.read_u8().await.is_err() {
                    break;
                }
            }
        });
        assert_eq!(writer.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        slow.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_reader_may_take_as_long_as_it_likes() {
        let (near, mut far) = tokio::io::duplex(1_024);
        let mut near = Paced::new(near);
        let writer = tokio::spawn(async move { near.write_all(&vec![0; 256 << 10]).await });
        let mut buffer = [0; 2_048];
        let mut read = 0;
        while read < 256 << 10 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            read += far.read(&mut buffer).await.unwrap();
        }
        assert!(writer.await.unwrap().is_ok());
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let places = Arc::new(Places::default());
        let stranger: IpAddr = "198.51.100.4".parse().unwrap();
        let mut held: Vec<_> = (0..CONNECTIONS_PER_IP).filter_map(|_| Places::take(&places, stranger)).collect();
        assert_eq!(held.len(), CONNECTIONS_PER_IP);
        assert!(Places::take(&places, stranger).is_none());
        held.pop();
        held.extend(Places::take(&places, stranger));
        assert_eq!(held.len(), CONNECTIONS_PER_IP);
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        held.extend((0..CONNECTIONS_MAX).filter_map(|_| Places::take(&places, local)));
        assert_eq!(held.len(), CONNECTIONS_MAX);
        drop(held);
        let state = places.0.lock().unwrap();
        assert_eq!((state.0, state.1.len()), (0, 0));
    }
}
