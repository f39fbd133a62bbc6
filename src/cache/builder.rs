//! Builds a cache from its options: checks them, and connects the parts to each other.

use std::{
    fmt,
    marker::PhantomData,
    sync::{Arc, Weak, atomic::AtomicBool},
    time::Duration,
};

use super::{
    handle::LazyLayersCache,
    registry::{ActivePatterns, LockWaiters},
    state::{CacheBus, CacheState, ShutdownOnDrop, Weigher},
};
use crate::{
    bus::{BusClient, BusPlace, EventBus, SessionOptions, SharedSession},
    codec::{Codec, offloading::OffloadingCodec},
    error::BuildError,
    flight::{FlightTable, Limits},
    key::CacheKey,
    l1::L1,
    l2::{L2, L2Context, OnRetried, Rebroadcast, ServerState, Store},
    observe::{Observer, log_option_without_effect},
    options::{
        CacheOptions, CircuitBreaker, Coalescing, DistributedLock, EventBusOptions, EventDedupe,
        FailSafe, L1Options, L2Options, L2Timeouts, NegativeCache, Timeouts,
    },
    resilience::task_tracker::TaskTracker,
    time::{Clock, SystemClock, millis, millis_noticing_suspension},
};

type StoreWithCodec<V> = (Arc<dyn Store>, Arc<dyn Codec<V>>);

/// Builds a [`LazyLayersCache`]. Its methods neither panic nor connect; [`build`](Self::build)
/// checks the options. That of a cache of a [`CacheManager`](crate::CacheManager) begins with the
/// options of the manager.
#[must_use = "nothing happens before build()"]
pub struct CacheBuilder<K: ?Sized, V> {
    pub(crate) options: CacheOptions,
    pub(crate) clock: Option<Arc<dyn Clock>>,
    weigher: Option<Box<Weigher<V>>>,
    pub(crate) l2: Option<StoreWithCodec<V>>,
    pub(crate) bus: Option<(BuilderBus, Arc<dyn Codec<V>>)>,
    /// The circuit breaker that L2 shares with other caches; `None`: it has its own.
    pub(crate) l2_server: Option<Arc<ServerState>>,
    built_by: Option<BuiltBy<K, V>>,
    keys: PhantomData<fn(&K)>,
}

/// Builds the cache in place of [`CacheBuilder::build_alone`], as a manager does.
pub(crate) type BuiltBy<K, V> =
    Box<dyn FnOnce(CacheBuilder<K, V>) -> Result<LazyLayersCache<K, V>, BuildError> + Send + Sync>;

/// The event bus of a cache: a session of its own, or one that it shares, whose clock it then has.
pub(crate) enum BuilderBus {
    Alone(EventBus),
    Shared(Arc<SharedSession>),
}

/// Number of locks of the flight table. Loads of two keys share a lock with a chance of 1 in 64.
const FLIGHT_SHARDS: usize = 64;

impl<K: CacheKey + ?Sized, V: Send + Sync + 'static> LazyLayersCache<K, V> {
    /// Returns a builder with the default options: L1 of 10,000 entries, values fresh for 60 s,
    /// concurrent loads of a key coalesced, neither L2 nor event bus.
    pub fn builder() -> CacheBuilder<K, V> {
        CacheBuilder::new(CacheOptions::default())
    }
}

impl<K: ?Sized, V: Send + Sync + 'static> CacheBuilder<K, V> {
    fn new(options: CacheOptions) -> Self {
        let (keys, weigher, l2_server, built_by) = (PhantomData, None, None, None);
        Self { options, clock: None, weigher, l2: None, bus: None, l2_server, built_by, keys }
    }

    /// Returns a builder with these options, for a manager that builds the cache.
    pub(crate) fn built_by(options: CacheOptions, build: BuiltBy<K, V>) -> Self {
        Self { built_by: Some(build), ..Self::new(options) }
    }

    /// Sets the name of the cache, the same on all its instances: the namespace of its messages on
    /// the event bus, and the start of its keys in Redis. [`CacheOptions::name`] has the rules.
    /// Required with an event bus. Default: none.
    #[doc(alias = "namespace")]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = Some(name.into());
        self
    }

    /// Replaces all options, the name too, for example by those of a config file. So call the
    /// setters of single options after it.
    pub fn options(mut self, options: CacheOptions) -> Self {
        self.options = options;
        self
    }

    /// Disables L1. Callers then share the loads that run at the same time, and L2.
    pub fn without_l1(mut self) -> Self {
        self.options.l1.enabled = false;
        self
    }

    /// Adds L2, the store that instances share, and the codec of its values. Default: none.
    ///
    /// Caches with different [names](Self::name) may share a `RedisStore`. Caches without a name
    /// would share its keys too.
    ///
    /// `build` does not connect. While L2 does not answer, the cache works without it.
    pub fn l2(mut self, store: impl Store, codec: impl Codec<V>) -> Self {
        self.l2 = Some((Arc::new(store), Arc::new(codec)));
        self
    }

    /// Adds the event bus, over which instances send each other invalidations and values, and the
    /// codec of those values (usually the `WireCodec`). The cache then needs a
    /// [`name`](Self::name): caches with different names can share a channel. Default: none.
    ///
    /// `build` does not connect. The cache subscribes when the first call leaves L1, or when
    /// [`ready`](LazyLayersCache::ready) is called.
    pub fn event_bus(mut self, bus: impl Into<EventBus>, codec: impl Codec<V>) -> Self {
        self.bus = Some((BuilderBus::Alone(bus.into()), Arc::new(codec)));
        self
    }

    /// Sets the name of this instance in its messages. Default: random for each cache; that of the
    /// manager, if a manager builds the cache.
    #[doc(alias = "source")]
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.options.instance_id = Some(id.into());
        self
    }

    /// Sets how many bytes an encoded value that is sent to the peers may have. Default: no limit.
    pub fn broadcast_set_max_bytes(mut self, bytes: usize) -> Self {
        self.options.broadcast_set_max_bytes = Some(bytes);
        self
    }

    /// Sets the function that weighs an entry, for [`L1Options::max_weight`]. The cache calls it
    /// once per stored value, never under a lock. A weight of 0 counts as 1; if the function
    /// panics, L1 does not store the value. Default: none.
    pub fn weigher(mut self, weigher: impl Fn(&str, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// Sets the clock that measures freshness. Default: [`SystemClock`](crate::SystemClock).
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Builds the cache. It needs no runtime, and does not connect.
    ///
    /// # Errors
    ///
    /// An option is invalid, or contradicts another one. The error names the option and the fix.
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
    pub fn build(mut self) -> Result<LazyLayersCache<K, V>, BuildError> {
        match self.built_by.take() {
            Some(build) => build(self),
            None => self.build_alone(),
        }
    }

    /// Builds the cache; a manager has no more part in it.
    pub(crate) fn build_alone(self) -> Result<LazyLayersCache<K, V>, BuildError> {
        self.options.check(self.weigher.is_some(), self.bus.is_some())?;
        warn_without_l1(&self.options, self.l2.is_some());
        // Suspensions from before do not make the first entries older.
        millis_noticing_suspension();
        let running = TaskTracker::default();
        let inflight = &self.options.inflight;
        let limits = Limits {
            max_age: millis(inflight.ttl),
            max_flights: if inflight.enabled && !inflight.ttl.is_zero() {
                inflight.max_entries
            } else {
                0
            },
            max_followers: inflight.max_followers,
        };
        let sends_generations = self.options.l2.versioning && self.l2.is_some();
        let clock = match &self.bus {
            Some((BuilderBus::Shared(session), _)) => session.clock(),
            _ => self.clock,
        };
        let bus = match self.bus {
            None => None,
            Some((bus, codec)) => {
                let session = match bus {
                    BuilderBus::Shared(session) => session,
                    BuilderBus::Alone(bus) => {
                        let options = SessionOptions::of_cache(&self.options);
                        Arc::new(SharedSession::new(bus, options, clock.clone()))
                    }
                };
                // Nothing fails after this.
                let place = BusPlace::take(&session, &self.options, sends_generations)?;
                Some((place, OffloadingCodec::new(codec, self.options.name.as_deref())))
            }
        };
        let observer = Arc::new(Observer::of_cache(self.options.name.as_deref()));
        let state = Arc::new_cyclic(|state: &Weak<CacheState<V>>| CacheState {
            bus: bus.map(|(place, codec)| {
                let (observer, receiver) = (Arc::clone(&observer), state.clone());
                let client = Arc::new(BusClient::new(place, &self.options, observer, receiver));
                CacheBus { trust: client.trust(), client, codec }
            }),
            l1: L1::new(&self.options),
            l2: self.l2.map(|(store, codec)| {
                let named = self.options.name.as_deref().and_then(|name| store.for_cache(name));
                let store = named.unwrap_or(store);
                let context = L2Context {
                    observer: Arc::clone(&observer),
                    clock: clock.clone().unwrap_or_else(|| Arc::new(SystemClock)),
                    tasks: running.clone(),
                    on_retried: broadcast_retried(state.clone()),
                    shared_server: self.l2_server,
                };
                Arc::new(L2::new(store, codec, &self.options, context))
            }),
            flights: Arc::new(FlightTable::new(FLIGHT_SHARDS, limits)),
            active_patterns: ActivePatterns::default(),
            lock_waiters: LockWaiters::default(),
            lock_id: fastrand::u64(..),
            observer,
            running,
            closed: AtomicBool::new(false),
            has_reported_lost: AtomicBool::new(false),
            clock,
            weigher: self.weigher,
            options: self.options,
        });
        let ending = Arc::clone(&state);
        let shutdown_on_drop = Arc::new(ShutdownOnDrop(Box::new(move || ending.end_on_drop())));
        Ok(LazyLayersCache { state, shutdown_on_drop, keys: PhantomData })
    }
}

/// Implements the setters that replace one field of the options, as `name(field: type)`.
macro_rules! option_setters {
    ($($(#[$doc:meta])* $name:ident($field:ident: $type:ty);)+) => {
        impl<K: ?Sized, V: Send + Sync + 'static> CacheBuilder<K, V> {$(
            $(#[$doc])*
            pub fn $name(mut self, $field: $type) -> Self {
                self.options.$field = $field;
                self
            }
        )+}
    };
}

option_setters! {
    /// Sets how long a value is fresh, unless a level, a call or a loader sets its own time.
    /// Default: 60 s.
    #[doc(alias = "time_to_live")]
    ttl(ttl: Duration);

    /// Shortens the ttl of each entry by a random part, at most this fraction of it. Default: 0.
    ttl_jitter(ttl_jitter: f64);

    /// Sets the options of L1, the cache in memory. Default: at most 10,000 entries.
    l1(l1: L1Options);

    /// Sets the options of L2. Without L2 they have no effect.
    l2_options(l2: L2Options);

    /// Sets the timeouts of L2. Default: 500 ms to read, 1 s to write.
    l2_timeouts(l2_timeouts: L2Timeouts);

    /// Sets the circuit breaker of L2. Default: opens after 3 consecutive failures, for 30 s.
    l2_circuit_breaker(l2_circuit_breaker: CircuitBreaker);

    /// Sets whether the cache receives the messages of its peers. Default: true.
    subscribe_to_events(subscribe_to_events: bool);

    /// Sets whether values that were loaded or `set` are sent to the peers. Default: true.
    broadcast_set(broadcast_set: bool);

    /// Sets how many received messages are remembered, to apply no message twice. Default: 10,000,
    /// for 300 s each.
    event_dedupe(event_dedupe: EventDedupe);

    /// Sets the circuit breaker of publishing. Default: as for L2.
    event_bus_circuit_breaker(event_bus_circuit_breaker: CircuitBreaker);

    /// Sets the options of the event bus: timeouts, and the bounds of the outbox.
    event_bus_options(event_bus: EventBusOptions);

    /// Sets how concurrent loads of a key are coalesced (single flight). Default: enabled.
    inflight(inflight: Coalescing);

    /// Sets whether only one instance at a time loads a key, by a lock in L2. Default: disabled.
    distributed_lock(distributed_lock: DistributedLock);

    /// Sets whether the cache remembers that a key does not exist. Default: disabled.
    negative_cache(negative_cache: NegativeCache);

    /// Sets whether a stale value is served when the loader fails. Default: disabled.
    #[doc(alias = "grace")]
    #[doc(alias = "stale_if_error")]
    fail_safe(fail_safe: FailSafe);

    /// Sets the soft and the hard timeout of a load. Default: none.
    timeouts(timeouts: Timeouts);

    /// Sets how long [`close`](LazyLayersCache::close) waits for the loads and writes
    /// that run. Default: 5 s.
    close_timeout(close_timeout: Duration);
}

/// L1 can be switched off from outside, by a variable of the environment say, and that must not
/// stop a service whose other options need L1.
fn warn_without_l1(options: &CacheOptions, has_l2: bool) {
    if options.l1.enabled || !options.negative_cache.enabled {
        return;
    }
    let reason = if has_l2 {
        "L1 is off: negative entries are kept in L2 only"
    } else {
        "L1 is off and there is no L2: negative entries are kept nowhere"
    };
    log_option_without_effect(options.name.as_deref(), "negative_cache.enabled", reason);
}

/// Broadcasts again each invalidation that reached L2 only by a retry: instances that did not get
/// the first message may have read the old value there since.
fn broadcast_retried<V: Send + Sync + 'static>(state: Weak<CacheState<V>>) -> OnRetried {
    Box::new(move |retried| {
        let Some(state) = state.upgrade() else { return };
        let Some(bus) = &state.bus else { return };
        let (name, is_pattern) = (Arc::clone(&retried.name), retried.is_pattern);
        match retried.rebroadcast {
            // mutant pending-broadcast: => Rebroadcast::AtOnce => {}
            Rebroadcast::AtOnce => bus.client.broadcast_again(name, is_pattern),
            // mutant peer-broadcast: => Rebroadcast::UnlessPeerDoes => {}
            Rebroadcast::UnlessPeerDoes => bus.client.broadcast_for_peer(&name, is_pattern),
            Rebroadcast::Never => {}
        }
    })
}

impl<K: ?Sized, V> fmt::Debug for CacheBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder").field("options", &self.options).finish_non_exhaustive()
    }
}
