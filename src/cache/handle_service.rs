//! The verbs of the handle that are about the whole cache, for the start, the observation and the
//! end of a service.

use super::{guarantees::Guarantees, handle::LazyLayersCache};
use crate::{
    error::Error,
    key::CacheKey,
    observe::{Event, HandlerGuard, Health, Stats},
};

impl<K: CacheKey + ?Sized, V: Send + Sync + 'static> LazyLayersCache<K, V> {
    /// Returns counters since the cache was built.
    ///
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let names = LazyLayersCache::<u64, String>::builder().build()?;
    /// names.set(&7, "Ada".to_owned()).await?;
    /// names.get(&7).await;
    /// names.get(&8).await;
    ///
    /// let stats = names.stats();
    /// assert_eq!((stats.l1_hits, stats.misses), (1, 1));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.state.stats()
    }

    /// Returns the state of the loader, of L2 and of the event bus, as this instance sees them.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, OriginHealth};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let names = LazyLayersCache::<u64, String>::builder().name("users").build()?;
    /// let _ = names.get_or_set(&7, || async { Err::<String, _>("the database is down") }).await;
    ///
    /// let health = names.health();
    /// assert!(matches!(health.origin, OriginHealth::Failing { .. }));
    /// assert_eq!((health.name.as_deref(), health.l2), (Some("users"), None));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn health(&self) -> Health {
        self.state.health()
    }

    /// Returns what this cache guarantees with its options.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lazy_layers_cache::{L1Options, LazyLayersCache};
    /// let cache = LazyLayersCache::<String, u32>::builder()
    ///     .l1(L1Options::default().ttl(Duration::from_secs(10)))
    ///     .build()?;
    /// assert_eq!(cache.guarantees().max_staleness, Some(Duration::from_secs(10)));
    /// println!("{}", cache.guarantees());
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[must_use]
    pub fn guarantees(&self) -> Guarantees {
        self.state.guarantees()
    }

    /// Waits until the cache is subscribed to the event bus. Returns at once if it has no bus, or
    /// does not subscribe.
    ///
    /// A cache serves without this call. Until it is subscribed, it receives no invalidations, and
    /// serves an entry of L1 for at most
    /// [`trust_timeout`](crate::EventBusOptions::trust_timeout) before it looks in L2 again.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, LocalTransport, WireCodec};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .name("users")
    ///     .event_bus(LocalTransport::new(), WireCodec::new())
    ///     .build()?;
    /// // At the start of the service, before it takes requests.
    /// names.ready().await?;
    /// assert!(names.health().event_bus.unwrap().subscribed);
    /// # names.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// A closed cache.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn ready(&self) -> Result<(), Error> {
        self.state.check_open()?;
        if let Some(bus) = &self.state.bus {
            bus.client.ready().await?;
        }
        self.state.check_open()
    }

    /// Calls `handler` for each event from now on, until the returned guard is dropped.
    ///
    /// Handlers run in the thread of the call that causes the event, in order: keep them short. A
    /// handler that blocks delays that call and no other, because no lock is held. If a handler
    /// panics, the call and the other handlers go on. A handler may use the cache, but must not
    /// block on the key of its event: it may run within the load that it would wait for. Without
    /// handlers no event is built.
    ///
    /// ```
    /// # use lazy_layers_cache::LazyLayersCache;
    /// # use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = LazyLayersCache::<String, u32>::builder().build()?;
    /// let misses = Arc::new(AtomicU64::new(0));
    /// let counter = Arc::clone(&misses);
    /// let _guard = cache.on(move |event| {
    ///     if event.name() == "miss" {
    ///         counter.fetch_add(1, Ordering::Relaxed);
    ///     }
    /// });
    ///
    /// cache.get("nobody").await;
    /// assert_eq!(misses.load(Ordering::Relaxed), 1);
    /// # Ok(()) }
    /// ```
    pub fn on(&self, handler: impl Fn(&Event<'_>) + Send + Sync + 'static) -> HandlerGuard {
        self.state.observer.on(handler)
    }

    /// Closes the cache: refuses new loads and writes at once, waits for the loads and writes that
    /// run up to [`close_timeout`](crate::CacheOptions::close_timeout), drops the loads that are
    /// left, publishes the last messages on the bus, and empties L1. When it returns, no task of
    /// the cache is left, except for a loader that blocks its thread: such a loader cannot be
    /// dropped, and `close` waits for it, as for writes that still run, for one second more.
    ///
    /// So it takes at most `close_timeout` and a second. With a bus that does not answer, it takes
    /// at most `close_timeout`, three seconds and
    /// [`publish_timeout`](crate::EventBusOptions::publish_timeout): 9 s by default.
    ///
    /// A write that ends later than that is not published; its report is not complete.
    /// Invalidations that have not reached L2, or were not published on the bus by then, are lost.
    /// The event `close:lost`, [`Stats::invalidations_lost`] and a line in the log say how many.
    ///
    /// A second call, also a concurrent one, waits for the same end.
    ///
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let names = LazyLayersCache::<u64, String>::builder().build()?;
    /// names.set(&7, "Ada".to_owned()).await?;
    ///
    /// // At the end of the service, when it takes no more requests.
    /// names.close().await;
    /// assert!(names.set(&7, "Grace".to_owned()).await.is_err());
    /// assert_eq!(names.stats().invalidations_lost, 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Once polled, the cache is closed. If the future is dropped and `close` is not called again,
    /// running loads end on their own.
    #[doc(alias = "shutdown")]
    pub async fn close(&self) {
        self.state.close(self.state.options.close_timeout).await;
    }
}
