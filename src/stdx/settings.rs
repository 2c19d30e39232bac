//! What is wrong with a setting, and what every room asks of the secrets in its settings.

use std::collections::HashSet;

/// Why settings cannot be obeyed: the field and one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct SettingsError {
    /// The field, as written in the configuration.
    pub field: String,
    /// What is wrong with it; never shows a secret.
    pub message: String,
}

impl SettingsError {
    /// `message` is about `field`.
    #[must_use]
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The fewest characters of a key, a token or a secret that signs: 128 bits take 22 in base64.
pub const SECRET_CHARS_MIN: usize = 22;
/// How many of them must differ.
const DIFFERENT_CHARS_MIN: usize = 8;

/// True when a secret may hold 128 bits.
#[must_use]
pub fn is_long_enough(secret: &str) -> bool {
    secret.chars().count() >= SECRET_CHARS_MIN
}

/// True when a secret may have come from a source of randomness. Not a measure of entropy, but it stops what people type to
/// get past a length.
#[must_use]
pub fn is_varied(secret: &str) -> bool {
    secret.chars().collect::<HashSet<_>>().len() >= DIFFERENT_CHARS_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_22_characters_or_more_whatever_bytes_they_take() {
        assert!(is_long_enough("0123456789abcdefghijkl"));
        assert!(!is_long_enough("0123456789abcdefghijk"));
        assert!(!is_long_enough(&"ä".repeat(21)));
        assert!(is_long_enough(&"ä".repeat(22)));
    }

    #[test]
    fn a_secret_of_few_different_characters_is_not_random() {
        assert!(is_varied("0123456701234567"));
        assert!(!is_varied(&"0123456".repeat(5)));
    }

    #[test]
    fn an_error_names_its_field_first() {
        let error = SettingsError::new("api.rate", "it must be at least 1");
        assert_eq!(error.to_string(), "api.rate: it must be at least 1");
    }
}
