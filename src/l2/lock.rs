//! Takes, extends and releases the lock of a key in the store.

use std::time::Duration;

use super::facade::{BreakerCounts, Failure, L2};

/// Result of an attempt to take or extend a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockAttempt {
    Acquired,
    /// Another owner has the lock. For `extend` also: no owner has it any more.
    HeldElsewhere,
    /// The call failed: the store may have given the lock or not.
    Unknown,
    /// The store was not called.
    Skipped,
}

impl LockAttempt {
    fn of(answer: &Result<bool, Failure>) -> Self {
        match answer {
            Ok(true) => Self::Acquired,
            Ok(false) => Self::HeldElsewhere,
            Err(Failure::Failed) => Self::Unknown,
            Err(Failure::Skipped) => Self::Skipped,
        }
    }
}

impl<V: Send + Sync + 'static> L2<V> {
    /// Takes the lock for `ttl`. An owner that has it already keeps it.
    pub(crate) async fn lock(&self, key: &str, owner: &str, ttl: Duration) -> LockAttempt {
        if !self.may_read(key) {
            return LockAttempt::Skipped;
        }
        let lock = self.call(key, self.limits.write, |store| store.lock(key, owner, ttl));
        LockAttempt::of(&lock.await)
    }

    /// Extends the lock to `ttl` from now.
    pub(crate) async fn extend(&self, key: &str, owner: &str, ttl: Duration) -> LockAttempt {
        // A background task renews the lock and tries again after a failure, so its failures do
        // not count for the circuit breaker.
        let (counts, limit) = (BreakerCounts::None, self.limits.write);
        let extend = self.call_with(counts, key, limit, |store| store.extend(key, owner, ttl));
        LockAttempt::of(&extend.await)
    }

    /// Releases the lock. If the store does not answer, the lock ends with its ttl.
    pub(crate) async fn unlock(&self, key: &str, owner: &str) {
        let (counts, limit) = (BreakerCounts::None, self.limits.write);
        let _ = self.call_with(counts, key, limit, |store| store.unlock(key, owner)).await;
    }
}
