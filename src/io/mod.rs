//! Sockets, listeners and doorbells on `io_uring`, and the probe of the machine; names only `stdx`.
//!
//! glommio schedules tasks, timers and readiness; the system calls that move media are made here on the raw
//! descriptor without blocking, because glommio's own vectored write sends only the first slice.

pub mod doorbell;
pub mod memory;
pub mod pages;
pub mod probe;
pub mod ring;
pub mod tcp;
