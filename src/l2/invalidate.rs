//! Deletes values from the store, and retries in the background until each invalidation has
//! reached it.
//!
//! If an instance is cut off from the store, each peer that receives its invalidation makes it
//! pending too, and retries. So the first of them that reaches the store removes the old value,
//! also if the instance that was cut off is killed. The others remove nothing, or a value that will
//! be loaded again.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::sleep};

use super::{
    facade::{BreakerCounts, Failure, L2},
    key_versions::KeyVersions,
    pending_invalidations::{InvalidationWatch, PendingInvalidation, Recorded},
    store::Store,
    store_types::PatternCursor,
    write_outcome::WriteOutcome,
};
use crate::{
    observe::{Counter, Event, log_l2_overflow},
    resilience::{Backoff, DropGuard, has_timer},
};

/// How often the limit of a pattern that is retried doubles, if the store cannot continue where the
/// last attempt ended: from 10 to 80 times the usual one. It is bounded, because a store may never
/// answer.
const MAX_DOUBLINGS: u32 = 3;

/// Maximum number of keys whose deletes are retried with one call.
const MAX_RETRIED_TOGETHER: usize = 256;

impl<V: Send + Sync + 'static> L2<V> {
    /// Deletes a key. If the call fails or the caller drops the future, the delete is pending: a
    /// background task retries it, and the key is not read from the store before it has succeeded.
    pub(crate) async fn delete(self: &Arc<Self>, key: &str) -> WriteOutcome {
        if let Some(versions) = &self.versions {
            versions.bump(key);
        }
        self.remove(key).await
    }

    /// Removes a value that no caller deleted, but that must not stay: as
    /// [`delete`](Self::delete), without a new version of the key.
    pub(crate) async fn remove(self: &Arc<Self>, key: &str) -> WriteOutcome {
        self.ensure_retry_task();
        if let Err(refused) = self.check_key(key) {
            return WriteOutcome::NotStored(refused);
        }
        let intent = self.intend(key);
        let removed = self.remove_key(key, BreakerCounts::All).await;
        self.end(intent, key, removed.map(|()| WriteOutcome::Done))
    }

    /// Deletes all keys that match a glob; a failure is handled as in [`delete`](Self::delete).
    pub(crate) async fn delete_matching(self: &Arc<Self>, glob: &str) -> WriteOutcome {
        self.ensure_retry_task();
        let cursor = PatternCursor::new();
        let (this, name, from) = (Arc::clone(self), glob.to_owned(), cursor.clone());
        let intent = DropGuard::new(move || drop(this.make_pattern_pending(&name, &from)));
        // The breaker does not count a call that reached its limit: the store may have many keys
        // to look at, and still be healthy.
        let (counts, limit) = (BreakerCounts::ErrorsOnly, self.limits.pattern);
        let removed = self.remove_matching(glob, false, &cursor, limit, counts).await;
        intent.disarm();
        match removed {
            Ok(()) => WriteOutcome::Done,
            Err(_) => WriteOutcome::Pending(self.make_pattern_pending(glob, &cursor)),
        }
    }

    /// The version of a key, for messages to peers. `None`: keys are not versioned.
    pub(crate) fn version_of(&self, key: &str) -> Option<u64> {
        self.versions.as_ref().map(|versions| versions.version_of(key))
    }

    /// A peer has deleted or set the key, which is at version `remote` there. If the store may
    /// hold an old value under the key's new name, a delete of the key becomes pending.
    pub(crate) fn observe_remote(self: &Arc<Self>, key: &str, remote: u64) {
        if let Some(versions) = &self.versions
            && self.rejection(key).is_none()
        {
            let mut recorded = Recorded::default();
            versions.observe_remote(key, remote, || recorded = self.pending.record(key, false));
            self.report_overflow(&recorded);
            self.ensure_retry_task();
        }
    }

    /// A peer has deleted or set a key, or the keys that match a glob, and could not bring that to
    /// the store: it becomes pending here. `generation` is the peer's version of the key; call this
    /// before [`observe_remote`](Self::observe_remote).
    pub(crate) fn record_for_peer(
        self: &Arc<Self>,
        name: &str,
        is_pattern: bool,
        generation: Option<u64>,
    ) {
        if !is_pattern && self.rejection(name).is_some() {
            return;
        }
        let versions = self.versions.as_ref().zip(generation);
        let version = versions.and_then(|(all, remote)| all.version_to_delete_too(name, remote));
        self.report_overflow(&self.pending.record_for_peer(name, is_pattern, version));
        self.ensure_retry_task();
    }

    /// A program that knows nothing of sidecars has changed a key, or the keys that match a glob,
    /// in the store: their sidecars must go before the keys are read there again.
    pub(crate) fn record_foreign_change(self: &Arc<Self>, name: &str, is_pattern: bool) {
        let uses_sidecars = self.with_windows || self.with_missing;
        if uses_sidecars && (is_pattern || self.rejection(name).is_none()) {
            self.report_overflow(&self.pending.record_sidecars(name, is_pattern));
            self.ensure_retry_task();
        }
    }

    /// A peer's retry has brought an invalidation to the store. Returns whether it is pending here,
    /// so that the keys were not read from the store since this instance received it.
    pub(crate) fn on_peer_retried(&self, name: &str, is_pattern: bool) -> bool {
        self.pending.on_peer_retried(name, is_pattern)
    }

    /// Announces an invalidation of a key. Unless the returned guard is [ended](Self::end) or
    /// disarmed, the invalidation is pending when the guard is dropped: its caller dropped the
    /// future.
    pub(super) fn intend(self: &Arc<Self>, key: &str) -> DropGuard<impl FnOnce()> {
        DropGuard::new(move || drop(self.make_pending(key)))
    }

    /// Makes an invalidation pending, for a caller that does not wait for it.
    pub(crate) fn delete_later(self: &Arc<Self>, key: &str) {
        self.ensure_retry_task();
        if self.check_key(key).is_ok() {
            drop(self.make_pending(key));
        }
    }

    /// Ends an invalidation that was [announced](Self::intend): if the store was not reached, it is
    /// pending from now on.
    pub(super) fn end(
        self: &Arc<Self>,
        intent: DropGuard<impl FnOnce()>,
        key: &str,
        result: Result<WriteOutcome, Failure>,
    ) -> WriteOutcome {
        intent.disarm();
        result.unwrap_or_else(|_| WriteOutcome::Pending(self.make_pending(key)))
    }

    /// Makes an invalidation pending: the key is not read from the store before the retry task has
    /// brought the invalidation there.
    fn make_pending(self: &Arc<Self>, key: &str) -> InvalidationWatch {
        // mutant pending: => let recorded = Recorded::default();
        let recorded = self.pending.record(key, false);
        self.watch(key, false, &recorded)
    }

    /// As [`make_pending`](Self::make_pending), for all keys that match a glob. The delete has got
    /// as far as the cursor.
    fn make_pattern_pending(
        self: &Arc<Self>,
        glob: &str,
        from: &PatternCursor,
    ) -> InvalidationWatch {
        let recorded = self.pending.record_from(glob, from);
        self.watch(glob, true, &recorded)
    }

    fn watch(
        self: &Arc<Self>,
        name: &str,
        is_pattern: bool,
        recorded: &Recorded,
    ) -> InvalidationWatch {
        self.report_overflow(recorded);
        self.ensure_retry_task();
        let (pending, tasks) = (Arc::clone(&self.pending), self.context.tasks.clone());
        InvalidationWatch::new(pending, tasks, Arc::from(name), is_pattern, recorded)
    }

    fn report_overflow(&self, recorded: &Recorded) {
        if recorded.is_overflow {
            let observer = &self.context.observer;
            observer.count(Counter::L2PendingOverflows);
            observer.emit(|| Event::L2PendingOverflow {});
            log_l2_overflow(observer.cache());
        }
    }

    /// Removes a key, or all versions of it that [`KeyVersions`] names.
    pub(super) async fn remove_key(&self, key: &str, counts: BreakerCounts) -> Result<(), Failure> {
        let limit = self.limits.write;
        if self.versions.is_none() {
            return self.call_with(counts, "delete", key, limit, |store| store.delete(key)).await;
        }
        let names = self.names(key, None);
        self.call_with(counts, "delete_all", key, limit, |store| store.delete_all(&names)).await
    }

    async fn remove_matching(
        &self,
        glob: &str,
        sidecars_only: bool,
        cursor: &PatternCursor,
        limit: Duration,
        counts: BreakerCounts,
    ) -> Result<(), Failure> {
        let pattern = match self.versions {
            Some(_) => Cow::Owned(KeyVersions::glob(glob)),
            None => Cow::Borrowed(glob),
        };
        let remove = |store| Store::delete_matching_from(store, &pattern, sidecars_only, cursor);
        self.call_with(counts, "delete_matching", glob, limit, remove).await
    }

    /// The names in the store under which a delete removes a key.
    fn names(&self, key: &str, version: Option<u64>) -> Vec<String> {
        match &self.versions {
            None => vec![key.to_owned()],
            Some(versions) => versions.names_to_delete(key, version),
        }
    }

    /// Starts the task that retries pending invalidations, unless none is pending or the task
    /// runs already. The task ends when none is pending any more, or with the cache.
    ///
    /// Called when an invalidation becomes pending, and also at the start of each read, write and
    /// delete: the first may have happened outside of a runtime, or the task's runtime may have
    /// shut down.
    pub(super) fn ensure_retry_task(self: &Arc<Self>) {
        if self.pending.is_empty() || !has_timer() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.pending.try_claim() {
            return;
        }
        let (worker, claimed) = (Arc::clone(self), Arc::clone(self));
        // If this task is dropped before its end, with its runtime say, another may take over.
        let release = DropGuard::new(move || claimed.pending.release());
        runtime.spawn(self.context.tasks.token().run(async move {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
            while worker.retry_pending().await.is_err() {
                sleep(backoff.next(fastrand::f64())).await;
            }
            release.disarm();
        }));
    }

    /// Sends the pending invalidations to the store, the oldest first. A failed one goes to the end
    /// of the queue. Returns `Ok` when none is pending, and a failure after three failures in a row
    /// (after fewer if fewer are pending).
    ///
    /// Keys are deleted together, in calls that double as long as they succeed; a failure returns
    /// to one key, so that a key whose delete always fails delays no other. A pattern continues
    /// where it was, if the store can do that; else it begins anew, and each failure doubles its
    /// limit, at most three times.
    ///
    /// The circuit breaker counts none of these failures: one invalidation that always fails must
    /// not keep the store from serving everything else. The retries do not wait for its cooldown
    /// either: what L2 still holds is served by the peers.
    async fn retry_pending(&self) -> Result<(), Failure> {
        let (mut failures, mut max) = (0, 1);
        loop {
            let together = self.pending.next(max);
            let Some(first) = together.first() else { return Ok(()) };
            let position = first.cursor.position();
            match self.retry(first, &together).await {
                Ok(()) => {
                    (failures, max) = (0, (2 * max).min(MAX_RETRIED_TOGETHER));
                    for done in &together {
                        // First, so that a caller that waits for both finds the message in the
                        // outbox.
                        if let Some(done) = self.pending.current(done) {
                            (self.context.on_retried)(&done);
                        }
                        self.pending.complete(done);
                    }
                }
                Err(failure) => {
                    (failures, max) = (failures + 1, 1);
                    self.pending.requeue(first, first.cursor.position() != position);
                    if failures >= self.pending.len().min(3) {
                        return Err(failure);
                    }
                }
            }
        }
    }

    /// Sends a pending invalidation to the store, or several deletes of keys.
    async fn retry(
        &self,
        first: &PendingInvalidation,
        together: &[PendingInvalidation],
    ) -> Result<(), Failure> {
        let (name, counts) = (&first.name, BreakerCounts::Retry);
        if first.is_pattern {
            // No caller waits for it, and the usual limit may be too short for one step of it.
            let factor = 10 << first.failures.min(MAX_DOUBLINGS);
            let limit = self.limits.pattern.saturating_mul(factor);
            return self
                .remove_matching(name, first.keeps_values, &first.cursor, limit, counts)
                .await;
        }
        let names: Vec<String> =
            together.iter().flat_map(|it| self.names(&it.name, it.version)).collect();
        let limit = self.limits.write;
        match &names[..] {
            names if first.keeps_values => {
                self.call_with(counts, "delete_sidecars", name, limit, |store| {
                    store.delete_sidecars(names)
                })
                .await
            }
            [name] => {
                self.call_with(counts, "delete", name, limit, |store| store.delete(name)).await
            }
            names => {
                self.call_with(counts, "delete_all", name, limit, |store| store.delete_all(names))
                    .await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::Codec,
        error::BoxError,
        l2::L2Context,
        observe::Observer,
        options::CacheOptions,
        resilience::task_tracker::TaskTracker,
        testing::{ManualClock, SharedStore},
    };

    struct NoCodec;

    impl Codec<()> for NoCodec {
        fn encode(&self, (): &()) -> Result<Vec<u8>, BoxError> {
            Ok(Vec::new())
        }

        fn decode(&self, _bytes: &[u8]) -> Result<(), BoxError> {
            Ok(())
        }
    }

    #[test]
    fn an_intended_invalidation_is_pending_unless_its_guard_is_disarmed() {
        let clock = ManualClock::new();
        let context = L2Context {
            observer: Arc::new(Observer::of_cache(None)),
            clock: Arc::new(clock.clone()),
            tasks: TaskTracker::default(),
            on_retried: Box::new(|_| ()),
            shared_server: None,
        };
        let (store, codec) = (Arc::new(SharedStore::new(clock)), Arc::new(NoCodec));
        let l2 = Arc::new(L2::new(store, codec, &CacheOptions::default(), context));
        l2.intend("a").disarm();
        assert!(l2.pending.is_empty());
        drop(l2.intend("a"));
        assert!(l2.pending.covers("a") && !l2.pending.covers("b"));
    }
}
