//! Options of a [`RedisStore`](crate::RedisStore).

use std::time::Duration;

use crate::options::option_group;

/// The command that deletes keys.
///
/// ```
/// use lazy_layers_cache::{DeleteStrategy, RedisStore};
///
/// let store = RedisStore::at("redis://127.0.0.1/").delete_strategy(DeleteStrategy::Del).build()?;
/// # Ok::<(), lazy_layers_cache::BuildError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum DeleteStrategy {
    /// `UNLINK`: Redis frees the memory in the background. The default.
    #[default]
    Unlink,
    /// `DEL`: Redis frees the memory at once, and serves no other client meanwhile.
    Del,
}

impl DeleteStrategy {
    pub(crate) fn command(self) -> &'static str {
        if self == Self::Del { "DEL" } else { "UNLINK" }
    }
}

/// The reaction to a restart of Redis, or to the promotion of a replica. The server may have lost
/// deletes that it had acknowledged, so that old values are back.
///
/// ```
/// use lazy_layers_cache::{RedisStore, RestartPolicy};
///
/// // For values that may be old: exchange rates of the day, say.
/// let store = RedisStore::at("redis://127.0.0.1/").after_restart(RestartPolicy::Keep).build()?;
/// # Ok::<(), lazy_layers_cache::BuildError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum RestartPolicy {
    /// Remove everything under the prefix before anything is read. The default: the store cannot
    /// know which of the values had been deleted.
    #[default]
    Clear,
    /// Keep all values. For a Redis that never loses a write, and for values that may be old.
    Keep,
}

option_group! {
    /// Options of a [`RedisStore`](crate::RedisStore).
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{DeleteStrategy, RedisOptions, RedisStore, RestartPolicy};
    ///
    /// let options = RedisOptions::default()
    ///     .prefix("shop:users:")
    ///     .prefix_needs_separator(true)
    ///     .use_index(true)
    ///     .scan_count(500)
    ///     .batch_size(200)
    ///     .delete_strategy(DeleteStrategy::Unlink)
    ///     .max_entries(1_000_000)
    ///     .max_payload_bytes(1 << 20)
    ///     .after_restart(RestartPolicy::Clear)
    ///     .connect_timeout(Duration::from_millis(500))
    ///     .check_interval(Duration::from_secs(1));
    /// let store = RedisStore::at("redis://127.0.0.1/").options(options).build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct RedisOptions {
        /// Start of every name in Redis. **Everything that begins with the prefix belongs to the
        /// cache**: `clear()` and the reaction to a restart of Redis remove it. No other cache and
        /// no other program may use names that begin with it: with the prefix `users:`, neither
        /// another cache with the prefix `users:cache:` nor an application's own `users:7`. (Only
        /// names of other types than the cache writes, a list say, are left alone.)
        ///
        /// A prefix ends in a separator, one of `: / . - _ | #`. Keys that begin with `__` are not
        /// stored in Redis: such names are internal.
        ///
        /// A store with a prefix belongs to the caches of one name: `build()` of a cache with
        /// another name is an error, while the store lives. Several caches of one name are
        /// instances of one cache.
        ///
        /// Default: `{name}:cache:`, with the [name](crate::CacheOptions::name) of the cache;
        /// `cache:` for a cache without a name.
        pub prefix: Option<String> = None => [Some(impl Into<String>)],
        /// Whether a prefix must end in a separator. `false` accepts any prefix that is not empty:
        /// then the prefix `user` covers the names that begin with `users` too. Default: true.
        pub prefix_needs_separator: bool = true,
        /// Maintains a sorted set of the names of all values, `{prefix}__index`, so that a delete
        /// by pattern and a count scan this set and not every key of the Redis. Not maintained in
        /// a Cluster, where it would put the load of all nodes on one, and not used in a Redis that
        /// evicts keys or has evicted one since it started. Default: true.
        ///
        /// Values that other programs write under the prefix, without an entry in the index, are
        /// not found by a delete by pattern or a count.
        pub use_index: bool = true,
        /// Number of keys that Redis visits in one step of a scan; a number above 100,000 counts as
        /// 100,000. Default: 1,000.
        ///
        /// Interop only: the TypeScript package has this option.
        pub scan_count: usize = 1_000,
        /// Maximum number of keys that a delete by pattern deletes with one command; a number above
        /// 100,000 counts as 100,000. Default: 500.
        ///
        /// Interop only: the TypeScript package has this option.
        pub batch_size: usize = 500,
        /// The command that deletes keys. Default: `UNLINK`.
        ///
        /// Interop only: the TypeScript package has this option. Keep the default.
        pub delete_strategy: DeleteStrategy = DeleteStrategy::Unlink,
        /// Maximum number of entries in Redis; a publish beyond it removes the oldest ones. Needs
        /// the index. Default: none.
        pub max_entries: Option<usize> = None => [usize],
        /// Maximum size of a value that is read or written, in bytes. A larger value is kept in L1
        /// only, and an `l2:refused` event reports it. `usize::MAX` means no limit but that of the
        /// server, its `proto-max-bulk-len` of 512 MB by default. Default: 32 MiB.
        pub max_payload_bytes: usize as "crate::options::byte_size" = 32 << 20,
        /// The reaction to a restart of Redis. Default: [`RestartPolicy::Clear`].
        pub after_restart: RestartPolicy = RestartPolicy::Clear,
        /// Limit for one attempt to connect, at most 365 days. Default: 1 s.
        pub connect_timeout: Duration as "humantime_serde" = Duration::from_secs(1),
        /// Interval of the health checks of a connection, and limit for the reply to each. After
        /// two checks without a reply the connection is closed and replaced. At most 365 days.
        /// Default: 500 ms.
        pub check_interval: Duration as "humantime_serde" = Duration::from_millis(500),
    }
}
