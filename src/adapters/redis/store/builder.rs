//! How a store is asked for: where Redis is, and the options.

use std::{fmt, sync::Arc};

use redis::{aio::ConnectionLike, cluster_async::ClusterConnection};

use super::{
    DeleteStrategy, RedisOptions, RedisStore, RestartPolicy, context::StoreContext,
    keyspace::KeySpace,
};
use crate::adapters::redis::{endpoint::Certificates, target::Target};
use crate::error::BuildError;

impl RedisStore {
    /// A single server, by its URL: `redis://[user:password@]host[:port][/database]`, or
    /// `rediss://` for TLS with the feature `redis-tls`.
    pub fn at(url: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(Place::One(url.into()))
    }

    /// A Cluster, by the URLs of some of its nodes.
    pub fn cluster(urls: impl IntoIterator<Item = impl Into<String>>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(Place::Cluster(urls.into_iter().map(Into::into).collect()))
    }

    /// The server that sentinels name, by their URLs and that of the master, which has its name as
    /// the host: `redis://:password@mymaster/0`.
    pub fn sentinel(
        urls: impl IntoIterator<Item = impl Into<String>>,
        master: impl Into<String>,
    ) -> RedisStoreBuilder {
        let urls = urls.into_iter().map(Into::into).collect();
        RedisStoreBuilder::new(Place::Sentinel(urls, master.into()))
    }

    /// A connection that the application has: a `MultiplexedConnection`, or better a
    /// `ConnectionManager`, for it is not made anew here when it breaks.
    pub fn over(
        connection: impl ConnectionLike + Clone + Send + Sync + 'static,
    ) -> RedisStoreBuilder {
        RedisStoreBuilder::new(Place::Ready(Target::Given(Arc::new(connection))))
    }

    /// The same for a connection to a Cluster.
    pub fn over_cluster(connection: ClusterConnection) -> RedisStoreBuilder {
        RedisStoreBuilder::new(Place::Ready(Target::GivenCluster(connection)))
    }
}

/// Makes a [`RedisStore`].
#[must_use = "nothing happens before build()"]
pub struct RedisStoreBuilder {
    place: Place,
    pub(crate) certificates: Certificates,
    options: RedisOptions,
}

pub(crate) enum Place {
    One(String),
    Cluster(Vec<String>),
    Sentinel(Vec<String>, String),
    Ready(Target),
}

impl RedisStoreBuilder {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, certificates: Certificates::default(), options: RedisOptions::default() }
    }

    /// Replaces all options, for example by those read from a config file.
    pub fn options(mut self, options: RedisOptions) -> Self {
        self.options = options;
        self
    }

    /// See [`RedisOptions::prefix`].
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.options.prefix = prefix.into();
        self
    }

    /// See [`RedisOptions::use_index`].
    pub fn use_index(mut self, use_index: bool) -> Self {
        self.options.use_index = use_index;
        self
    }

    /// See [`RedisOptions::scan_count`].
    pub fn scan_count(mut self, count: usize) -> Self {
        self.options.scan_count = count;
        self
    }

    /// See [`RedisOptions::batch_size`].
    pub fn batch_size(mut self, keys: usize) -> Self {
        self.options.batch_size = keys;
        self
    }

    /// See [`RedisOptions::delete_strategy`].
    pub fn delete_strategy(mut self, strategy: DeleteStrategy) -> Self {
        self.options.delete_strategy = strategy;
        self
    }

    /// See [`RedisOptions::max_entries`].
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.options.max_entries = Some(entries);
        self
    }

    /// See [`RedisOptions::max_payload_bytes`].
    pub fn max_payload_bytes(mut self, bytes: usize) -> Self {
        self.options.max_payload_bytes = bytes;
        self
    }

    /// See [`RedisOptions::after_restart`].
    pub fn after_restart(mut self, after_restart: RestartPolicy) -> Self {
        self.options.after_restart = after_restart;
        self
    }

    /// Builds the store. Connects to nothing.
    ///
    /// # Errors
    ///
    /// A URL that is none, and options that contradict each other; the error names the option and
    /// the fix.
    pub fn build(self) -> Result<RedisStore, BuildError> {
        let Self { place, certificates, options } = self;
        let timeout = options.connect_timeout;
        let target = match place {
            Place::One(url) => Target::one(&url, &certificates)?,
            Place::Cluster(urls) => Target::cluster(&urls, &certificates, timeout)?,
            Place::Sentinel(urls, master) => Target::sentinel(&urls, &master, certificates)?,
            Place::Ready(target) => target,
        };
        let context = StoreContext::new(target, options);
        context.options.check(&context.keys, context.target.is_cluster())?;
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
            "has an opening brace and nothing for it to enclose, so a Cluster would place names by \
             what is in their keys",
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

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder").field("options", &self.options).finish_non_exhaustive()
    }
}
