//! What becomes of a connection when whoever asked on it stops waiting.

use std::sync::atomic::{AtomicBool, Ordering};

/// A call on a connection. Dropped before it is [`over`](Self::over), it leaves the connection in
/// doubt: who waits above has limits of its own, shorter than ours, and would otherwise ask on a
/// connection that is dead again and again, and never find out.
#[must_use]
pub(crate) struct Call<'a>(&'a AtomicBool);

impl<'a> Call<'a> {
    pub(crate) fn on(in_doubt: &'a AtomicBool) -> Self {
        Self(in_doubt)
    }

    /// It came to an end, whichever that was.
    pub(crate) fn over(self) {
        std::mem::forget(self);
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
