//! What the caches of a manager know of the server of L2 together: one circuit breaker, and one log
//! line for what happens to all of them. A cache alone has one of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{options::CircuitBreaker, resilience::Breaker, time::millis};

#[derive(Debug)]
pub(crate) struct ServerState {
    pub(crate) breaker: Breaker,
    /// The connection after which a log line last said that keys were removed.
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
    /// another cache on the same connection.
    pub(super) fn logs_emptied(&self, connection: u64) -> bool {
        let last = self.emptied_logged.swap(connection, Ordering::Relaxed);
        // mutant emptied-lines: s/!self.is_shared/true/
        !self.is_shared || last != connection
    }
}
