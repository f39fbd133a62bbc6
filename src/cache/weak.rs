//! A reference to a cache that does not keep it alive: for a manager, whose caches end with the
//! last handle of their callers.

use std::{
    marker::PhantomData,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    handle::LazyLayersCache,
    state::{CacheState, ShutdownOnDrop},
};
use crate::options::CacheOptions;

pub(crate) struct WeakCache<K: ?Sized, V> {
    weak: WeakState<V>,
    keys: PhantomData<fn(&K)>,
}

/// The state of a cache, for as long as the cache has handles. Keeps neither alive.
pub(super) struct WeakState<V> {
    state: Weak<CacheState<V>>,
    shutdown_on_drop: Weak<ShutdownOnDrop>,
}

impl<V> WeakState<V> {
    pub(super) fn upgrade(&self) -> Option<Arc<CacheState<V>>> {
        // The tasks of a dropped cache may hold its state for a second more.
        self.state.upgrade().filter(|_| self.is_live())
    }

    fn is_live(&self) -> bool {
        self.shutdown_on_drop.strong_count() > 0
    }
}

impl<K: ?Sized, V> WeakCache<K, V> {
    /// Returns a handle, which the caller must not drop under a lock: it may be the last one.
    pub(crate) fn upgrade(&self) -> Option<LazyLayersCache<K, V>> {
        let shutdown_on_drop = self.weak.shutdown_on_drop.upgrade()?;
        let state = self.weak.upgrade()?;
        Some(LazyLayersCache { state, shutdown_on_drop, keys: PhantomData })
    }

    pub(crate) fn is_live(&self) -> bool {
        self.weak.is_live()
    }
}

impl<K: ?Sized, V: Send + Sync + 'static> LazyLayersCache<K, V> {
    pub(super) fn weak_state(&self) -> WeakState<V> {
        WeakState {
            state: Arc::downgrade(&self.state),
            shutdown_on_drop: Arc::downgrade(&self.shutdown_on_drop),
        }
    }

    pub(crate) fn downgrade(&self) -> WeakCache<K, V> {
        WeakCache { weak: self.weak_state(), keys: PhantomData }
    }

    pub(crate) fn options(&self) -> &CacheOptions {
        &self.state.options
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.check_open().is_err()
    }

    /// As [`close`](Self::close), with a deadline instead of that of the options.
    pub(crate) async fn close_within(&self, limit: Duration) {
        self.state.close(limit).await;
    }
}
