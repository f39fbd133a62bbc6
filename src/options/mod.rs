//! Every option of a cache, its default and its limits.

mod bus;
mod call;
mod check;
mod loading;
mod option_group;
mod resilience;
mod tiers;

use std::time::Duration;

pub use self::{
    bus::{EventBusOptions, EventDedupe},
    loading::{Coalescing, DistributedLock, NegativeCache, Timeouts},
    resilience::{CircuitBreaker, FailSafe},
    tiers::{L1Options, L2Options, L2Timeouts},
};
pub(crate) use self::{call::CallOptions, option_group::option_group};

/// All options of a cache that a config file can carry.
///
/// What no file can say (a weigher, a clock, event handlers) is set on the
/// [`CacheBuilder`](crate::CacheBuilder). With the feature `serde` the rest can be read from one; durations
/// are written for people, and unknown names are errors:
///
/// ```
/// # #[cfg(feature = "serde")] {
/// use lazy_layers_cache::{CacheOptions, LazyLayersCache};
///
/// let options: CacheOptions = toml::from_str(r#"
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
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CacheOptions {
    /// How long a value is fresh where nothing more specific is said. Default: 60 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ttl: Duration,
    /// Shortens each time to live by a random part of up to this fraction (0 to below 1), so that
    /// entries written together do not expire together. Default: 0, none.
    pub ttl_jitter: f64,
    /// The level in memory.
    pub l1: L1Options,
    /// The level that instances share, where one is attached.
    pub l2: L2Options,
    /// Coalescing of concurrent loads.
    pub inflight: Coalescing,
    /// One load at a time in the whole fleet.
    pub distributed_lock: DistributedLock,
    /// Remembering that a key does not exist.
    pub negative_cache: NegativeCache,
    /// Serving a stale copy when the loader fails.
    pub fail_safe: FailSafe,
    /// Limits on the time of a load.
    pub timeouts: Timeouts,
    /// How long the shared level may take to answer.
    pub l2_timeouts: L2Timeouts,
    /// When the shared level is left alone.
    pub l2_circuit_breaker: CircuitBreaker,
    /// The name of this instance in what it tells others. Events of an instance of the
    /// TypeScript package with the same name are taken for our own. Default: random per process.
    pub source: Option<String>,
    /// Whether what others tell is listened to. An instance that does not only tells: its memory
    /// is behind by up to its own time to live. Default: true.
    pub subscribe_to_events: bool,
    /// Whether loaded and given values are sent to the others, so that they need not load them.
    /// Without, others hear that a key was set, and look it up or load it when it is asked for.
    /// Default: true.
    pub broadcast_set: bool,
    /// The longest value, encoded, that is sent. Default: none. (A broker may refuse long ones: a
    /// NATS server those above 1 MiB.)
    pub broadcast_set_max_bytes: Option<usize>,
    /// Remembering which events were here before.
    pub event_dedupe: EventDedupe,
    /// When the bus is left alone. What is to be told waits meanwhile; and as soon as the bus
    /// answers again it is told, whatever is left of the cooldown.
    pub event_bus_circuit_breaker: CircuitBreaker,
    /// How events travel, and how their loss is dealt with.
    pub event_bus: EventBusOptions,
    /// How long [`close`](crate::LazyLayersCache::close) lets running loads finish before it
    /// drops them. Default: 5 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub close_timeout: Duration,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(60),
            ttl_jitter: 0.0,
            l1: L1Options::default(),
            l2: L2Options::default(),
            inflight: Coalescing::default(),
            distributed_lock: DistributedLock::default(),
            negative_cache: NegativeCache::default(),
            fail_safe: FailSafe::default(),
            timeouts: Timeouts::default(),
            l2_timeouts: L2Timeouts::default(),
            l2_circuit_breaker: CircuitBreaker::default(),
            source: None,
            subscribe_to_events: true,
            broadcast_set: true,
            broadcast_set_max_bytes: None,
            event_dedupe: EventDedupe::default(),
            event_bus_circuit_breaker: CircuitBreaker::default(),
            event_bus: EventBusOptions::default(),
            close_timeout: Duration::from_secs(5),
        }
    }
}
