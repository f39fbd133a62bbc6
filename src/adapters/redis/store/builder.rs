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
        builder::builder_setters,
        endpoint::{Endpoint, EndpointConfig},
    },
    error::BuildError,
};

impl RedisStore {
    /// Uses a single server. Its URL is `redis://[user:password@]host[:port][/database]`, or
    /// `rediss://` for TLS with the feature `redis-tls`.
    pub fn at(url: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(EndpointConfig::server(url))
    }

    /// Uses a Cluster. Takes the URLs of some of its nodes; the client finds the others.
    pub fn cluster(urls: impl IntoIterator<Item = impl Into<String>>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(EndpointConfig::cluster(urls))
    }

    /// Uses the master that sentinels name. Takes the URLs of the sentinels, and the URL of the
    /// master with its name as the host: `redis://:password@mymaster/0`.
    pub fn sentinel(
        urls: impl IntoIterator<Item = impl Into<String>>,
        master: impl Into<String>,
    ) -> RedisStoreBuilder {
        RedisStoreBuilder::new(EndpointConfig::sentinel(urls, master))
    }

    /// Uses a connection of the application. The store never replaces a broken connection of the
    /// application, so prefer a `ConnectionManager` to a `MultiplexedConnection`.
    pub fn over(
        connection: impl ConnectionLike + Clone + Send + Sync + 'static,
    ) -> RedisStoreBuilder {
        let endpoint = Endpoint::External(Arc::new(connection));
        RedisStoreBuilder::new(EndpointConfig::ready(endpoint))
    }

    /// Uses a connection of the application to a Cluster.
    pub fn over_cluster(connection: ClusterConnection) -> RedisStoreBuilder {
        RedisStoreBuilder::new(EndpointConfig::ready(Endpoint::ExternalCluster(connection)))
    }
}

/// Builds a [`RedisStore`].
#[must_use = "nothing happens before build()"]
pub struct RedisStoreBuilder {
    pub(crate) endpoint: EndpointConfig,
    options: RedisOptions,
}

builder_setters!(RedisStoreBuilder for RedisOptions {
    prefix: impl Into<String>,
    use_index: bool,
    scan_count: usize,
    batch_size: usize,
    delete_strategy: DeleteStrategy,
    max_entries: usize,
    max_payload_bytes: usize,
    after_restart: RestartPolicy,
});

impl RedisStoreBuilder {
    fn new(endpoint: EndpointConfig) -> Self {
        Self { endpoint, options: RedisOptions::default() }
    }

    /// Builds the store. Connects to nothing.
    ///
    /// # Errors
    ///
    /// Fails if a URL is invalid or options contradict each other. The error names the option and
    /// the fix.
    pub fn build(self) -> Result<RedisStore, BuildError> {
        let endpoint = self.endpoint.build()?;
        endpoint.check_commands()?;
        let context = StoreContext::new(endpoint, self.options);
        context.options.check(&context.keys, context.endpoint.is_cluster())?;
        Ok(RedisStore::new(context))
    }
}

impl RedisOptions {
    fn check(&self, keys: &KeySpace, is_cluster: bool) -> Result<(), BuildError> {
        let refuse = |refused: bool, option, problem: &str, fix| {
            if refused { Err(BuildError::new(option, problem, fix)) } else { Ok(()) }
        };
        refuse(
            keys.is_ambiguous(),
            "redis.prefix",
            "has an opening brace that encloses nothing, so a Cluster would place names by braces \
             in their keys",
            "leave the brace out, or close it after at least one character",
        )?;
        for (option, number) in [
            ("redis.scan_count", self.scan_count),
            ("redis.batch_size", self.batch_size),
            ("redis.max_payload_bytes", self.max_payload_bytes),
        ] {
            refuse(number == 0, option, "is 0", "write 1 or more")?;
        }
        for (option, time) in [
            ("redis.connect_timeout", self.connect_timeout),
            ("redis.check_interval", self.check_interval),
        ] {
            refuse(time.is_zero(), option, "is zero", "write a time such as 1 s")?;
        }
        refuse(
            self.max_entries == Some(0),
            "redis.max_entries",
            "is 0, so nothing would be kept",
            "write 1 or more, or leave the level out",
        )?;
        refuse(
            self.max_entries.is_some() && (!self.use_index || is_cluster),
            "redis.max_entries",
            "needs the index, and there is none",
            "set redis.use_index to true, which a Cluster cannot have, or bound the server's \
             memory instead",
        )
    }
}
