//! Takes, extends and releases the lock of a key in the store.

use std::time::Duration;

use super::{
    facade::{BreakerCounts, Failure, L2},
    store_types::{LoadEnd, LockResponse},
};

/// Result of an attempt to take a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LockAttempt {
    Acquired,
    /// This owner has the lock.
    HeldBy(String),
    /// The owner for which the caller waited has released the lock, and its load ended so.
    Ended(LoadEnd),
    /// The call failed: the store may have given the lock or not.
    Unknown,
    /// The store was not called.
    Skipped,
}

impl<V: Send + Sync + 'static> L2<V> {
    /// Takes the lock for `ttl`. An owner that has it already keeps it. `waited_for` is the owner
    /// for which the caller has waited.
    pub(crate) async fn lock(
        &self,
        key: &str,
        owner: &str,
        ttl: Duration,
        waited_for: Option<&str>,
    ) -> LockAttempt {
        if !self.may_read(key) {
            return LockAttempt::Skipped;
        }
        let limit = self.limits.write;
        match self.call("lock", key, limit, |store| store.lock(key, owner, ttl, waited_for)).await {
            Ok(LockResponse::Acquired) => LockAttempt::Acquired,
            Ok(LockResponse::HeldBy(owner)) => LockAttempt::HeldBy(owner),
            Ok(LockResponse::Released(end)) => LockAttempt::Ended(end),
            Err(Failure::Skipped) => LockAttempt::Skipped,
            Err(_) => LockAttempt::Unknown,
        }
    }

    /// Extends the lock to `ttl` from now. Returns whether the owner still has it; `None`: it is
    /// not known.
    pub(crate) async fn extend(&self, key: &str, owner: &str, ttl: Duration) -> Option<bool> {
        // A background task renews the lock and tries again after a failure, so its failures do
        // not count for the circuit breaker.
        let (counts, limit) = (BreakerCounts::None, self.limits.write);
        self.call_with(counts, "extend", key, limit, |store| store.extend(key, owner, ttl))
            .await
            .ok()
    }

    /// Releases the lock, and shows to the callers that wait how the load ended. If the store does
    /// not answer, the lock ends with its ttl.
    pub(crate) async fn unlock(&self, key: &str, owner: &str, end: Option<LoadEnd>) {
        let (counts, limit) = (BreakerCounts::None, self.limits.write);
        let _ = self
            .call_with(counts, "unlock", key, limit, |store| store.unlock(key, owner, end))
            .await;
    }
}
