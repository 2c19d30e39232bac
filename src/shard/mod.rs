//! One core: its state, its mail, its pump, its executor.

pub mod mail;
pub mod settings;

pub use settings::Settings;
