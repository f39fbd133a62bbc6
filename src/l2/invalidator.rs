//! Removes values from the store, and retries in the background until each invalidation has
//! reached it.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::sleep};

use super::{
    guarded::{BreakerCounts, Failure, GuardedStore},
    key_versions::KeyVersions,
    pending_invalidations::{PendingInvalidation, PendingInvalidations},
};
use crate::resilience::{Backoff, DropGuard, has_timer, task_tracker::TaskTracker};

/// Called with each invalidation that a retry has brought to the store, so that the cache
/// broadcasts it again: peers may have read the old value from the store since the first broadcast.
pub(crate) type OnRetried = Box<dyn Fn(&PendingInvalidation) + Send + Sync>;

pub(super) struct Invalidator {
    pub(super) store: Arc<GuardedStore>,
    pub(super) pending: PendingInvalidations,
    /// `None`: keys are not versioned.
    pub(super) versions: Option<KeyVersions>,
    pub(super) write_limit: Duration,
    pub(super) pattern_limit: Duration,
    /// The retry task is one of these, so that `close` waits for it and stops it.
    pub(super) tasks: TaskTracker,
    pub(super) on_retried: OnRetried,
}

impl Invalidator {
    /// Announces an invalidation of a key. Unless the returned guard is disarmed, because the
    /// invalidation has reached the store, it is pending when the guard is dropped: the call
    /// failed, or its caller dropped the future.
    pub(super) fn intend_key<'a>(
        self: &'a Arc<Self>,
        key: &'a str,
    ) -> DropGuard<impl FnOnce() + use<'a>> {
        DropGuard::new(move || {
            // mutant pending: remove
            self.pending.record_key(key);
            self.ensure_retry_task();
        })
    }

    /// Announces an invalidation by pattern, as [`intend_key`](Self::intend_key) does for a key.
    pub(super) fn intend_pattern<'a>(
        self: &'a Arc<Self>,
        glob: &'a str,
    ) -> DropGuard<impl FnOnce() + use<'a>> {
        DropGuard::new(move || {
            // mutant pending: remove
            self.pending.record_pattern(glob);
            self.ensure_retry_task();
        })
    }

    /// Removes a key, or all versions of it that [`KeyVersions`] names.
    pub(super) async fn remove_key(&self, key: &str, counts: BreakerCounts) -> Result<(), Failure> {
        let limit = self.write_limit;
        let Some(versions) = &self.versions else {
            return self.store.call_with(counts, key, limit, |store| store.delete(key)).await;
        };
        let names = versions.names_to_delete(key);
        self.store.call_with(counts, key, limit, |store| store.delete_all(&names)).await
    }

    pub(super) async fn remove_matching(
        &self,
        glob: &str,
        limit: Duration,
        counts: BreakerCounts,
    ) -> Result<(), Failure> {
        let pattern = match self.versions {
            Some(_) => Cow::Owned(KeyVersions::glob(glob)),
            None => Cow::Borrowed(glob),
        };
        self.store.call_with(counts, glob, limit, |store| store.delete_matching(&pattern)).await
    }

    /// Starts the task that retries pending invalidations, unless none is pending or the task
    /// runs already. The task ends when none is pending any more, or with the cache.
    ///
    /// Called when an invalidation becomes pending, and also at the start of each call: the drop
    /// may have happened outside of a runtime, or the runtime of the task may have shut down.
    pub(super) fn ensure_retry_task(self: &Arc<Self>) {
        if self.pending.is_empty() || !has_timer() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.pending.try_claim() {
            return;
        }
        let worker = Arc::clone(self);
        // If this task is dropped before its end, with its runtime say, another may take over.
        let release = DropGuard::new({
            let worker = Arc::clone(self);
            move || worker.pending.release()
        });
        runtime.spawn(self.tasks.token().run(async move {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
            while worker.retry_pending().await.is_err() {
                sleep(backoff.next(fastrand::f64())).await;
            }
            release.disarm();
        }));
    }

    /// Sends the pending invalidations to the store, the oldest first. A failed one goes to the end
    /// of the queue. Returns `Ok` when none is pending, and the last failure after three in a row.
    ///
    /// The circuit breaker counts none of these failures: one invalidation that always fails must
    /// not keep the store from serving everything else.
    async fn retry_pending(&self) -> Result<(), Failure> {
        let mut failures = 0;
        while let Some(next) = self.pending.next() {
            let removed = if next.is_pattern {
                // No caller waits for it, and the usual limit may be too short for it each time.
                let limit = self.pattern_limit.saturating_mul(10);
                self.remove_matching(&next.name, limit, BreakerCounts::None).await
            } else {
                self.remove_key(&next.name, BreakerCounts::None).await
            };
            match removed {
                Ok(()) => {
                    failures = 0;
                    self.pending.complete(&next);
                    (self.on_retried)(&next);
                }
                Err(Failure::Skipped) => return Err(Failure::Skipped),
                Err(failure) => {
                    failures += 1;
                    self.pending.requeue(&next);
                    if failures >= self.pending.len().min(3) {
                        return Err(failure);
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observe::Observer,
        resilience::Breaker,
        testing::{ManualClock, SharedStore},
    };

    #[test]
    fn an_intended_invalidation_is_pending_unless_its_guard_is_disarmed() {
        let clock = ManualClock::new();
        let (store, observer) = (SharedStore::new(clock.clone()), Arc::<Observer>::default());
        let breaker = Breaker::new(3, 1_000);
        let store = GuardedStore::new(Arc::new(store), breaker, observer, Arc::new(clock));
        let invalidator = Arc::new(Invalidator {
            store: Arc::new(store),
            pending: PendingInvalidations::default(),
            versions: None,
            write_limit: Duration::from_secs(1),
            pattern_limit: Duration::from_secs(1),
            tasks: TaskTracker::default(),
            on_retried: Box::new(|_| ()),
        });
        invalidator.intend_key("a").disarm();
        assert!(invalidator.pending.is_empty());
        drop(invalidator.intend_key("a"));
        drop(invalidator.intend_pattern("b*"));
        assert!(invalidator.pending.covers("a") && invalidator.pending.covers("bb"));
    }
}
