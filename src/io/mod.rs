//! Sockets and listeners on `io_uring`; names only stdx.

pub mod probe;
