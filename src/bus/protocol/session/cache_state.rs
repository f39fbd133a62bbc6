//! The state of one cache of a session.

use crate::bus::{
    protocol::{
        causality::{CausalFilter, OutboxProgress},
        outbox::Outbox,
    },
    wire::namespace::Namespace,
};

pub(super) struct CacheState {
    pub(super) namespace: Namespace,
    pub(super) outbox: Outbox,
    pub(super) causality: CausalFilter,
    /// Whether the cache is in `turns`.
    pub(super) has_turn: bool,
    /// Whether the calls of the cache have ended, so that another one may have its name.
    pub(super) is_ending: bool,
    /// Whether the cache was detached, and only its message in flight is left.
    pub(super) is_detached: bool,
}

impl Outbox {
    pub(super) fn progress(&self, next_seq: u64) -> OutboxProgress {
        OutboxProgress { acked: self.acked(), next_seq }
    }
}
