//! How many messages the broker delivers ahead: as many as fit into the memory for them.
//!
//! The broker counts messages, the memory is bounded in bytes. So a subscription begins with the
//! number that fits for messages of a mebibyte. If larger ones fill the memory, the subscription
//! ends, and the next one has the number that did fit: a durable queue delivers the rest to it.

use std::sync::atomic::{AtomicU16, Ordering};

use super::intake::End;

pub(crate) struct Prefetch {
    most: u16,
    /// The number of the next subscription.
    next: AtomicU16,
}

const USUAL_BYTES: usize = 1 << 20;

impl Prefetch {
    pub(crate) fn new(configured: u16, max_bytes: usize) -> Self {
        let fits = u16::try_from(max_bytes / USUAL_BYTES).unwrap_or(u16::MAX);
        let most = configured.min(fits).max(1);
        Self { most, next: AtomicU16::new(most) }
    }

    pub(crate) fn next(&self) -> u16 {
        self.next.load(Ordering::Relaxed)
    }

    /// Zero means no bound for the broker, so the number never falls below one.
    pub(crate) fn on_end(&self, end: Option<End>) {
        let next = match end {
            Some(End::Overflow(fitted)) => fitted.clamp(1, self.most),
            Some(End::Closed) | None => self.most,
        };
        self.next.store(next, Ordering::Relaxed);
    }
}
