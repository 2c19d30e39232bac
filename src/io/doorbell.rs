//! Waking a sleeping shard from another thread.
//!
//! A doorbell is a socket pair: the ringer sends one byte, the sleeper's executor polls the other end like any
//! socket. An atomic flag says whether anybody is asleep, so that ringing an awake shard costs one load and no
//! system call.
//!
//! A bell is heard by a task. Where the runtime sleeps although that task is due (see [`Ringer::nudge`]) only the kernel can
//! wake the thread: a signal ends the system call in which it waits.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering, fence};
use std::sync::{Arc, Once};
use std::task::{Context, Poll};

use futures_lite::AsyncRead;

/// The end that wakes. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Ringer(Arc<Shared>);

struct Shared {
    asleep: AtomicBool,
    bell: UnixStream,
    /// The sleeper's thread, once it is there; 0 before.
    thread: AtomicI32,
}

/// What interrupts a thread. By default nobody notices it, and nobody else here uses it.
const INTERRUPT: libc::c_int = libc::SIGURG;

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
    let shared = Arc::new(Shared { asleep: AtomicBool::new(false), bell, thread: AtomicI32::new(0) });
    handle_interrupts();
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
    ///
    /// The runtime (glommio 0.9) goes to sleep with tasks to run when the timer that is to interrupt them fires before the
    /// first of them ran. If the one that listens to this bell is among them, or has not begun, nobody hears the byte. The
    /// signal makes `io_uring_enter` return; should it come just before the thread waits there, the next one does.
    pub fn nudge(&self) {
        // A full pair wakes as well.
        let _ = send_byte(&self.0.bell);
        let thread = self.0.thread.load(Ordering::Relaxed);
        if thread != 0 {
            // SAFETY: the call takes numbers. The thread is looked for in this process only, and where it has ended, another
            // that has its number by now returns from a handler that does nothing.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, INTERRUPT) };
        }
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

/// Has the signal interrupt what a thread waits for, and do nothing else.
fn handle_interrupts() {
    extern "C" fn nothing(_: libc::c_int) {}
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: all zeros are a valid `sigaction`, without SA_RESTART among others; the handler touches nothing; both
        // pointers are to values that live past the call, or null.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
            libc::sigaction(INTERRUPT, &raw const action, std::ptr::null_mut());
        }
    });
}

impl Sleeper {
    /// Says that the calling thread is the one to be woken.
    pub fn arrive(&self) {
        // SAFETY: the call takes nothing and cannot fail.
        self.shared.thread.store(unsafe { libc::gettid() }, Ordering::Relaxed);
    }

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
    /// which arrives in between rings. Everything that anybody rings for is mail: what `has_mail` does not look at may wait
    /// for the next ring.
    pub fn poll_wait(&mut self, cx: &mut Context<'_>, has_mail: impl Fn() -> bool) -> Poll<()> {
        let mut bytes = [0u8; 64];
        let mut is_rung = false;
        while let Poll::Ready(read) = Pin::new(&mut self.ear).poll_read(cx, &mut bytes) {
            if !matches!(read, Ok(1..)) {
                break;
            }
            is_rung = true;
        }
        if is_rung {
            return Poll::Ready(());
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    use futures_lite::FutureExt;

    use super::*;

    #[test]
    fn a_ring_is_heard_whatever_it_was_for() {
        let (ringer, sleeper) = doorbell().unwrap();
        glommio::LocalExecutor::default().run(async {
            let mut bell = sleeper.bind();
            assert!(poll_fn(|cx| Poll::Ready(bell.poll_wait(cx, || false))).await.is_pending());
            let thread = std::thread::spawn(move || ringer.ring());
            let rung = async {
                poll_fn(|cx| bell.poll_wait(cx, || false)).await;
                true
            };
            let late = async {
                glommio::timer::sleep(Duration::from_secs(20)).await;
                false
            };
            assert!(rung.or(late).await, "nobody heard it");
            thread.join().unwrap();
        });
    }

    #[test]
    fn a_thread_that_waits_in_the_kernel_is_interrupted_and_no_other() {
        let (ringer, sleeper) = doorbell().unwrap();
        // Before it is there, a nudge is a byte.
        ringer.nudge();
        let is_there = Arc::new(AtomicBool::new(false));
        let there = Arc::clone(&is_there);
        let thread = std::thread::spawn(move || {
            sleeper.arrive();
            there.store(true, Ordering::SeqCst);
            // SAFETY: no descriptors, so no pointer is read.
            let result = unsafe { libc::poll(std::ptr::null_mut(), 0, -1) };
            (result, io::Error::last_os_error().kind())
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        while !thread.is_finished() {
            assert!(Instant::now() < deadline, "it waits on");
            if is_there.load(Ordering::SeqCst) {
                ringer.nudge();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(thread.join().unwrap(), (-1, io::ErrorKind::Interrupted));
        // Nor does one that has gone take anybody with it.
        ringer.nudge();
    }
}
