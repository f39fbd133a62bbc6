//! The groups of options about loads.

use std::time::Duration;

use super::option_group::option_group;

option_group! {
    /// Coalescing of concurrent loads (single flight): one caller loads the key, and the other
    /// callers wait for its result.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{Coalescing, LazyLayersCache};
    ///
    /// // Loads that usually take up to 20 s.
    /// let inflight = Coalescing::default()
    ///     .ttl(Duration::from_secs(30))
    ///     .max_entries(1_000)
    ///     .max_followers(10_000);
    /// let reports = LazyLayersCache::<u64, String>::builder().inflight(inflight).build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[doc(alias = "inflight")]
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Coalescing {
        /// Whether loads are coalesced. Default: true.
        pub enabled: bool = true => [custom],
        /// At most two loads of a key that are younger than this run at a time, also while it is
        /// deleted all the time: a caller that may join neither waits for the next one, which
        /// begins when one of the two ends. Callers do not join an older load. Those that have
        /// joined it wait for a newer one beside it, which one of them begins, and take the result
        /// that comes first; the caller that began it does so after twice this time. So nobody
        /// waits for ever for a load that hangs. Choose more than a load usually takes: else there
        /// are several loads at a time. Zero: no load is joined. Default: 5 s.
        pub ttl: Duration as "humantime_serde" = Duration::from_secs(5),
        /// The most loads that callers can join at a time. Beyond it, each caller loads for itself,
        /// and an `inflight:bypass` event reports it. Default: 10,000.
        pub max_entries: usize = 10_000,
        /// The most callers that wait for one load, or for the next one of a key. Beyond it, each
        /// caller loads for itself, and an `inflight:bypass` event reports it. Default: 100,000.
        pub max_followers: usize = 100_000,
    }
}

impl Coalescing {
    /// Returns options without coalescing: each caller loads for itself.
    ///
    /// ```
    /// use lazy_layers_cache::Coalescing;
    ///
    /// assert!(!Coalescing::disabled().enabled);
    /// ```
    #[must_use]
    pub fn disabled() -> Self {
        Self { enabled: false, ..Self::default() }
    }
}

option_group! {
    /// One load of a key at a time over all instances, by a lock in L2. It saves loads; stale
    /// values are refused without it too. An instance that has to load a key again, because it was
    /// changed during a load, does not wait for its own lock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{DistributedLock, LazyLayersCache};
    ///
    /// // Without L2 the lock has no effect.
    /// let lock = DistributedLock::enabled()
    ///     .ttl(Duration::from_secs(15))
    ///     .wait_timeout(Duration::from_secs(10))
    ///     .poll(Duration::from_millis(100));
    /// let reports = LazyLayersCache::<u64, String>::builder().distributed_lock(lock).build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct DistributedLock {
        /// Default: false.
        pub enabled: bool = false => [enabled()],
        /// When a lock expires whose owner was killed. While its loader runs, the owner renews the
        /// lock every third of this time. Default: 10 s.
        pub ttl: Duration as "humantime_serde" = Duration::from_secs(10),
        /// How long a caller waits for the result of the owner. After that it takes a stale copy if
        /// there is one, else it loads without the lock. Default: 2 s.
        pub wait_timeout: Duration as "humantime_serde" = Duration::from_secs(2),
        /// How often a waiting caller asks L2 for the result. Default: 50 ms.
        pub poll: Duration as "humantime_serde" = Duration::from_millis(50),
    }
}

option_group! {
    /// Caching, for a short time, that the loader found nothing: in L1, and in L2 if there is one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{LazyLayersCache, NegativeCache};
    ///
    /// let missing = NegativeCache::enabled().ttl(Duration::from_secs(2)).max_entries(1_000);
    /// let names = LazyLayersCache::<u64, String>::builder().negative_cache(missing).build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct NegativeCache {
        /// Default: false.
        pub enabled: bool = false => [enabled()],
        /// How long a key counts as missing. Default: 5 s.
        pub ttl: Duration as "humantime_serde" = Duration::from_secs(5),
        /// The most keys that are cached as missing. They do not share the limit of L1, so a flood
        /// of missing keys does not evict values. Default: 10,000.
        pub max_entries: usize = 10_000,
    }
}

option_group! {
    /// Time limits of a load. They use tokio's timer: outside of a runtime, or in a runtime
    /// without `enable_time`, there are no limits.
    ///
    /// ```
    /// use std::{io, time::Duration};
    /// use lazy_layers_cache::{LazyLayersCache, StaleReason, Timeouts, testing::TokioClock};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let prices = LazyLayersCache::<u64, u32>::builder()
    ///     .timeouts(Timeouts::none().soft(Duration::from_millis(50)).hard(Duration::from_secs(2)))
    ///     .clock(TokioClock::new())
    ///     .build()?;
    /// prices.set(&7, 9_u32).stale_for(Duration::from_secs(600)).await?;
    /// tokio::time::advance(Duration::from_secs(61)).await;
    ///
    /// let slow = || async {
    ///     tokio::time::sleep(Duration::from_secs(1)).await;
    ///     Ok::<u32, io::Error>(10)
    /// };
    /// let price = prices.get_or_set(&7, slow).outcome().await?;
    /// assert_eq!((*price.value, price.stale), (9, Some(StaleReason::SoftTimeout)));
    /// # Ok(()) }
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Timeouts {
        /// If a stale copy exists, callers wait this long for the load and then take the copy. The
        /// load goes on and refreshes the cache. The time counts from the start of the load. Zero
        /// serves the stale copy at once and refreshes in the background. Default: none.
        pub soft: Option<Duration> as "humantime_serde::option" = None => [Duration],
        /// The longest time that a caller waits, and that its loader runs: the loader is dropped
        /// then. The caller gets the stale copy if there is one, else an error. A load that
        /// another caller began goes on, within the limit of that caller. Default: none.
        pub hard: Option<Duration> as "humantime_serde::option" = None => [Duration],
    }
}

impl Timeouts {
    /// Returns no limits: a load may take any time.
    ///
    /// ```
    /// use lazy_layers_cache::Timeouts;
    ///
    /// assert_eq!((Timeouts::none().soft, Timeouts::none().hard), (None, None));
    /// ```
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }
}
