//! Builds a [`RedisStore`] from an address and options, and checks both.

use std::sync::Arc;

use redis::{aio::ConnectionLike, cluster_async::ClusterConnection};

use super::{
    context::StoreContext,
    keyspace::KeySpace,
    options::{DeleteStrategy, RedisOptions, RestartPolicy},
    redis_store::RedisStore,
};
use crate::{
    adapters::{
        limits::check_longest,
        redis::{
            builder::redis_builder,
            endpoint::{Address, Endpoint, client::refused, tls::TlsMaterial},
        },
    },
    error::BuildError,
};

redis_builder!(
    RedisStore,
    ///
    /// ```
    /// use lazy_layers_cache::{DeleteStrategy, RedisStore, RestartPolicy};
    ///
    /// let store = RedisStore::at("redis://127.0.0.1/")
    ///     .prefix_needs_separator(true)
    ///     .use_index(true)
    ///     .scan_count(500)
    ///     .batch_size(200)
    ///     .delete_strategy(DeleteStrategy::Unlink)
    ///     .max_entries(1_000_000_usize)
    ///     .max_payload_bytes(1_usize << 20)
    ///     .after_restart(RestartPolicy::Clear)
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    RedisStoreBuilder {},
    RedisOptions {
        prefix_needs_separator: bool,
        use_index: bool,
        scan_count: usize,
        batch_size: usize,
        delete_strategy: DeleteStrategy,
        max_entries: usize,
        max_payload_bytes: usize,
        after_restart: RestartPolicy,
    }
);

impl RedisStore {
    /// Uses a connection of the application. The store never replaces a broken connection of the
    /// application, so prefer a `ConnectionManager` to a `MultiplexedConnection`.
    ///
    /// ```no_run
    /// use lazy_layers_cache::RedisStore;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = redis::Client::open("redis://127.0.0.1/")?;
    /// // A `ConnectionManager`, a feature of the client, would connect again by itself.
    /// let connection = client.get_multiplexed_async_connection().await?;
    /// let store = RedisStore::over(connection).build()?;
    /// # Ok(()) }
    /// ```
    pub fn over(
        connection: impl ConnectionLike + Clone + Send + Sync + 'static,
    ) -> RedisStoreBuilder {
        RedisStoreBuilder::new(Address::Ready(Box::new(Endpoint::External(Arc::new(connection)))))
    }

    /// Uses a connection of the application to a Cluster.
    ///
    /// ```no_run
    /// use lazy_layers_cache::RedisStore;
    /// use redis::cluster::ClusterClient;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = ClusterClient::new(["redis://redis-1/", "redis://redis-2/"])?;
    /// let store = RedisStore::over_cluster(client.get_async_connection().await?).build()?;
    /// # Ok(()) }
    /// ```
    pub fn over_cluster(connection: ClusterConnection) -> RedisStoreBuilder {
        RedisStoreBuilder::new(Address::Ready(Box::new(Endpoint::ExternalCluster(connection))))
    }
}

impl RedisStoreBuilder {
    /// Sets [`RedisOptions::prefix`]. The store then belongs to the caches of one name: `build` of
    /// a cache with another name is an error. Give each cache a store of its own or a view by
    /// [`RedisStore::with_prefix`], or build the caches with a
    /// [`CacheManager`](crate::CacheManager).
    ///
    /// ```
    /// use lazy_layers_cache::RedisStore;
    ///
    /// let store = RedisStore::at("redis://127.0.0.1/").prefix("shop:users:").build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.options.prefix = Some(prefix.into());
        self
    }

    /// Builds the store. Connects to nothing.
    ///
    /// ```
    /// use lazy_layers_cache::RedisStore;
    ///
    /// let refused = RedisStore::at("http://127.0.0.1/").build().unwrap_err();
    /// println!("{refused}");
    /// let refused = RedisStore::at("redis://127.0.0.1/").prefix("users").build().unwrap_err();
    /// assert_eq!(refused.option(), "redis.prefix", "it does not end in a separator");
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if a URL is invalid or options contradict each other. The error names the option and
    /// the fix.
    pub fn build(self) -> Result<RedisStore, BuildError> {
        let endpoint = self.address.build(self.tls, self.options.connect_timeout)?;
        if let Endpoint::Cluster { commands: Err(error), .. } = &endpoint {
            return Err(refused(error));
        }
        self.options.check(endpoint.is_cluster())?;
        Ok(RedisStore::new(StoreContext::new(Arc::new(endpoint), self.options)))
    }
}

impl RedisStore {
    /// Returns a view of the store under another [prefix](RedisOptions::prefix), so that one store
    /// can be lent to several caches. It shares the connection and the task that watches it, and
    /// has the same options otherwise.
    ///
    /// ```no_run
    /// # use lazy_layers_cache::RedisStore;
    /// # fn main() -> Result<(), lazy_layers_cache::BuildError> {
    /// let store = RedisStore::at("redis://127.0.0.1/").build()?;
    /// let (users, mails) = (store.with_prefix("users:")?, store.with_prefix("mails:")?);
    /// # Ok(()) }
    /// ```
    ///
    /// Caches with names need no such view: the default prefix has their names.
    ///
    /// # Errors
    ///
    /// The prefix is not allowed. The error says why.
    pub fn with_prefix(&self, prefix: impl Into<String>) -> Result<Self, BuildError> {
        let context = self.context().with_prefix(prefix.into());
        context.options.check(context.endpoint.is_cluster())?;
        Ok(self.view(context))
    }
}

/// The last character of a prefix.
const SEPARATORS: [char; 7] = [':', '/', '.', '-', '_', '|', '#'];

impl RedisOptions {
    fn check(&self, is_cluster: bool) -> Result<(), BuildError> {
        let prefix = self.prefix_or_default();
        let (a_number, a_time) = ("write 1 or more", "write a time such as 1 s");
        for (is_wrong, option, problem, fix) in [
            (
                prefix.is_empty(),
                "redis.prefix",
                "is empty, so all keys of the Redis would belong to the cache",
                "write a prefix such as \"users:cache:\", or leave the option out",
            ),
            (
                self.prefix_needs_separator && !prefix.ends_with(SEPARATORS),
                "redis.prefix",
                "does not end in a separator, so longer names that begin alike would belong to the \
                 cache",
                "end it in one of : / . - _ | #, or set redis.prefix_needs_separator to false",
            ),
            (
                KeySpace::new(prefix.to_owned()).is_ambiguous(),
                "redis.prefix",
                "has an opening brace that encloses nothing, so a Cluster would place names by \
                 braces in their keys",
                "leave the brace out, or close it after at least one character",
            ),
            (self.scan_count == 0, "redis.scan_count", "is 0", a_number),
            (self.batch_size == 0, "redis.batch_size", "is 0", a_number),
            (self.max_payload_bytes == 0, "redis.max_payload_bytes", "is 0", a_number),
            (self.connect_timeout.is_zero(), "redis.connect_timeout", "is zero", a_time),
            (self.check_interval.is_zero(), "redis.check_interval", "is zero", a_time),
            (
                self.max_entries == Some(0),
                "redis.max_entries",
                "is 0, so nothing would be kept",
                "write 1 or more, or leave L2 out",
            ),
            (
                self.max_entries.is_some() && (!self.use_index || is_cluster),
                "redis.max_entries",
                "needs the index, and there is none",
                "set redis.use_index to true, which a Cluster cannot have, or bound the server's \
                 memory instead",
            ),
        ] {
            BuildError::refuse_if(is_wrong, option, problem, fix)?;
        }
        check_longest(("redis.connect_timeout", self.connect_timeout))?;
        check_longest(("redis.check_interval", self.check_interval))
    }
}
