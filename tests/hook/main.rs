//! The hook room from outside: what an answer means, how a back end is asked, and in which order a receiver is told.

mod answers;
