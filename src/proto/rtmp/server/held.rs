//! Bytes that came and are not obeyed yet.

/// A queue of bytes that is filled in large pieces and taken from in small ones: what was taken is only counted, so
/// that taking costs nothing however much is left, and freed with the rest.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    taken: usize,
}

impl Held {
    /// Adds bytes behind the others.
    pub(super) fn extend(&mut self, input: &[u8]) {
        self.bytes.extend_from_slice(input);
    }

    /// What is left.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// Leaves so many bytes and takes those before them; an empty queue keeps no memory.
    pub(super) fn keep_last(&mut self, left: usize) {
        self.taken = self.bytes.len().saturating_sub(left);
        if left == 0 {
            *self = Self::default();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.taken)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
