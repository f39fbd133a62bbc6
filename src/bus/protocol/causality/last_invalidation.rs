//! The last invalidation of a key.

use std::sync::Arc;

pub(super) struct LastInvalidation {
    pub(super) by: InvalidatedBy,
    pub(super) at: u64,
    /// Until when values are refused, because of a delete without a number.
    pub(super) refused_until: u64,
}

#[derive(Clone)]
pub(super) enum InvalidatedBy {
    Peer {
        incarnation: Arc<str>,
        seq: u64,
    },
    /// A message without a sequence number.
    Unnumbered,
    /// A message of this instance, which was published.
    Own {
        seq: u64,
    },
    /// Calls of this instance: `uncommitted` have not queued their message yet, and `position` is
    /// the last outbox position of those that have.
    OwnPending {
        uncommitted: usize,
        position: u64,
    },
}

/// How far the outbox of this instance is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutboxProgress {
    /// Messages at lower positions were published.
    pub(crate) acked: u64,
    /// The sequence number of the next message.
    pub(crate) next_seq: u64,
}

impl InvalidatedBy {
    pub(super) fn is_published(&self, progress: OutboxProgress) -> bool {
        matches!(self, Self::OwnPending { uncommitted: 0, position } if *position < progress.acked)
    }
}
