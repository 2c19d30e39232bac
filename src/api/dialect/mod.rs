//! Other systems' words live only here: one folder each.

pub mod datarhei;

/// True for paths that belong to a dialect, whose errors are in its own shape.
#[must_use]
pub fn claims(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}
