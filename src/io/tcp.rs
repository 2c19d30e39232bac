//! TCP sockets: listeners that share a port, and streams whose reads and writes never block.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockRef, Socket, TcpKeepalive, Type};

/// Binds a listener that shares its port with the other shards' (`SO_REUSEPORT`). Made before the executors
/// start, so that a port in use is an error of the start and not of a core.
///
/// It has the options that every media socket wants: no Nagle, keep-alive probes that find a dead peer in half a minute,
/// and the kernel's own give-up as a backstop. What is accepted from it has them too, without a call of its own.
///
/// # Errors
/// Those of `socket`, `bind` and `listen`.
pub fn bind(addr: SocketAddr, backlog: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        // A wildcard means IPv6 only: who wants both lists both, and gets no surprise from a system setting.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5)).with_retries(3),
    )?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// A listener on its executor.
pub struct Listener {
    inner: glommio::net::TcpListener,
    fd: RawFd,
    /// Our end's address for every connection, where the listener is bound to one.
    local: Option<SocketAddr>,
}

/// A connection that was accepted.
pub struct Accepted {
    /// The socket.
    pub stream: Stream,
    /// The peer.
    pub remote: SocketAddr,
    /// Our end's address.
    pub local: SocketAddr,
}

impl Listener {
    /// Ties a bound socket to the executor of the calling thread.
    #[must_use]
    pub fn bind_to_executor(socket: Socket) -> Self {
        let bound = socket.local_addr().ok().and_then(|addr| addr.as_socket());
        let fd = socket.into_raw_fd();
        // SAFETY: `into_raw_fd` gave up ownership of an open listening socket, and nobody else holds it.
        let inner = unsafe { glommio::net::TcpListener::from_raw_fd(fd) };
        Self { inner, fd, local: bound.filter(|addr| !addr.ip().is_unspecified()) }
    }

    /// Waits for connections and takes all that are there, up to `max`, which is asked when the first has come: the wait
    /// may have been long.
    ///
    /// # Errors
    /// Those of `accept`; `EMFILE` and its kin are to be answered with a pause.
    pub async fn accept(&self, max: impl Fn() -> usize, out: &mut Vec<Accepted>) -> io::Result<()> {
        let first = match self.inner.shared_accept().await.map_err(io::Error::from) {
            Ok(first) => first,
            // The connection died in the queue: not the listener's trouble.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO)) => {
                return self.accept_waiting(max(), out);
            }
            Err(error) => return Err(error),
        };
        let inner = first.bind_to_executor();
        let fd = inner.as_raw_fd();
        let stream = Stream { inner, fd };
        // Gone before we could ask who it was: nobody.
        if let Ok(remote) = stream.inner.peer_addr() {
            out.push(self.accepted(stream, remote));
        }
        match max() {
            0 | 1 => Ok(()),
            max => self.accept_waiting(max, out),
        }
    }

    /// Takes connections that wait already, without waiting itself.
    ///
    /// # Errors
    /// Those of `accept` other than "none is waiting".
    pub fn accept_waiting(&self, max: usize, out: &mut Vec<Accepted>) -> io::Result<()> {
        // glommio arms its accept only on a listener that blocks (a non-blocking one completes at once with
        // EAGAIN), so the flag is set for the length of this loop alone.
        let fd = self.borrowed();
        let listener = SockRef::from(&fd);
        listener.set_nonblocking(true)?;
        let mut result = Ok(());
        while out.len() < max {
            match accept4(self.fd) {
                Ok(accepted) => out.extend(accepted.map(|(stream, remote)| self.accepted(stream, remote))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        listener.set_nonblocking(false)?;
        result
    }

    /// Ends listening: an armed accept completes with an error, the port is free for the shards that remain.
    pub fn stop(&self) {
        let _ = SockRef::from(&self.borrowed()).shutdown(Shutdown::Both);
    }

    fn accepted(&self, stream: Stream, remote: SocketAddr) -> Accepted {
        let local = self.local.or_else(|| stream.local_addr());
        Accepted { stream, remote, local: local.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))) }
    }

    fn borrowed(&self) -> BorrowedFd<'_> {
        // SAFETY: `inner` owns the descriptor and lives as long as the borrow of `self`.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

/// One accept; `None` for a connection that is gone already.
fn accept4(listener: RawFd) -> io::Result<Option<(Stream, SocketAddr)>> {
    let accept = |storage: *mut SockAddrStorage, len: *mut libc::socklen_t| {
        // SAFETY: the pointers are to an address and its length that outlive the call; the descriptor is open.
        match unsafe { libc::accept4(listener, storage.cast(), len, libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) } {
            ..0 => Err(io::Error::last_os_error()),
            fd => Ok(fd),
        }
    };
    // SAFETY: accept4 writes an address of the socket's family and its length, or fails.
    match unsafe { SockAddr::try_init(accept) } {
        Ok((fd, remote)) => {
            // SAFETY: `fd` was just made by accept4 and has no other owner.
            let inner = unsafe { glommio::net::TcpStream::from_raw_fd(fd) };
            Ok(remote.as_socket().map(|remote| (Stream { inner, fd }, remote)))
        }
        // The connection died in the queue: not the listener's trouble.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a non-blocking write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took so many bytes.
    Bytes(usize),
    /// Its buffer is full.
    Blocked,
    /// The connection is gone.
    Gone,
}

/// A connected stream on its executor.
pub struct Stream {
    inner: glommio::net::TcpStream,
    fd: RawFd,
}

impl Stream {
    fn borrowed(&self) -> BorrowedFd<'_> {
        // SAFETY: `inner` owns the descriptor and lives as long as the borrow of `self`.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.inner.local_addr().ok()
    }

    /// Reads what is there, or registers the task to be woken when something is.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }

    /// Reads what is there without asking for readiness: `None` when nothing is.
    ///
    /// # Errors
    /// Those of `recv` other than "nothing is there".
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        // SAFETY: pointer and length describe `buf`, borrowed for the call; the descriptor is open.
        let got = unsafe { libc::recv(self.fd, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) };
        match usize::try_from(got) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => match io::Error::last_os_error() {
                error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Writes the start of `buf`, or registers the task to be woken when there is room.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    /// One vectored write that never blocks: the system call of the whole data plane. It is made without the C library's
    /// function, which in a program with threads is a cancellation point and costs two atomic operations more.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> Sent {
        if let [one] = slices {
            let (bytes, len) = (one.as_ptr(), one.len());
            // SAFETY: pointer and length describe `one`, borrowed for the call, and no address is given; the descriptor
            // is open.
            let sent = unsafe { libc::syscall(libc::SYS_sendto, self.fd, bytes, len, SEND, ptr::null::<u8>(), 0) };
            return outcome(sent);
        }
        // SAFETY: an all-zero msghdr is a valid empty one.
        let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        // IoSlice is documented to have the layout of iovec; sendmsg only reads through the pointer.
        message.msg_iov = slices.as_ptr().cast_mut().cast();
        message.msg_iovlen = slices.len();
        // SAFETY: `message` points at `slices`, borrowed for the call; the descriptor is open.
        let sent = unsafe { libc::syscall(libc::SYS_sendmsg, self.fd, &raw const message, SEND) };
        outcome(sent)
    }

    /// Tells the peer that nothing more comes.
    pub fn shutdown_write(&self) {
        self.shutdown(Shutdown::Write);
    }

    /// Ends both directions now. A poll that io_uring still holds keeps the descriptor's file alive for a moment
    /// after the drop; the shutdown makes the peer see the end at once.
    pub fn shutdown(&self, how: Shutdown) {
        let _ = SockRef::from(&self.borrowed()).shutdown(how);
    }

    /// Makes the drop of this stream a reset: what the kernel still holds for a peer that does not read is freed.
    pub fn reset_on_close(&self) {
        let _ = SockRef::from(&self.borrowed()).set_linger(Some(Duration::ZERO));
    }
}

/// How everything is sent.
const SEND: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

fn outcome(sent: libc::c_long) -> Sent {
    match usize::try_from(sent) {
        Ok(bytes) => Sent::Bytes(bytes),
        Err(_) => match io::Error::last_os_error().kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Sent::Blocked,
            _ => Sent::Gone,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::probe;

    #[test]
    fn what_is_accepted_has_the_options_and_addresses_of_media_sockets() {
        for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
            check_accepted_from(listen);
        }
    }

    fn check_accepted_from(listen: &str) {
        let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound)
            .ring_depth(8)
            .io_memory(probe::IO_MEMORY_BYTES)
            .make()
            .unwrap();
        executor.run(async {
            let socket = bind(listen.parse().unwrap(), 4).unwrap();
            let port = socket.local_addr().unwrap().as_socket().unwrap().port();
            let listener = Listener::bind_to_executor(socket);
            let clients: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
            let mut accepted = Vec::new();
            // The first comes through the runtime, the second through our own call.
            while accepted.len() < clients.len() {
                listener.accept(|| 2, &mut accepted).await.unwrap();
            }
            for (one, client) in accepted.iter().zip(&clients) {
                assert_eq!((one.remote, one.local), (client.local_addr().unwrap(), client.peer_addr().unwrap()));
                let fd = one.stream.borrowed();
                let options = SockRef::from(&fd);
                assert!(options.tcp_nodelay().unwrap());
                assert!(options.keepalive().unwrap());
                assert_eq!(options.tcp_keepalive_time().unwrap(), Duration::from_secs(15));
                assert_eq!(options.tcp_keepalive_interval().unwrap(), Duration::from_secs(5));
                assert_eq!(options.tcp_keepalive_retries().unwrap(), 3);
                assert_eq!(options.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
            }
        });
    }
}
