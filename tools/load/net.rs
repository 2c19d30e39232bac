//! Sockets, clocks and the few things we ask of the kernel.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// One buffer for all connections of a thread: a read takes what the kernel holds for a socket, so it is large.
pub const READ_BYTES: usize = 256 << 10;

/// Nanoseconds of `CLOCK_REALTIME`: the clock of the stamps, the same in every process of the machine.
pub fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

/// CPU time of this thread so far.
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours that outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Lifts the descriptor limit as far as we may; says what it is now.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers are to an rlimit of ours that outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
    limit.rlim_cur
}

/// Binds the calling thread, and those it starts, to one core.
pub fn pin(core: usize) -> io::Result<()> {
    // SAFETY: a cpu_set_t is a plain bit set for which zero is a value; CPU_SET checks its bound; the pointer is to a
    // set of ours of the size we name.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// From now on SIGINT and SIGTERM end the run early, with its report.
pub fn stop_on_signals() {
    let handler: extern "C" fn(libc::c_int) = on_signal;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which a signal handler may do.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Whether the run was asked to end.
pub fn is_stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Ends the run.
pub fn stop() {
    STOP.store(true, Ordering::Relaxed);
}

/// Where clients connect from and to.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The server.
    pub to: SocketAddr,
    /// How many loopback source addresses to use in turn, from 127.0.0.2 on; 0 leaves the choice to the kernel. One
    /// address has some 28,000 ports towards one server.
    pub source_addresses: u32,
}

impl Route {
    /// Begins the `index`-th connection; it is up when the socket becomes writable.
    pub fn connect(&self, index: usize) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.to), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if self.source_addresses > 0 {
            let host = 2 + (index as u32 % self.source_addresses);
            let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) - 1 + host);
            set_bind_address_no_port(&socket);
            socket.bind(&SocketAddr::from((IpAddr::V4(source), 0)).into())?;
        }
        match socket.connect(&self.to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(TcpStream::from_std(socket.into()))
    }
}

/// The port is chosen at connect, where only the pair of both ends must be unique, and not at bind.
fn set_bind_address_no_port(socket: &Socket) {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, the pointer is to an int of ours of the size we name.
    unsafe {
        let value = (&raw const on).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, value, len);
    }
}

/// The shared read buffer.
pub struct ReadBuffer(Box<[MaybeUninit<u8>]>);

impl ReadBuffer {
    /// A buffer of [`READ_BYTES`].
    pub fn new() -> Self {
        Self(Box::new_uninit_slice(READ_BYTES))
    }

    /// Receives without waiting; an empty slice is the end of the stream.
    pub fn receive(&mut self, fd: RawFd) -> io::Result<&[u8]> {
        let len = self.call(fd, libc::MSG_DONTWAIT)?;
        // SAFETY: the kernel wrote the first `len` bytes, and `len` is at most the length it was given.
        Ok(unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), len) })
    }

    /// Receives and throws away, uncopied: on a TCP socket that is what `MSG_TRUNC` means (tcp(7)).
    pub fn discard(&mut self, fd: RawFd) -> io::Result<usize> {
        self.call(fd, libc::MSG_DONTWAIT | libc::MSG_TRUNC)
    }

    fn call(&mut self, fd: RawFd, flags: libc::c_int) -> io::Result<usize> {
        // SAFETY: pointer and length are those of our buffer.
        let len = unsafe { libc::recv(fd, self.0.as_mut_ptr().cast(), self.0.len(), flags) };
        usize::try_from(len).map_err(|_| io::Error::last_os_error())
    }
}

/// Sends without waiting and without a signal when the peer is gone.
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of the slice.
    let len = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(len).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn clients_come_from_the_addresses_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let route = Route { to: listener.local_addr().unwrap(), source_addresses: 2 };
        let mut sources = Vec::new();
        let clients: Vec<_> = (0..4).map(|index| route.connect(index).unwrap()).collect();
        for _ in &clients {
            sources.push(listener.accept().unwrap().1.ip().to_string());
        }
        sources.sort();
        assert_eq!(sources, ["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3"]);
    }

    #[test]
    fn discarded_bytes_are_counted_and_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        client.write_all(&[1; 5_000]).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut buffer = ReadBuffer::new();
        let mut total = 0;
        loop {
            match buffer.discard(server.as_raw_fd()) {
                Ok(0) => break,
                Ok(len) => total += len,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert_eq!(total, 5_000);
    }
}
