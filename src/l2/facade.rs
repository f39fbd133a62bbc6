//! The state of L2, and how it calls the store: within a deadline and behind the circuit breaker,
//! each failure reported once.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    key_versions::KeyVersions,
    pending_invalidations::{PendingInvalidation, PendingInvalidations},
    server_state::ServerState,
    store::{Store, StoreFuture},
};
use crate::{
    codec::{Codec, offloading::OffloadingCodec},
    error::{BoxError, HeldError},
    observe::{
        Counter, Event, Observer, RequestSpan, Timed, log_l2_down, log_l2_emptied, log_l2_up,
    },
    options::{CacheOptions, L2Timeouts},
    resilience::{Elapsed, Permit, task_tracker::TaskTracker, timeout},
    time::Clock,
};

pub(crate) struct L2<V> {
    store: Arc<dyn Store>,
    server: Arc<ServerState>,
    /// [`Store::times_emptied`] when it was last reported.
    times_emptied: AtomicU64,
    pub(super) context: L2Context,
    pub(super) codec: OffloadingCodec<V>,
    pub(super) limits: L2Timeouts,
    /// The cache uses stale windows and copies.
    pub(super) with_windows: bool,
    /// The cache uses negative entries.
    pub(super) with_missing: bool,
    max_key_bytes: usize,
    pub(super) pending: Arc<PendingInvalidations>,
    /// `None`: keys are not versioned.
    pub(super) versions: Option<KeyVersions>,
}

/// The parts of the cache that L2 uses.
pub(crate) struct L2Context {
    pub(crate) observer: Arc<Observer>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The retry task is one of these, so that `close` waits for it and stops it.
    pub(crate) tasks: TaskTracker,
    pub(crate) on_retried: OnRetried,
    /// The state that other caches on the same server have too; `None`: L2 has its own.
    pub(crate) shared_server: Option<Arc<ServerState>>,
}

/// Called with each invalidation that a retry has brought to the store, so that the cache
/// broadcasts it again: instances that did not get the first broadcast may have read the old value
/// from the store.
pub(crate) type OnRetried = Box<dyn Fn(&PendingInvalidation) + Send + Sync>;

/// Why a call of the store has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The circuit is open: the store was not called.
    Skipped,
    /// The call failed, which was reported.
    Failed,
}

/// Which failures of a call the circuit breaker counts. It never counts a write that the store
/// refuses while it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BreakerCounts {
    All,
    /// Errors of the store, but not a call that reached its deadline.
    ErrorsOnly,
    None,
    /// None, and the call is made also while the circuit is open. If it succeeds, the circuit
    /// closes: so a pending invalidation does not wait for the cooldown.
    Retry,
}

impl<V> L2<V> {
    /// The number of invalidations that have not reached the store.
    pub(crate) fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// Whether the circuit is open.
    pub(crate) fn is_skipped(&self) -> bool {
        self.server.breaker.is_open()
    }

    /// Whether a call would be sent to the store now: the circuit is closed, or a probe is due.
    pub(crate) fn would_call(&self) -> bool {
        let connection = self.store.connection_generation();
        self.server.breaker.would_permit(self.context.clock.now(), connection)
    }
}

fn no_answer(_: Elapsed, limit: Duration) -> BoxError {
    format!("no answer within {limit:?}").into()
}

impl<V: Send + Sync + 'static> L2<V> {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        codec: Arc<dyn Codec<V>>,
        options: &CacheOptions,
        mut context: L2Context,
    ) -> Self {
        let own_server = || Arc::new(ServerState::new(&options.l2_circuit_breaker, false));
        Self {
            times_emptied: AtomicU64::new(store.times_emptied()),
            store,
            server: context.shared_server.take().unwrap_or_else(own_server),
            context,
            codec: OffloadingCodec::new(codec, options.name.as_deref()),
            limits: options.l2_timeouts.clone(),
            with_windows: options.reads_windows(),
            with_missing: options.negative_cache.enabled,
            max_key_bytes: options.l2.max_key_bytes,
            pending: Arc::default(),
            versions: options.l2.versioning.then(KeyVersions::default),
        }
    }

    /// Calls the store; the breaker counts every failure. `operation` is the name of the method of
    /// the store.
    pub(super) async fn call<'a, T>(
        &'a self,
        operation: &'static str,
        key: &str,
        limit: Duration,
        call: impl FnOnce(&'a dyn Store) -> StoreFuture<'a, T>,
    ) -> Result<T, Failure> {
        self.call_with(BreakerCounts::All, operation, key, limit, call).await
    }

    /// Calls the store; the breaker counts the failures that `counts` names. Reports name `key`.
    ///
    /// Only this function and [`call_unnoticed`](Self::call_unnoticed) send requests to the store.
    pub(super) async fn call_with<'a, T>(
        &'a self,
        counts: BreakerCounts,
        operation: &'static str,
        key: &str,
        limit: Duration,
        call: impl FnOnce(&'a dyn Store) -> StoreFuture<'a, T>,
    ) -> Result<T, Failure> {
        let observer = &self.context.observer;
        let ServerState { breaker, is_shared, .. } = &*self.server;
        let permit = breaker.permit(self.now(), self.store.connection_generation());
        // mutant open-retry: s/counts != BreakerCounts::Retry/true/
        if permit.is_none() && counts != BreakerCounts::Retry {
            observer.count(Counter::L2Skipped);
            observer.emit(|| Event::L2Skipped { key });
            return Err(Failure::Skipped);
        }
        let span = RequestSpan::of_l2(observer.cache(), operation);
        let timer = observer.start_timer();
        let answer = span.run(timeout(Some(limit), call(&*self.store))).await;
        observer.record(Timed::L2Call, timer);
        self.report_emptied();
        let is_counted = match counts {
            BreakerCounts::All => true,
            BreakerCounts::ErrorsOnly => answer.is_ok(),
            BreakerCounts::None | BreakerCounts::Retry => false,
        };
        match answer.unwrap_or_else(|late| Err(no_answer(late, limit))) {
            Ok(answer) => {
                if permit.map_or_else(|| breaker.close(), Permit::succeeded) {
                    log_l2_up(observer.cache(), *is_shared);
                }
                Ok(answer)
            }
            Err(error) => {
                let error = HeldError::new(error);
                self.report(key, &error);
                // mutant refused-write: s/!self.store.is_write_refusal(&error)/true/
                let is_failure = is_counted && !self.store.is_write_refusal(&error);
                if is_failure && permit.is_some_and(|permit| permit.failed(self.now())) {
                    log_l2_down(observer.cache(), *is_shared, &error);
                }
                Err(Failure::Failed)
            }
        }
    }

    /// Calls the store past the circuit breaker, which counts neither success nor failure, and
    /// reports nothing. Not to be used while the circuit is open.
    pub(super) async fn call_unnoticed<'a, T>(
        &'a self,
        operation: &'static str,
        limit: Duration,
        call: impl FnOnce(&'a dyn Store) -> StoreFuture<'a, T>,
    ) -> Result<T, HeldError> {
        let span = RequestSpan::of_l2(self.context.observer.cache(), operation);
        let answer = span.run(timeout(Some(limit), call(&*self.store))).await;
        answer.unwrap_or_else(|late| Err(no_answer(late, limit))).map_err(HeldError::new)
    }

    /// Reports that the store has removed all keys since the last call.
    fn report_emptied(&self) {
        let times = self.store.times_emptied();
        let known = self.times_emptied.load(Ordering::Relaxed);
        if times != known && self.times_emptied.swap(times, Ordering::Relaxed) != times {
            let observer = &self.context.observer;
            observer.count(Counter::L2Emptied);
            observer.emit(|| Event::L2Emptied {});
            if self.server.logs_emptied(times) {
                log_l2_emptied(observer.cache(), self.server.is_shared);
            }
        }
    }

    pub(super) fn report(&self, key: &str, error: &BoxError) {
        self.context.observer.count(Counter::L2Errors);
        self.context.observer.emit(|| Event::L2Error { key, error: &**error });
    }

    /// Reports a key or a value that the store is not asked to hold. That is no failure of the
    /// store.
    pub(super) fn report_refused(&self, key: &str, error: &BoxError) {
        self.context.observer.count(Counter::L2Refused);
        self.context.observer.emit(|| Event::L2Refused { key, error: &**error });
    }

    pub(super) fn now(&self) -> u64 {
        self.context.clock.now()
    }

    /// The name of a key's value in the store.
    pub(super) fn name<'a>(&self, key: &'a str) -> Cow<'a, str> {
        match &self.versions {
            Some(versions) => Cow::Owned(versions.name(key)),
            None => Cow::Borrowed(key),
        }
    }

    /// Whether the store may be asked about the key: it accepts the key, and no invalidation of the
    /// key is pending.
    ///
    /// Call this after [`name`](Self::name): a message of a peer may record a pending invalidation
    /// and change the name at the same time.
    pub(super) fn may_read(&self, key: &str) -> bool {
        self.accepts_key(key) && !self.pending.covers(key)
    }

    /// Whether the store can hold the key; reports the reason if not.
    fn accepts_key(&self, key: &str) -> bool {
        self.check_key(key).is_ok()
    }

    /// Returns, and reports, the reason if the store cannot hold the key.
    pub(super) fn check_key(&self, key: &str) -> Result<(), HeldError> {
        let rejection = self.rejection(key).inspect(|error| self.report_refused(key, error));
        rejection.map_or(Ok(()), Err)
    }

    /// Why the store cannot hold the key.
    pub(super) fn rejection(&self, key: &str) -> Option<HeldError> {
        let (length, limit) = (key.len(), self.max_key_bytes);
        if length > limit {
            let error = format!("a key of {length} bytes, l2.max_key_bytes is {limit}");
            return Some(HeldError::new(error.into()));
        }
        self.store.reject_key(key).map(HeldError::new)
    }

    /// Why the store cannot hold a value of this many bytes.
    pub(super) fn value_rejection(&self, bytes: usize) -> Option<HeldError> {
        self.store.reject_value(bytes).map(HeldError::new)
    }
}
