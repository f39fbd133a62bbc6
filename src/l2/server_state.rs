//! What the caches of a manager know of the server of L2 together: one circuit breaker, and one log
//! line for what happens to all of them. A cache alone has one of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{options::CircuitBreaker, resilience::Breaker, time::millis};

#[derive(Debug)]
pub(crate) struct ServerState {
    pub(crate) breaker: Breaker,
    /// The number ([`Store::times_emptied`](super::Store::times_emptied)) of the last log line that
    /// said that keys were removed.
    emptied_logged: AtomicU64,
    /// Several caches may have it.
    pub(crate) is_shared: bool,
}

impl ServerState {
    pub(crate) fn new(options: &CircuitBreaker, is_shared: bool) -> Self {
        let breaker = Breaker::new(options.failure_threshold, millis(options.cooldown));
        Self { breaker, emptied_logged: AtomicU64::new(u64::MAX), is_shared }
    }

    /// Whether to log that the keys of a cache were removed: yes, unless a line has said so of
    /// another cache whose keys were removed together with these.
    pub(super) fn logs_emptied(&self, number: u64) -> bool {
        let last = self.emptied_logged.swap(number, Ordering::Relaxed);
        // mutant emptied-lines: s/!self.is_shared/true/
        !self.is_shared || last != number
    }
}
