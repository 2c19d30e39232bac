//! How it is spoken. Engines do no I/O and take time as an argument; they know nothing of sessions.

pub mod rtmp;
