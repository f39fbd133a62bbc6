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
    adapters::redis::{
        builder::redis_builder,
        endpoint::{Address, Endpoint, client::refused, tls::TlsMaterial},
    },
    error::BuildError,
};

redis_builder!(RedisStore, RedisStoreBuilder {}, RedisOptions {
    prefix: impl Into<String>,
    use_index: bool,
    scan_count: usize,
    batch_size: usize,
    delete_strategy: DeleteStrategy,
    max_entries: usize,
    max_payload_bytes: usize,
    after_restart: RestartPolicy,
});

impl RedisStore {
    /// Uses a connection of the application. The store never replaces a broken connection of the
    /// application, so prefer a `ConnectionManager` to a `MultiplexedConnection`.
    pub fn over(
        connection: impl ConnectionLike + Clone + Send + Sync + 'static,
    ) -> RedisStoreBuilder {
        RedisStoreBuilder::new(Address::Ready(Box::new(Endpoint::External(Arc::new(connection)))))
    }

    /// Uses a connection of the application to a Cluster.
    pub fn over_cluster(connection: ClusterConnection) -> RedisStoreBuilder {
        RedisStoreBuilder::new(Address::Ready(Box::new(Endpoint::ExternalCluster(connection))))
    }
}

impl RedisStoreBuilder {
    /// Builds the store. Connects to nothing.
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
        let context = StoreContext::new(endpoint, self.options);
        context.options.check(&context.keys, context.endpoint.is_cluster())?;
        Ok(RedisStore::new(context))
    }
}

impl RedisOptions {
    fn check(&self, keys: &KeySpace, is_cluster: bool) -> Result<(), BuildError> {
        let (a_number, a_time) = ("write 1 or more", "write a time such as 1 s");
        for (is_wrong, option, problem, fix) in [
            (
                keys.is_ambiguous(),
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
        Ok(())
    }
}
