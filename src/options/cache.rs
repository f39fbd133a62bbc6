//! All options that a configuration file can carry.

use std::time::Duration;

use super::{
    bus::{EventBusOptions, EventDedupe},
    loading::{Coalescing, DistributedLock, NegativeCache, Timeouts},
    option_group::option_group,
    resilience::{CircuitBreaker, FailSafe},
    tiers::{L1Options, L2Options, L2Timeouts},
};

option_group! {
    /// All options of a cache that a configuration file can carry.
    ///
    /// The [`CacheBuilder`](crate::CacheBuilder) has the others: weigher, clock, store, bus. With
    /// the feature `serde` these options can be read from a file. Durations are texts such as
    /// `"5m"`, sizes in bytes are numbers or texts such as `"64MiB"` (1,024 KiB each) and `"64MB"`
    /// (1,000 kB each), and unknown names are errors:
    ///
    /// ```
    /// # #[cfg(feature = "serde")] {
    /// use lazy_layers_cache::{CacheOptions, LazyLayersCache};
    ///
    /// let options: CacheOptions = toml::from_str(r#"
    ///     name = "users"
    ///     ttl = "5m"
    ///     ttl_jitter = 0.1
    ///
    ///     [l1]
    ///     max_entries = 50_000
    ///     ttl = "30s"
    ///
    ///     [negative_cache]
    ///     enabled = true
    ///     ttl = "2s"
    ///
    ///     [fail_safe]
    ///     enabled = true
    ///     stale_ttl = "10m"
    ///     throttle = "1s"
    ///
    ///     [timeouts]
    ///     soft = "50ms"
    ///     hard = "2s"
    /// "#)?;
    ///
    /// let cache = LazyLayersCache::<String, u64>::builder().options(options).build()?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// In code, each option has a setter:
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{
    ///     CacheOptions, CircuitBreaker, Coalescing, DistributedLock, EventBusOptions, EventDedupe,
    ///     FailSafe, L1Options, L2Options, L2Timeouts, LazyLayersCache, NegativeCache, Timeouts,
    /// };
    ///
    /// let options = CacheOptions::default()
    ///     .name("users")
    ///     .instance_id("shop-1")
    ///     .ttl(Duration::from_secs(300))
    ///     .ttl_jitter(0.1)
    ///     .l1(L1Options::default().max_entries(50_000))
    ///     .l2(L2Options::default().max_key_bytes(1_024))
    ///     .l2_timeouts(L2Timeouts::default().read(Duration::from_millis(100)))
    ///     .l2_circuit_breaker(CircuitBreaker::default().failure_threshold(5))
    ///     .inflight(Coalescing::default().ttl(Duration::from_secs(10)))
    ///     .distributed_lock(DistributedLock::enabled())
    ///     .negative_cache(NegativeCache::enabled())
    ///     .fail_safe(FailSafe::enabled())
    ///     .timeouts(Timeouts::none().hard(Duration::from_secs(2)))
    ///     .subscribe_to_events(true)
    ///     .broadcast_set(true)
    ///     .broadcast_set_max_bytes(512 << 10)
    ///     .event_dedupe(EventDedupe::default().max_entries(50_000))
    ///     .event_bus(EventBusOptions::default().trust_timeout(Duration::from_secs(1)))
    ///     .event_bus_circuit_breaker(CircuitBreaker::default())
    ///     .close_timeout(Duration::from_secs(10));
    /// let users = LazyLayersCache::<u64, String>::builder().options(options).build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct CacheOptions {
        /// The name of the cache, the same on all its instances. It is the namespace of its
        /// messages on the event bus, so that caches with other names can share a channel; the
        /// start of its keys in Redis (`{name}:cache:`, unless the store has a prefix of its own);
        /// and the word for the cache in `health()`, log lines, spans and connection names.
        ///
        /// 1 to 64 of the characters `A-Z a-z 0-9 . _ -`. The name `cache` is reserved: its keys
        /// would begin as those of a cache without a name. Required with an event bus.
        /// Default: none.
        pub name: Option<String> = None => [Some(impl Into<String>)],
        /// How long a value is fresh, unless the loader or the call says otherwise. The times of
        /// the levels, `l1.ttl` and `l2.ttl`, are bounds on that. Default: 60 s, at most ten years;
        /// in L1 a value ends after 49.7 days, its stale window included.
        pub ttl: Duration as "humantime_serde" = Duration::from_secs(60),
        /// Shortens each time to live, in L1 and in L2, by a random part of up to this fraction (0
        /// to below 1), so that entries written at the same time do not expire at the same time.
        /// Default: 0.
        pub ttl_jitter: f64 = 0.0,
        /// L1, the memory of the instance.
        pub l1: L1Options = L1Options::default(),
        /// L2, the store that instances share, where the cache has one.
        pub l2: L2Options = L2Options::default(),
        /// Coalescing of concurrent loads (single flight).
        pub inflight: Coalescing = Coalescing::default(),
        /// One load of a key at a time over all instances.
        pub distributed_lock: DistributedLock = DistributedLock::default(),
        /// Caching that a key does not exist.
        pub negative_cache: NegativeCache = NegativeCache::default(),
        /// Serving a stale copy when the loader fails.
        pub fail_safe: FailSafe = FailSafe::default(),
        /// Time limits of a load.
        pub timeouts: Timeouts = Timeouts::default(),
        /// Time limits of calls to L2.
        pub l2_timeouts: L2Timeouts = L2Timeouts::default(),
        /// Circuit breaker of L2. Default: opens after 3 consecutive failures, for 30 s.
        pub l2_circuit_breaker: CircuitBreaker = CircuitBreaker::default(),
        /// The name under which this instance publishes. An instance ignores messages with its own
        /// name, also those of an instance of the TypeScript package that has the same name.
        /// Default: random for each cache.
        #[doc(alias = "source")]
        pub instance_id: Option<String> = None => [Some(impl Into<String>)],
        /// Whether this instance receives the messages of its peers. With `false` it only
        /// publishes, and its L1 may be stale by up to its time to live. Default: true.
        pub subscribe_to_events: bool = true,
        /// Whether this instance publishes the values that it loads or that `set` receives, so
        /// that peers need not load them. With `false` it publishes only that a key was set, and
        /// peers look the value up or load it on their next read. Default: true.
        pub broadcast_set: bool = true,
        /// The longest encoded value, in bytes, that this instance publishes. Brokers may refuse
        /// long messages: a NATS server refuses more than 1 MiB. Default: no limit.
        pub broadcast_set_max_bytes: Option<usize> as "crate::options::byte_size::option" = None
            => [usize],
        /// Detection of messages that arrive more than once.
        pub event_dedupe: EventDedupe = EventDedupe::default(),
        /// Circuit breaker for publishing. While it is open, invalidations stay in the outbox;
        /// they are published as soon as the bus answers a probe, even before the cooldown ends.
        /// Default: opens after 3 consecutive failures, for 30 s.
        pub event_bus_circuit_breaker: CircuitBreaker = CircuitBreaker::default(),
        /// Publishing, and the detection of lost messages.
        pub event_bus: EventBusOptions = EventBusOptions::default(),
        /// How long [`close`](crate::LazyLayersCache::close) waits for the loads and writes
        /// that run, before it drops the loads, and then for the outbox of the bus. Its other
        /// stages take at most 4 s more by default. Default: 5 s.
        pub close_timeout: Duration as "humantime_serde" = Duration::from_secs(5),
    }
}
