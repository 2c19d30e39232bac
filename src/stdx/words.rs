//! Words that come from outside and have to live as long as those of the program.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Words that are kept; those of the program itself are a few dozen.
const WORDS_MAX: usize = 1_024;
/// The longest of them, in bytes.
const BYTES_MAX: usize = 128;

/// The same word for as long as the process lives; `None` for one that is too long, or too many.
#[must_use]
pub fn keep(word: &str) -> Option<&'static str> {
    static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    if word.is_empty() {
        return Some("");
    }
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kept.get(word) {
        return Some(known);
    }
    if kept.len() >= WORDS_MAX || word.len() > BYTES_MAX {
        return None;
    }
    let word: &'static str = Box::leak(word.into());
    kept.insert(word);
    Some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_kept_once_and_one_that_is_too_long_is_not() {
        let first = keep("per_address").unwrap();
        assert!(std::ptr::eq(first, keep(&String::from("per_address")).unwrap()));
        assert_eq!((keep(""), keep(&"a".repeat(BYTES_MAX + 1))), (Some(""), None));
    }
}
