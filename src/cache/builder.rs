//! From options to a cache: all wiring, all refusals.

use std::{
    fmt,
    marker::PhantomData,
    sync::{Arc, Weak, atomic::AtomicBool},
    time::Duration,
};

use super::{
    LazyLayersCache,
    registry::{ActivePatterns, LockWaiters},
    state::{CacheBus, CacheState, ShutdownOnDrop, Weigher},
};
use crate::resilience::task_tracker::TaskTracker;
use crate::{
    bus::{BusClient, EventBus},
    codec::Codec,
    error::BuildError,
    flight::{FlightTable, Limits},
    l1::L1,
    l2::{L2, L2Context, OnRetried, Store},
    observe::Observer,
    options::{
        CacheOptions, CircuitBreaker, Coalescing, DistributedLock, EventBusOptions, EventDedupe,
        FailSafe, L1Options, L2Options, L2Timeouts, NegativeCache, Timeouts,
    },
    time::{Clock, SystemClock, millis},
};

/// Builds a [`LazyLayersCache`]. Nothing here panics or connects; [`build`](Self::build) checks.
#[must_use = "nothing happens before build()"]
pub struct CacheBuilder<K: ?Sized, V> {
    options: CacheOptions,
    clock: Option<Arc<dyn Clock>>,
    weigher: Option<Box<Weigher<V>>>,
    l2: Option<SharedLevel<V>>,
    bus: Option<(EventBus, Arc<dyn Codec<V>>)>,
    keys: PhantomData<fn(&K)>,
}

type SharedLevel<V> = (Arc<dyn Store>, Arc<dyn Codec<V>>);

/// Loads on different keys meet at a lock this seldom. A power of two is not needed.
const FLIGHT_SHARDS: usize = 64;

impl<K: ?Sized, V: Send + Sync + 'static> CacheBuilder<K, V> {
    pub(super) fn new() -> Self {
        Self {
            options: CacheOptions::default(),
            clock: None,
            weigher: None,
            l2: None,
            bus: None,
            keys: PhantomData,
        }
    }

    /// Replaces all options, for example by those read from a config file.
    pub fn options(mut self, options: CacheOptions) -> Self {
        self.options = options;
        self
    }

    /// How long a value is fresh where nothing more specific is said. Default: 60 s.
    #[doc(alias = "time_to_live")]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = ttl;
        self
    }

    /// Shortens each time to live by a random part of up to this fraction. Default: 0.
    pub fn ttl_jitter(mut self, fraction: f64) -> Self {
        self.options.ttl_jitter = fraction;
        self
    }

    /// The level in memory. Default: 10,000 entries.
    pub fn l1(mut self, l1: L1Options) -> Self {
        self.options.l1 = l1;
        self
    }

    /// No level in memory: only concurrent loads are shared.
    pub fn without_l1(mut self) -> Self {
        self.options.l1.enabled = false;
        self
    }

    /// Options of the shared level. They have no effect without one.
    pub fn l2_options(mut self, l2: L2Options) -> Self {
        self.options.l2 = l2;
        self
    }

    /// How long the shared level may take. Default: 500 ms to read, 1 s to write.
    pub fn l2_timeouts(mut self, timeouts: L2Timeouts) -> Self {
        self.options.l2_timeouts = timeouts;
        self
    }

    /// When the shared level is left alone. Default: after 3 failures, for 30 s.
    pub fn l2_circuit_breaker(mut self, breaker: CircuitBreaker) -> Self {
        self.options.l2_circuit_breaker = breaker;
        self
    }

    /// A level that instances share, and how values become its bytes. Default: none.
    ///
    /// Needs neither to answer now nor ever: without it the cache works as if it had none.
    pub fn l2(mut self, store: impl Store, codec: impl Codec<V>) -> Self {
        self.l2 = Some((Arc::new(store), Arc::new(codec)));
        self
    }

    /// The bus by which instances tell each other what has changed, and how values become what is
    /// sent over it (the [`WireCodec`](crate::Codec), as a rule). Default: none.
    ///
    /// Needs neither to answer now nor ever. A cache with a bus listens from the first call on
    /// that has to leave memory, or from [`ready`](LazyLayersCache::ready).
    pub fn event_bus(mut self, bus: impl Into<EventBus>, codec: impl Codec<V>) -> Self {
        self.bus = Some((bus.into(), Arc::new(codec)));
        self
    }

    /// The name of this instance in what it tells others. Default: random per process.
    pub fn source(mut self, name: impl Into<String>) -> Self {
        self.options.source = Some(name.into());
        self
    }

    /// Whether what others tell is listened to. Default: true.
    pub fn subscribe_to_events(mut self, subscribe: bool) -> Self {
        self.options.subscribe_to_events = subscribe;
        self
    }

    /// Whether loaded and given values are sent to the others. Default: true.
    pub fn broadcast_set(mut self, broadcast: bool) -> Self {
        self.options.broadcast_set = broadcast;
        self
    }

    /// The longest value, encoded, that is sent to the others. Default: none.
    pub fn broadcast_set_max_bytes(mut self, bytes: usize) -> Self {
        self.options.broadcast_set_max_bytes = Some(bytes);
        self
    }

    /// Remembering which events were here before. Default: 10,000 for 300 s.
    pub fn event_dedupe(mut self, dedupe: EventDedupe) -> Self {
        self.options.event_dedupe = dedupe;
        self
    }

    /// When the bus is left alone. Default: after 3 failures, for 30 s.
    pub fn event_bus_circuit_breaker(mut self, breaker: CircuitBreaker) -> Self {
        self.options.event_bus_circuit_breaker = breaker;
        self
    }

    /// How events travel, and how their loss is dealt with.
    pub fn event_bus_options(mut self, options: EventBusOptions) -> Self {
        self.options.event_bus = options;
        self
    }

    /// What an entry weighs, for [`L1Options::max_weight`], from its key and value. Called once
    /// for each value stored, never under a lock. Zero counts as one; a weigher that panics keeps
    /// the entry out. Default: none.
    pub fn weigher(mut self, weigher: impl Fn(&str, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// Coalescing of concurrent loads. Default: on.
    pub fn inflight(mut self, inflight: Coalescing) -> Self {
        self.options.inflight = inflight;
        self
    }

    /// One load at a time in the whole fleet, by a lock in the shared level. Default: off.
    pub fn distributed_lock(mut self, lock: DistributedLock) -> Self {
        self.options.distributed_lock = lock;
        self
    }

    /// Remembering that a key does not exist. Default: off.
    pub fn negative_cache(mut self, negative_cache: NegativeCache) -> Self {
        self.options.negative_cache = negative_cache;
        self
    }

    /// Serving a stale copy when the loader fails. Default: off.
    #[doc(alias = "grace")]
    #[doc(alias = "stale_if_error")]
    pub fn fail_safe(mut self, fail_safe: FailSafe) -> Self {
        self.options.fail_safe = fail_safe;
        self
    }

    /// Limits on the time of a load. Default: none.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.options.timeouts = timeouts;
        self
    }

    /// How long [`close`](LazyLayersCache::close) lets running loads finish. Default: 5 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.options.close_timeout = timeout;
        self
    }

    /// The clock that freshness is measured with. Default: [`SystemClock`](crate::SystemClock).
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Builds the cache. Needs neither a runtime nor a network.
    ///
    /// # Errors
    ///
    /// Options that contradict each other or themselves; the error names the option and the fix.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lazy_layers_cache::{LazyLayersCache, Timeouts};
    /// let refused = LazyLayersCache::<String, u32>::builder()
    ///     .timeouts(Timeouts::none().soft(Duration::from_secs(3)).hard(Duration::from_secs(2)))
    ///     .build()
    ///     .unwrap_err();
    /// assert_eq!(
    ///     refused.to_string(),
    ///     "timeouts.soft (3s) is longer than timeouts.hard (2s); \
    ///      make it the shorter one: it says when a stale copy is served",
    /// );
    /// ```
    pub fn build(self) -> Result<LazyLayersCache<K, V>, BuildError> {
        self.options.check(self.weigher.is_some())?;
        let running = TaskTracker::default();
        let inflight = &self.options.inflight;
        let limits = Limits {
            max_age: millis(inflight.ttl),
            max_flights: if inflight.enabled { inflight.max_entries } else { 0 },
            max_followers: inflight.max_followers,
        };
        let bus_tasks = TaskTracker::default();
        let sends_generations = self.options.l2.versioning && self.l2.is_some();
        let bus = self.bus.map(|(bus, codec)| {
            let client = BusClient::new(bus, &self.options, sends_generations, bus_tasks.clone());
            CacheBus { client: Arc::new(client), codec }
        });
        let observer = Arc::<Observer>::default();
        let state = Arc::new_cyclic(|state: &Weak<CacheState<V>>| CacheState {
            bus,
            l1: L1::new(&self.options),
            l2: self.l2.map(|(store, codec)| {
                let context = L2Context {
                    observer: Arc::clone(&observer),
                    clock: self.clock.clone().unwrap_or_else(|| Arc::new(SystemClock)),
                    tasks: running.clone(),
                    on_retried: broadcast_retried(state.clone()),
                };
                L2::new(store, codec, &self.options, context)
            }),
            flights: Arc::new(FlightTable::new(FLIGHT_SHARDS, limits)),
            active_patterns: ActivePatterns::default(),
            lock_waiters: LockWaiters::default(),
            observer,
            running: running.clone(),
            closed: AtomicBool::new(false),
            clock: self.clock,
            weigher: self.weigher,
            options: self.options,
        });
        Ok(LazyLayersCache {
            state,
            shutdown_on_drop: Arc::new(ShutdownOnDrop { loads: running, bus: bus_tasks }),
            keys: PhantomData,
        })
    }
}

/// Broadcasts each invalidation that a retry has brought to L2.
fn broadcast_retried<V: Send + Sync + 'static>(state: Weak<CacheState<V>>) -> OnRetried {
    Box::new(move |retried| {
        let Some(state) = state.upgrade() else { return };
        let name = Arc::clone(&retried.name);
        // mutant pending-broadcast: remove
        state.broadcast_again(name, retried.is_pattern);
    })
}

impl<K: ?Sized, V> fmt::Debug for CacheBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder").field("options", &self.options).finish_non_exhaustive()
    }
}
