//! Waking a sleeping shard from another thread.
//!
//! A doorbell is a socket pair: the ringer sends one byte, the sleeper's executor polls the other end like any
//! socket. An atomic flag says whether anybody is asleep, so that ringing an awake shard costs one load and no
//! system call.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Context, Poll};

use futures_lite::AsyncRead;

/// The end that wakes. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Ringer(Arc<Shared>);

struct Shared {
    asleep: AtomicBool,
    bell: UnixStream,
}

/// The sleeper's end before it reaches its executor.
pub struct Sleeper {
    shared: Arc<Shared>,
    ear: UnixStream,
}

/// The sleeper's end on its executor.
pub struct Doorbell {
    shared: Arc<Shared>,
    ear: glommio::net::UnixStream,
}

/// A new doorbell.
///
/// # Errors
/// When the kernel gives no descriptors.
pub fn doorbell() -> io::Result<(Ringer, Sleeper)> {
    let (bell, ear) = UnixStream::pair()?;
    bell.set_nonblocking(true)?;
    ear.set_nonblocking(true)?;
    let shared = Arc::new(Shared { asleep: AtomicBool::new(false), bell });
    Ok((Ringer(Arc::clone(&shared)), Sleeper { shared, ear }))
}

impl Ringer {
    /// Wakes the sleeper if it sleeps. Call it after the mail is in the queue.
    pub fn ring(&self) {
        // Pairs with the fence in `poll_wait`: either we see it asleep, or it sees our mail.
        fence(Ordering::SeqCst);
        if self.0.asleep.load(Ordering::Relaxed) && self.0.asleep.swap(false, Ordering::AcqRel) {
            // A full pair means that bytes are waiting to be read, which wakes as well as one more would.
            let _ = send_byte(&self.0.bell);
        }
    }
}

impl Ringer {
    /// Wakes the sleeper whatever it says of itself: for one that is not heard of. A sleeper that is awake reads the byte
    /// when it looks next.
    pub fn nudge(&self) {
        // A full pair wakes as well.
        let _ = send_byte(&self.0.bell);
    }
}

/// One byte, never blocking, never raising SIGPIPE.
fn send_byte(bell: &UnixStream) -> io::Result<()> {
    let byte = [1u8];
    // SAFETY: the pointer and length describe `byte`, which outlives the call, and the descriptor is open
    // because `bell` owns it.
    let sent = unsafe {
        libc::send(bell.as_raw_fd(), byte.as_ptr().cast(), byte.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Sleeper {
    /// Ties the doorbell to the executor of the calling thread.
    #[must_use]
    pub fn bind(self) -> Doorbell {
        let fd = self.ear.into_raw_fd();
        // SAFETY: `into_raw_fd` gave up ownership of an open socket, and nobody else holds it.
        let ear = unsafe { glommio::net::UnixStream::from_raw_fd(fd) };
        Doorbell { shared: self.shared, ear }
    }
}

impl Doorbell {
    /// Ready when rung, or at once when `has_mail` says so. Declares itself asleep before it looks, so that mail
    /// which arrives in between rings.
    pub fn poll_wait(&mut self, cx: &mut Context<'_>, has_mail: impl Fn() -> bool) -> Poll<()> {
        let mut bytes = [0u8; 64];
        while let Poll::Ready(read) = Pin::new(&mut self.ear).poll_read(cx, &mut bytes) {
            if !matches!(read, Ok(1..)) {
                break;
            }
        }
        self.shared.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if has_mail() {
            self.shared.asleep.store(false, Ordering::Relaxed);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
