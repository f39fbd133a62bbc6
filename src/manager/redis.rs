//! L2 of a manager in Redis: one connection, a prefix for each cache.

use std::{convert::Infallible, sync::Arc};

use super::{builder::CacheManagerBuilder, options::StoreOf};
use crate::{
    adapters::redis::store::{RedisStore, RedisStoreBuilder},
    error::BuildError,
};

impl CacheManagerBuilder {
    /// Adds L2 in Redis: a [`RedisStore`], or the builder of one, whose errors
    /// [`build`](Self::build) returns. All caches share its connection, and the task that watches
    /// it. The keys of each begin with `{name}:cache:`, behind the store's own
    /// [prefix](crate::RedisOptions::prefix) if it has one: with the prefix `shop:` those of the
    /// cache `users` begin with `shop:users:cache:`. Default: that of the options, else none.
    ///
    /// ```no_run
    /// use lazy_layers_cache::{CacheManager, RedisStore};
    ///
    /// # fn main() -> Result<(), lazy_layers_cache::BuildError> {
    /// let manager = CacheManager::builder()
    ///     .redis(RedisStore::at("redis://127.0.0.1/"))
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn redis<S>(mut self, store: S) -> Self
    where
        S: TryInto<RedisStore>,
        S::Error: Into<BuildError>,
    {
        self.l2 = Some(store.try_into().map(store_of).map_err(Into::into));
        self
    }
}

/// The store of each cache: a view of this one.
pub(super) fn store_of(store: RedisStore) -> StoreOf {
    Arc::new(move |name| {
        Ok(match &store.context().options.prefix {
            Some(prefix) => Arc::new(store.with_prefix(format!("{prefix}{name}:cache:"))?),
            // The builder of a cache asks the store for the part of the cache.
            None => Arc::new(store.clone()),
        })
    })
}

impl TryFrom<RedisStoreBuilder> for RedisStore {
    type Error = BuildError;

    fn try_from(builder: RedisStoreBuilder) -> Result<Self, BuildError> {
        builder.build()
    }
}

impl From<Infallible> for BuildError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
