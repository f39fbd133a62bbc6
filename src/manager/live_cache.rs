//! The caches of a manager, whose types of keys and values only their callers know. The manager
//! keeps none of them alive.

use std::{any::Any, time::Duration};

use super::{join_all::BoxFuture, live_export::ExportMetrics, live_meter::RegisterMetrics};
use crate::{
    cache::{LazyLayersCache, WeakCache},
    error::Error,
    key::CacheKey,
    observe::{Health, Stats},
};

/// A handle of any cache.
pub(super) trait LiveCache: ExportMetrics + RegisterMetrics + Send + Sync {
    fn health(&self) -> Health;
    fn stats(&self) -> Stats;
    fn ready(&self) -> BoxFuture<'_, Result<(), Error>>;
    fn close_within(&self, limit: Duration) -> BoxFuture<'_, ()>;
    fn is_closed(&self) -> bool;
}

impl<K: CacheKey + ?Sized, V: Send + Sync + 'static> LiveCache for LazyLayersCache<K, V> {
    fn health(&self) -> Health {
        Self::health(self)
    }

    fn stats(&self) -> Stats {
        Self::stats(self)
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(Self::ready(self))
    }

    fn close_within(&self, limit: Duration) -> BoxFuture<'_, ()> {
        Box::pin(Self::close_within(self, limit))
    }

    fn is_closed(&self) -> bool {
        Self::is_closed(self)
    }
}

/// A reference to any cache, to be downcast to the [`WeakCache`] of its types.
pub(super) trait AnyCache: Any + Send + Sync {
    fn upgrade(&self) -> Option<Box<dyn LiveCache>>;
    fn is_live(&self) -> bool;
}

impl<K, V> AnyCache for WeakCache<K, V>
where
    K: CacheKey + ?Sized + 'static,
    V: Send + Sync + 'static,
{
    fn upgrade(&self) -> Option<Box<dyn LiveCache>> {
        Some(Box::new(Self::upgrade(self)?))
    }

    fn is_live(&self) -> bool {
        Self::is_live(self)
    }
}
