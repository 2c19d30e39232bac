//! What we say over HTTP: our own API, and other systems' dialects.

pub mod dialect;
pub mod native;
pub mod settings;

pub use settings::Settings;
