//! The state of L2: the guarded store, the codec and the limits, with the steps that reads and
//! writes share.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::{
    guarded::GuardedStore,
    invalidator::{Invalidator, OnRetried},
    key_versions::KeyVersions,
    pending_invalidations::PendingInvalidations,
    store::Store,
};
use crate::{
    codec::{
        Codec,
        offloading::{OffloadingCodec, Unreadable},
    },
    error::BoxError,
    observe::Observer,
    options::CacheOptions,
    resilience::{Breaker, task_tracker::TaskTracker},
    time::{Clock, millis},
};

pub(crate) struct L2<V> {
    pub(super) store: Arc<GuardedStore>,
    pub(super) invalidator: Arc<Invalidator>,
    codec: OffloadingCodec<V>,
    pub(super) read_limit: Duration,
    pub(super) write_limit: Duration,
    /// A value in the store is stale for this last part of its ttl.
    pub(super) stale_for: Duration,
    max_key_bytes: usize,
}

/// The parts of the cache that L2 uses.
pub(crate) struct L2Context {
    pub(crate) observer: Arc<Observer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: TaskTracker,
    pub(crate) on_retried: OnRetried,
}

impl<V> L2<V> {
    /// Whether the circuit is open.
    pub(crate) fn is_skipped(&self) -> bool {
        self.store.is_open()
    }
}

impl<V: Send + Sync + 'static> L2<V> {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        codec: Arc<dyn Codec<V>>,
        options: &CacheOptions,
        context: L2Context,
    ) -> Self {
        let L2Context { observer, clock, tasks, on_retried } = context;
        let breaker = &options.l2_circuit_breaker;
        let breaker = Breaker::new(breaker.failure_threshold, millis(breaker.cooldown));
        let store = Arc::new(GuardedStore::new(store, breaker, observer, clock));
        let limits = &options.l2_timeouts;
        let invalidator = Invalidator {
            store: Arc::clone(&store),
            pending: PendingInvalidations::default(),
            versions: options.l2.versioning.then(KeyVersions::default),
            write_limit: limits.write,
            pattern_limit: limits.pattern,
            tasks,
            on_retried,
        };
        Self {
            store,
            invalidator: Arc::new(invalidator),
            codec: OffloadingCodec::new(codec),
            read_limit: limits.read,
            write_limit: limits.write,
            stale_for: options.stale_ttl(),
            max_key_bytes: options.l2.max_key_bytes,
        }
    }

    /// The number of values in the store, `None` if the store does not answer.
    pub(crate) async fn size(&self) -> Option<u64> {
        self.store.call("*", self.read_limit, |store| store.size()).await.ok()
    }

    /// The name of a key's value in the store.
    pub(super) fn name<'a>(&self, key: &'a str) -> Cow<'a, str> {
        match &self.invalidator.versions {
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
        self.accepts_key(key) && !self.invalidator.pending.covers(key)
    }

    /// Whether the store can hold the key; reports the reason if not.
    pub(super) fn accepts_key(&self, key: &str) -> bool {
        self.rejection(key).map(|error| self.store.report(key, &error)).is_none()
    }

    /// Why the store cannot hold the key.
    pub(super) fn rejection(&self, key: &str) -> Option<BoxError> {
        let (length, limit) = (key.len(), self.max_key_bytes);
        if length > limit {
            return Some(format!("a key of {length} bytes, l2.max_key_bytes is {limit}").into());
        }
        self.store.reject_key(key)
    }

    /// Decodes a value of the store. Bytes that the codec rejects are reported and deleted.
    pub(super) async fn decode(&self, key: &str, bytes: Vec<u8>) -> Option<Arc<V>> {
        match self.codec.decode(bytes).await {
            Ok(value) => Some(Arc::new(value)),
            Err(Unreadable(error, bytes)) => {
                self.store.report(key, &error);
                if let Some(bytes) = bytes {
                    // Boxed, so that the future of a hit does not reserve space for it.
                    Box::pin(self.delete_if_equals(key, &bytes)).await;
                }
                None
            }
        }
    }

    pub(super) async fn encode(&self, key: &str, value: &Arc<V>) -> Option<Vec<u8>> {
        self.codec.encode(value).await.inspect_err(|error| self.store.report(key, error)).ok()
    }

    async fn delete_if_equals(&self, key: &str, bytes: &[u8]) {
        let name = self.name(key);
        let delete =
            self.store.call(key, self.write_limit, |store| store.delete_if_equals(&name, bytes));
        let _ = delete.await;
    }
}
