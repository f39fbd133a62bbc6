//! The setters of the builder of a cache that replace one option or one group of options.

use std::time::Duration;

use super::builder::CacheBuilder;
use crate::options::{
    CircuitBreaker, Coalescing, DistributedLock, EventBusOptions, EventDedupe, FailSafe, L1Options,
    L2Options, L2Timeouts, NegativeCache, Timeouts,
};

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
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .ttl(Duration::from_secs(300))
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[doc(alias = "time_to_live")]
    ttl(ttl: Duration);

    /// Shortens the ttl of each entry by a random part, at most this fraction of it. Default: 0.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// // Values live for 54 to 60 s, so that those loaded together do not expire together.
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .ttl(Duration::from_secs(60))
    ///     .ttl_jitter(0.1)
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    ttl_jitter(ttl_jitter: f64);

    /// Sets the options of L1, the cache in memory. Default: at most 10,000 entries.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{L1Options, LazyLayersCache};
    ///
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .l1(L1Options::default().max_entries(50_000).ttl(Duration::from_secs(10)))
    ///     .build()?;
    /// assert_eq!(names.guarantees().max_staleness, Some(Duration::from_secs(10)));
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    l1(l1: L1Options);

    /// Sets the options of L2. Without L2 they have no effect.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{L2Options, LazyLayersCache};
    ///
    /// // An hour in L2, whatever a loader says.
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .l2_options(L2Options::default().ttl(Duration::from_secs(3_600)))
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    l2_options(l2: L2Options);

    /// Sets the timeouts of L2. Default: 500 ms to read, 1 s to write.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{L2Timeouts, LazyLayersCache};
    ///
    /// // The origin answers in 20 ms, so a slow Redis is not worth a longer wait.
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .l2_timeouts(L2Timeouts::default().read(Duration::from_millis(50)))
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    l2_timeouts(l2_timeouts: L2Timeouts);

    /// Sets the circuit breaker of L2. Default: opens after 3 consecutive failures, for 30 s.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{CircuitBreaker, LazyLayersCache};
    ///
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .l2_circuit_breaker(CircuitBreaker::default().cooldown(Duration::from_secs(5)))
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    l2_circuit_breaker(l2_circuit_breaker: CircuitBreaker);

    /// Sets whether the cache receives the messages of its peers. Default: true.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, LocalTransport, WireCodec};
    ///
    /// // A job that only deletes: it publishes, and receives nothing.
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .name("users")
    ///     .event_bus(LocalTransport::new(), WireCodec::new())
    ///     .subscribe_to_events(false)
    ///     .build()?;
    /// assert!(!names.guarantees().receives_messages);
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    subscribe_to_events(subscribe_to_events: bool);

    /// Sets whether values that were loaded or `set` are sent to the peers. Default: true.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, LocalTransport, WireCodec};
    ///
    /// // Each instance loads for itself what its own callers ask for.
    /// let pages = LazyLayersCache::<str, String>::builder()
    ///     .name("pages")
    ///     .event_bus(LocalTransport::new(), WireCodec::new())
    ///     .broadcast_set(false)
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    broadcast_set(broadcast_set: bool);

    /// Sets how many received messages are remembered, to apply no message twice. Default: 10,000,
    /// for 300 s each.
    ///
    /// ```
    /// use lazy_layers_cache::{EventDedupe, LazyLayersCache};
    ///
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .event_dedupe(EventDedupe::default().max_entries(100_000))
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    event_dedupe(event_dedupe: EventDedupe);

    /// Sets the circuit breaker of publishing. Default: as for L2.
    ///
    /// ```
    /// use lazy_layers_cache::{CircuitBreaker, LazyLayersCache};
    ///
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .event_bus_circuit_breaker(CircuitBreaker::default().failure_threshold(5))
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    event_bus_circuit_breaker(event_bus_circuit_breaker: CircuitBreaker);

    /// Sets the options of the event bus: timeouts, and the bounds of the outbox.
    ///
    /// ```
    /// use lazy_layers_cache::{
    ///     DeleteAck, EventBusOptions, LazyLayersCache, LocalTransport, WireCodec,
    /// };
    ///
    /// // A delete returns when the bus has acknowledged it.
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .name("users")
    ///     .event_bus(LocalTransport::new(), WireCodec::new())
    ///     .event_bus_options(EventBusOptions::default().confirm_deletes(true))
    ///     .build()?;
    /// assert_eq!(names.guarantees().delete_ack, DeleteAck::Confirmed);
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    event_bus_options(event_bus: EventBusOptions);

    /// Sets how concurrent loads of a key are coalesced (single flight). Default: enabled.
    ///
    /// ```
    /// use lazy_layers_cache::{Coalescing, LazyLayersCache};
    ///
    /// // Each caller loads for itself: for loads that must see the caller's own transaction, say.
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .inflight(Coalescing::disabled())
    ///     .build()?;
    /// assert!(!names.guarantees().one_load_within_instance);
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    inflight(inflight: Coalescing);

    /// Sets whether only one instance at a time loads a key, by a lock in L2. Default: disabled.
    ///
    /// ```
    /// use lazy_layers_cache::{
    ///     DistributedLock, LazyLayersCache, SystemClock, WireCodec, testing::SharedStore,
    /// };
    ///
    /// let reports = LazyLayersCache::<u64, String>::builder()
    ///     .l2(SharedStore::new(SystemClock), WireCodec::new())
    ///     .distributed_lock(DistributedLock::enabled())
    ///     .build()?;
    /// assert!(reports.guarantees().one_load_across_instances);
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    distributed_lock(distributed_lock: DistributedLock);

    /// Sets whether the cache remembers that a key does not exist. Default: disabled.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, NegativeCache};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .negative_cache(NegativeCache::enabled())
    ///     .build()?;
    /// for _ in 0..2 {
    ///     let load = || async { Ok::<Option<String>, std::io::Error>(None) };
    ///     assert!(names.get_or_set(&7, load).await?.is_none());
    /// }
    /// assert_eq!(names.stats().loads, 1);
    /// # Ok(()) }
    /// ```
    negative_cache(negative_cache: NegativeCache);

    /// Sets whether a stale value is served when the loader fails. Default: disabled.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{FailSafe, LazyLayersCache, testing::ManualClock};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = ManualClock::new();
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .ttl(Duration::from_secs(60))
    ///     .fail_safe(FailSafe::enabled())
    ///     .clock(clock.clone())
    ///     .build()?;
    /// names.set(&7, "Ada".to_owned()).await?;
    ///
    /// clock.advance(Duration::from_secs(61));
    /// let load = || async { Err::<String, _>("the database is down") };
    /// assert_eq!(names.get_or_set(&7, load).await?.as_str(), "Ada");
    /// # Ok(()) }
    /// ```
    #[doc(alias = "grace")]
    #[doc(alias = "stale_if_error")]
    fail_safe(fail_safe: FailSafe);

    /// Sets the soft and the hard timeout of a load. Default: none.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{FailSafe, LazyLayersCache, Timeouts};
    ///
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .fail_safe(FailSafe::enabled())
    ///     .timeouts(Timeouts::none().soft(Duration::from_millis(50)).hard(Duration::from_secs(2)))
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    timeouts(timeouts: Timeouts);

    /// Sets how long [`close`](crate::LazyLayersCache::close) waits for the loads and writes
    /// that run. Default: 5 s.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .close_timeout(Duration::from_secs(20))
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    close_timeout(close_timeout: Duration);
}
