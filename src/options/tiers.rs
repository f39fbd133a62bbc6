//! The groups of options about L1 and L2.

use std::time::Duration;

use super::option_group::option_group;

option_group! {
    /// L1, the memory of the instance.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{L1Options, LazyLayersCache};
    ///
    /// // Any number of entries up to 10,000 that fit into 64 MiB, each fresh for at most 10 s.
    /// let l1 = L1Options::default()
    ///     .max_entries(10_000)
    ///     .max_weight(64 << 20)
    ///     .ttl(Duration::from_secs(10));
    /// let pages = LazyLayersCache::<str, String>::builder()
    ///     .l1(l1)
    ///     .weigher(|key: &str, page: &String| (key.len() + page.len()) as u64)
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct L1Options {
        /// Whether the cache has an L1. Default: true.
        pub enabled: bool = true => [custom],
        /// The most entries. With `max_weight` too, an entry weighs at least
        /// `max_weight / max_entries`, so that both limits hold. Default: 10,000; no limit if
        /// `max_weight` is set.
        pub max_entries: Option<usize> = None => [usize],
        /// The greatest total weight, in the unit of the builder's
        /// [`weigher`](crate::CacheBuilder::weigher), which this option requires. Default: no
        /// limit.
        ///
        /// L1 is divided into shards, and an entry must fit into one of them. A value heavier than
        /// an eighth of this limit (a 64th, with `max_entries` too) is not kept, and a
        /// `set:skipped` event reports it.
        pub max_weight: Option<u64> = None => [u64],
        /// The longest time for which a value is fresh in L1, whatever the call, the loader or L2
        /// say. Default: none.
        pub ttl: Option<Duration> as "humantime_serde::option" = None => [Duration],
    }
}

impl L1Options {
    /// The most entries where neither `max_entries` nor `max_weight` is set.
    pub(crate) const DEFAULT_MAX_ENTRIES: usize = 10_000;
}

option_group! {
    /// L2, the store that instances share.
    ///
    /// A delete that does not reach L2 is pending: the cache retries it, and does not read its keys
    /// from L2 before. At most 10,000 keys and 100 patterns are pending at a time. More become one
    /// pending delete of all keys, so that L2 is empty afterwards; an `l2:pending-overflow` event
    /// and a warning report it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{L2Options, LazyLayersCache};
    ///
    /// let l2 = L2Options::default()
    ///     .ttl(Duration::from_secs(3_600))
    ///     .max_key_bytes(1_024)
    ///     .versioning(false);
    /// let names = LazyLayersCache::<u64, String>::builder().l2_options(l2).build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct L2Options {
        /// The longest time for which a value is fresh in L2, whatever the call or the loader say.
        /// Default: none.
        pub ttl: Option<Duration> as "humantime_serde::option" = None => [Duration],
        /// The longest key, in bytes, that is stored in L2. A value with a longer key is kept in
        /// L1 only, and an `l2:refused` event reports it. Default: 65,536.
        pub max_key_bytes: usize as "crate::options::byte_size" = 64 << 10,
        /// Whether names in L2 end with the generation of the key, `{key}::v{n}`, as the names of
        /// the TypeScript package do under `versioning`. Interop only: use it to share L2 with
        /// instances of that package that have it on. Without it, stale values are refused too.
        /// Default: false.
        ///
        /// Instances at different generations of a key do not see each other's values, so each
        /// loads for itself, and a `set` takes one more round trip. Instances on one bus agree on
        /// the generation, by one message per deleted key; they also adopt a higher one from an
        /// instance of the TypeScript package. A delete or `set` removes the names of generation 0
        /// and of up to 8 generations from the instance's own. The names of other generations are
        /// removed when their instances receive the message; without a bus they stay until their
        /// time to live ends, and instances at those generations read them.
        pub versioning: bool = false,
    }
}

option_group! {
    /// Time limits of calls to L2: a call that takes longer counts as failed. The limits use
    /// tokio's timer.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{L2Timeouts, LazyLayersCache};
    ///
    /// let limits = L2Timeouts::default()
    ///     .read(Duration::from_millis(50))
    ///     .write(Duration::from_millis(200))
    ///     .pattern(Duration::from_secs(10));
    /// let names = LazyLayersCache::<u64, String>::builder().l2_timeouts(limits).build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct L2Timeouts {
        /// A read, with the lease that comes with it. Default: 500 ms.
        pub read: Duration as "humantime_serde" = Duration::from_millis(500),
        /// A write or a delete of one key. Default: 1 s.
        pub write: Duration as "humantime_serde" = Duration::from_secs(1),
        /// A delete by pattern, which scans all keys. Default: 60 s.
        pub pattern: Duration as "humantime_serde" = Duration::from_secs(60),
    }
}
