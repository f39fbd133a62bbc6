//! The handle of a cache, and its verbs.

use std::{borrow::Borrow, fmt, marker::PhantomData, sync::Arc};

use super::{
    guarantees::Guarantees,
    request::{GetOrSet, SetRequest},
    state::{CacheState, ShutdownOnDrop},
    write_report::WriteReport,
};
use crate::{
    error::Error,
    key::CacheKey,
    load::Loader,
    observe::{Event, HandlerGuard, Health, Stats},
};

/// A cache that loads missing values, once per key for all concurrent callers, and serves a stale
/// value while its loader fails.
///
/// A clone is a cheap handle to the same cache. When the last handle is dropped, running loads are
/// dropped too; [`close`](Self::close) waits for them. With an event bus, call `close` when the
/// service shuts down: a cache that is only dropped leaves the publishing of its last
/// invalidations, and the goodbye without which its peers take its silence for a loss, to a task
/// that has a second for it, and that ends at once if the runtime shuts down.
///
/// `K` is the type of the keys ([`CacheKey`]). The cache turns keys into text, and a cache of
/// `String` keys accepts `&str`. Values are returned as `Arc<V>`, so a hit copies no value; `V`
/// needs no trait but `Send + Sync + 'static`.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{FailSafe, LazyLayersCache};
///
/// # async fn find_name(id: u64) -> Result<Option<String>, std::io::Error> {
/// #     Ok(Some(format!("user {id}")))
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let names = LazyLayersCache::<u64, String>::builder()
///     .ttl(Duration::from_secs(60))
///     .fail_safe(FailSafe::enabled())
///     .build()?;
///
/// let name = names.get_or_set(&7, || find_name(7)).await?;
/// assert_eq!(name.as_deref().map(String::as_str), Some("user 7"));
///
/// names.delete(&7).await?;
/// # Ok(()) }
/// ```
#[doc(alias = "Cache")]
#[doc(alias = "HybridCache")]
pub struct LazyLayersCache<K: ?Sized, V> {
    pub(super) state: Arc<CacheState<V>>,
    pub(super) shutdown_on_drop: Arc<ShutdownOnDrop>,
    pub(super) keys: PhantomData<fn(&K)>,
}

impl<K: ?Sized, V> Clone for LazyLayersCache<K, V> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            shutdown_on_drop: Arc::clone(&self.shutdown_on_drop),
            keys: PhantomData,
        }
    }
}

impl<K: ?Sized, V> fmt::Debug for LazyLayersCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyLayersCache")
            .field("l1_entries", &self.state.l1.len())
            .field("loads_in_flight", &self.state.flights.running())
            .finish_non_exhaustive()
    }
}

impl<K: CacheKey + ?Sized, V: Send + Sync + 'static> LazyLayersCache<K, V> {
    /// Returns the fresh value of a key from L1, else from L2. Runs no loader and returns no stale
    /// value.
    ///
    /// `None`: neither level has a fresh value, or the key is cached as missing.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn get<Q: CacheKey + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        // The text of the key is built twice, not kept across the await, and the slow path is
        // boxed: that keeps the future of a hit small.
        if let Some(answer) = self.state.l1_answer(&key.key_text(), true) {
            return answer;
        }
        if self.state.l2.is_none() {
            self.state.report_miss(&key.key_text());
            return None;
        }
        Box::pin(self.state.get_slow(Arc::from(&*key.key_text()))).await
    }

    /// Returns the fresh value of a key from L1. It reads no other level, runs no loader and is
    /// not async.
    pub fn get_l1<Q: CacheKey + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        let key = &*key.key_text();
        self.state.l1_hit(key)
    }

    /// Returns the value of a key: from L1, else from a load of the key that is running, else from
    /// L2 if there is one, else from `loader`.
    ///
    /// The call returns a request, which takes options before it is awaited, see [`GetOrSet`]. The
    /// type of the result follows from the type that the loader returns, see
    /// [`IntoLoaded`](crate::IntoLoaded); [`Loader`] says how the loader is run.
    ///
    /// | state of the key | result |
    /// | --- | --- |
    /// | fresh | the value, without a load |
    /// | cached as missing | `None` |
    /// | a load is running | the result of that load, value or error |
    /// | stale, the load fails | the stale value; no load of the key begins for a while |
    /// | stale, the load is slow | the stale value after the soft timeout; the load goes on |
    /// | neither fresh nor stale, the load fails | the error, to every caller that waited |
    ///
    /// # Errors
    ///
    /// Without a stale value: the error or panic of the loader, and the hard timeout. In any case:
    /// a loader that requests its own key, a loader that waits where there is no tokio runtime, a
    /// closed cache. [`ErrorKind`](crate::ErrorKind) lists them.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future affects no other caller: a load that it began goes on, and fills the
    /// cache.
    ///
    /// # Runtimes
    ///
    /// A load that waits runs on the runtime of the caller that began it. If that runtime shuts
    /// down, each other caller that waits begins a load of its own. If that runtime is only not
    /// driven (a current-thread runtime between two `block_on`s), the callers wait for as long.
    #[doc(alias = "get_with")]
    #[doc(alias = "try_get_with")]
    #[doc(alias = "get_or_load")]
    #[doc(alias = "getOrSet")]
    #[inline]
    pub fn get_or_set<'a, Q, L>(&'a self, key: &'a Q, loader: L) -> GetOrSet<'a, Q, V, L>
    where
        K: Borrow<Q>,
        Q: CacheKey + ?Sized,
        L: Loader<V>,
    {
        GetOrSet::new(&self.state, key, loader)
    }

    /// Writes a value to L1 and L2, and sends it to the peers. Loads of the key that began before,
    /// on any instance, do not overwrite it.
    ///
    /// The call returns a request, which takes options before it is awaited, see [`SetRequest`].
    ///
    /// The report says how far the write has got. If L2 does not answer, L1 keeps the value, and
    /// the cache deletes the old value from L2 as soon as L2 answers. A value that L2 cannot hold
    /// (too large, or not encodable) is kept in L1 only, and the old value is deleted from L2.
    ///
    /// # Errors
    ///
    /// A closed cache.
    ///
    /// # Cancel safety
    ///
    /// Nothing happens before the first poll. Dropped later, the old value is gone from L1, and the
    /// key is deleted from L2 as soon as L2 answers; until then this instance does not read the
    /// key from L2.
    #[doc(alias = "insert")]
    pub fn set<'a, Q>(&'a self, key: &'a Q, value: impl Into<Arc<V>>) -> SetRequest<'a, Q, V>
    where
        K: Borrow<Q>,
        Q: CacheKey + ?Sized,
    {
        SetRequest::new(&self.state, key, value.into())
    }

    /// Returns whether L1 or L2 has a fresh value of the key.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    #[doc(alias = "contains_key")]
    pub async fn has<Q: CacheKey + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.state.has(&key.key_text()).await
    }

    /// Deletes a key from L1, from L2 and from the L1 of the peers: its fresh or stale value, or
    /// its entry as missing. Loads that began before, on any instance, do not write the key. After
    /// this returned, this instance returns no older value.
    ///
    /// Commit to the database first, then delete here: a load that begins between the two would
    /// read the old value from the database.
    ///
    /// If L2 or the bus does not answer, the call succeeds all the same, because the database has
    /// committed already: there is nothing to undo. The cache retries the rest. A handler may
    /// ignore the report, log that it is not complete, or wait for the rest, see [`WriteReport`].
    ///
    /// # Errors
    ///
    /// A closed cache. A `?` behind the await therefore fails a request only during shutdown. Its
    /// change is committed then too: log the error rather than return it.
    ///
    /// # Cancel safety
    ///
    /// Nothing happens before the first poll. Dropped later, the key is gone from L1, and it is
    /// deleted from L2 as soon as L2 answers; until then this instance does not read the key from
    /// L2.
    #[doc(alias = "remove")]
    #[doc(alias = "invalidate")]
    pub async fn delete<Q: CacheKey + ?Sized>(&self, key: &Q) -> Result<WriteReport, Error>
    where
        K: Borrow<Q>,
    {
        self.state.delete(&key.key_text()).await
    }

    /// Deletes all keys that match a Redis glob: `*`, `?`, `[a-c]`, `[^x]`, `\` to escape. Each is
    /// deleted as by [`delete`](Self::delete).
    ///
    /// The glob matches bytes, so `?` is one byte. The call compares every key of L1, and lets
    /// other tasks run meanwhile.
    ///
    /// # Errors
    ///
    /// As for [`delete`](Self::delete).
    ///
    /// # Cancel safety
    ///
    /// Once polled, no load of a matching key that began before writes the key. Keys that the call
    /// has not reached when the future is dropped stay.
    #[doc(alias = "invalidate_entries_if")]
    pub async fn delete_by_pattern(&self, pattern: &str) -> Result<WriteReport, Error> {
        self.state.delete_by_pattern(pattern).await
    }

    /// Deletes all keys, as [`delete_by_pattern`](Self::delete_by_pattern) with `*`.
    ///
    /// # Errors
    ///
    /// As for [`delete`](Self::delete).
    ///
    /// # Cancel safety
    ///
    /// As for [`delete_by_pattern`](Self::delete_by_pattern).
    #[doc(alias = "invalidate_all")]
    pub async fn clear(&self) -> Result<WriteReport, Error> {
        self.state.delete_by_pattern("*").await
    }

    /// Returns the number of entries, stale ones included: of L2 if there is one and it answers,
    /// else of L1.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    #[doc(alias = "len")]
    #[doc(alias = "entry_count")]
    pub async fn size(&self) -> u64 {
        let in_l2 = match &self.state.l2 {
            Some(l2) => l2.size().await,
            None => None,
        };
        in_l2.unwrap_or_else(|| self.state.l1.len() as u64)
    }

    /// Returns counters since the cache was built.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.state.stats()
    }

    /// Returns the state of the loader, of L2 and of the event bus, as this instance sees them.
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
    /// A write that ends later than that is not published; its report is not complete.
    /// Invalidations that have not reached L2, or were not published on the bus by then, are lost.
    /// The event `close:lost`, [`Stats::invalidations_lost`] and a line in the log say how many.
    ///
    /// A second call, also a concurrent one, waits for the same end.
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
