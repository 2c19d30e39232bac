//! The house checks itself: which way rooms look, what its documents promise, and that it is tidy.

mod docs;
mod layers;
mod source;
mod tidy;
