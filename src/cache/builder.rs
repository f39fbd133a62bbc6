//! Builds a cache from its options: checks them, and connects the parts to each other.

use std::{
    fmt,
    marker::PhantomData,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize},
    },
};

use super::{
    handle::LazyLayersCache,
    registry::{ActivePatterns, LockWaiters},
    state::{CacheBus, CacheState, ShutdownOnDrop, Weigher},
};
use crate::{
    bus::{BusClient, BusPlace, EventBus, SessionOptions, SharedSession},
    codec::{Codec, offloading::OffloadingCodec},
    error::{BuildError, text_of},
    flight::{FlightTable, Limits},
    key::CacheKey,
    l1::L1,
    l2::{L2, L2Context, OnRetried, Rebroadcast, ServerState, Store},
    observe::{Observer, log_option_without_effect},
    options::CacheOptions,
    resilience::task_tracker::TaskTracker,
    time::{Clock, SystemClock, millis, millis_noticing_suspension},
};

type StoreWithCodec<V> = (Arc<dyn Store>, Arc<dyn Codec<V>>);

/// Builds a [`LazyLayersCache`]. Its methods neither panic nor connect; [`build`](Self::build)
/// checks the options. That of a cache of a [`CacheManager`](crate::CacheManager) begins with the
/// options of the manager.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{CacheBuilder, FailSafe, LazyLayersCache};
///
/// /// The options that all caches of the service have.
/// fn usual<K, V: Send + Sync + 'static>(builder: CacheBuilder<K, V>) -> CacheBuilder<K, V> {
///     builder.ttl(Duration::from_secs(60)).ttl_jitter(0.1).fail_safe(FailSafe::enabled())
/// }
///
/// let names = usual(LazyLayersCache::<u64, String>::builder()).name("users").build()?;
/// # Ok::<(), lazy_layers_cache::BuildError>(())
/// ```
#[must_use = "nothing happens before build()"]
pub struct CacheBuilder<K: ?Sized, V> {
    pub(crate) options: CacheOptions,
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(super) weigher: Option<Box<Weigher<V>>>,
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

impl<K: ?Sized, V: Send + Sync + 'static> LazyLayersCache<K, V> {
    /// Returns a builder with the default options: L1 of 10,000 entries, values fresh for 60 s,
    /// concurrent loads of a key coalesced, neither L2 nor event bus.
    ///
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// // Keys are `u64`, values are `String`.
    /// let names = LazyLayersCache::<u64, String>::builder().build()?;
    /// // Keys are texts: with `str` in place of `String`, every call takes a `&str`.
    /// let pages = LazyLayersCache::<str, String>::builder().build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    // The bound stands here, not at the `impl` block, for the sake of the compiler's message.
    pub fn builder() -> CacheBuilder<K, V>
    where
        K: CacheKey,
    {
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
        let l2 = match self.l2 {
            None => None,
            Some((store, codec)) => Some((claimed(store, self.options.name.as_deref())?, codec)),
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
            l1: L1::new(&self.options),
            l2: l2.map(|(store, codec)| {
                let context = L2Context {
                    observer: Arc::clone(&observer),
                    clock: clock.clone().unwrap_or_else(|| Arc::new(SystemClock)),
                    tasks: running.clone(),
                    on_retried: broadcast_retried(state.clone()),
                    shared_server: self.l2_server,
                };
                Arc::new(L2::new(store, codec, &self.options, context))
            }),
            // After the code of the user's store, which may panic: then the place is given back.
            bus: bus.map(|(place, codec)| {
                let (observer, receiver) = (Arc::clone(&observer), state.clone());
                let client = Arc::new(BusClient::new(place, &self.options, observer, receiver));
                CacheBus { trust: client.trust(), client, codec }
            }),
            flights: Arc::new(FlightTable::new(FLIGHT_SHARDS, limits)),
            active_patterns: ActivePatterns::default(),
            lock_waiters: LockWaiters::default(),
            lock_id: fastrand::u64(..),
            observer,
            running,
            closed: AtomicBool::new(false),
            lost_in_l2: AtomicUsize::new(0),
            clock,
            weigher: self.weigher,
            options: self.options,
        });
        let ending = Arc::clone(&state);
        let shutdown_on_drop = Arc::new(ShutdownOnDrop(Box::new(move || ending.end_on_drop())));
        Ok(LazyLayersCache { state, shutdown_on_drop, keys: PhantomData })
    }
}

/// Returns the store that the cache uses: the given one, or the part of it that is the cache's.
fn claimed(store: Arc<dyn Store>, cache: Option<&str>) -> Result<Arc<dyn Store>, BuildError> {
    let store = cache.and_then(|name| store.for_cache(name)).unwrap_or(store);
    match store.claim(cache) {
        Ok(()) => Ok(store),
        Err(error) => Err(match error.downcast::<BuildError>() {
            Ok(error) => *error,
            Err(error) => {
                let fix = "give the cache a store of its own, or give both caches one name if they \
                           are instances of one cache";
                BuildError::new("l2", format!("refuses the cache ({})", text_of(&error)), fix)
            }
        }),
    }
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
