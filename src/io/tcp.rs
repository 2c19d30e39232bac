//! TCP sockets: listeners that share a port, and streams whose reads and writes never block.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Binds a listener that shares its port with the other shards' (`SO_REUSEPORT`). Made before the executors
/// start, so that a port in use is an error of the start and not of a core.
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
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// A listener on its executor.
pub struct Listener {
    inner: glommio::net::TcpListener,
    fd: RawFd,
}

/// A connection that was accepted.
pub struct Accepted {
    /// The socket.
    pub stream: Stream,
    /// The peer.
    pub remote: SocketAddr,
}

impl Listener {
    /// Ties a bound socket to the executor of the calling thread.
    #[must_use]
    pub fn bind_to_executor(socket: Socket) -> Self {
        let fd = socket.into_raw_fd();
        // SAFETY: `into_raw_fd` gave up ownership of an open listening socket, and nobody else holds it.
        let inner = unsafe { glommio::net::TcpListener::from_raw_fd(fd) };
        Self { inner, fd }
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
        out.extend(Stream { inner, fd }.accepted());
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
                Ok(accepted) => out.extend(accepted),
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

    fn borrowed(&self) -> BorrowedFd<'_> {
        // SAFETY: `inner` owns the descriptor and lives as long as the borrow of `self`.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

/// One accept; `None` for a connection that was gone before we could ask who it was.
fn accept4(listener: RawFd) -> io::Result<Option<Accepted>> {
    // SAFETY: null address pointers are allowed; the descriptor is open.
    let fd = unsafe {
        libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
    };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            // The connection died in the queue: not the listener's trouble.
            Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO) => Ok(None),
            _ => Err(error),
        };
    }
    // SAFETY: `fd` was just made by accept4 and has no other owner.
    let inner = unsafe { glommio::net::TcpStream::from_raw_fd(fd) };
    Ok(Stream { inner, fd }.accepted())
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
    /// Sets what every media socket wants: no Nagle, keep-alive probes that find a dead peer in half a minute, and
    /// the kernel's own give-up as a backstop. `None` for a peer that is gone already.
    fn accepted(self) -> Option<Accepted> {
        let remote = self.inner.peer_addr().ok()?;
        {
            let fd = self.borrowed();
            let options = SockRef::from(&fd);
            // None of these can be refused on a connected TCP socket in a way that would matter here.
            let _ = options.set_tcp_nodelay(true);
            let _ = options.set_tcp_keepalive(
                &TcpKeepalive::new()
                    .with_time(Duration::from_secs(15))
                    .with_interval(Duration::from_secs(5))
                    .with_retries(3),
            );
            let _ = options.set_tcp_user_timeout(Some(Duration::from_secs(30)));
        }
        Some(Accepted { stream: self, remote })
    }

    fn borrowed(&self) -> BorrowedFd<'_> {
        // SAFETY: `inner` owns the descriptor and lives as long as the borrow of `self`.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// Our end's address.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
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

    /// One vectored write that never blocks: the system call of the whole data plane.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> Sent {
        if let [one] = slices {
            // SAFETY: pointer and length describe `one`, borrowed for the call; the descriptor is open.
            let sent =
                unsafe { libc::send(self.fd, one.as_ptr().cast(), one.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
            return outcome(sent);
        }
        // SAFETY: an all-zero msghdr is a valid empty one.
        let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        // IoSlice is documented to have the layout of iovec; sendmsg only reads through the pointer.
        message.msg_iov = slices.as_ptr().cast_mut().cast();
        message.msg_iovlen = slices.len();
        // SAFETY: `message` points at `slices`, borrowed for the call; the descriptor is open.
        let sent = unsafe { libc::sendmsg(self.fd, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
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

fn outcome(sent: isize) -> Sent {
    match usize::try_from(sent) {
        Ok(bytes) => Sent::Bytes(bytes),
        Err(_) => match io::Error::last_os_error().kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Sent::Blocked,
            _ => Sent::Gone,
        },
    }
}
