//! How far a delete by pattern has got, so that its next attempt continues there.

use std::sync::Arc;

use parking_lot::Mutex;

/// The position of one delete by pattern, which takes several calls if the store fails or is slow:
/// see [`Store::delete_matching_from`](super::store::Store::delete_matching_from).
///
/// The store writes the position, and only the store knows what it means. Clones are the same
/// cursor. It is valid in this process only.
#[derive(Debug, Clone, Default)]
pub struct PatternCursor(Arc<Mutex<Option<String>>>);

impl PatternCursor {
    /// Creates a cursor at the beginning.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the position; `None`: the beginning.
    #[must_use]
    pub fn position(&self) -> Option<String> {
        self.0.lock().clone()
    }

    /// Sets the position. Everything before it is done.
    pub fn advance(&self, position: impl Into<String>) {
        *self.0.lock() = Some(position.into());
    }
}

/// Two cursors are equal if their positions are.
impl PartialEq for PatternCursor {
    fn eq(&self, other: &Self) -> bool {
        self.position() == other.position()
    }
}

impl Eq for PatternCursor {}
