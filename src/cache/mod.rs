//! The front door: the handle and its verbs. Only this room knows the order of the stages.

mod broadcast;
mod builder;
mod close;
mod distributed_lock;
mod flight_context;
mod follow;
mod guarantees;
mod l1_access;
mod load;
mod outcome;
mod read;
mod registry;
mod request;
mod sink;
mod state;
mod write;

use std::{borrow::Borrow, fmt, marker::PhantomData, sync::Arc};

use self::state::{CacheState, ShutdownOnDrop};
pub use self::{
    builder::CacheBuilder,
    guarantees::{DeleteAck, Guarantees},
    outcome::{Outcome, Source},
    request::{GetOrSet, GetOrSetFuture, SetRequest},
};
use crate::{
    error::Error,
    key::CacheKey,
    load::Loader,
    observe::{Event, HandlerGuard, Health, Stats},
};

/// A cache that loads what it does not have, once per key, and answers from a stale copy where
/// the origin cannot.
///
/// Cloning is cheap and gives another handle to the same cache. When the last handle is dropped,
/// loads that are still running are dropped too; [`close`](Self::close) lets them finish.
///
/// `K` is what the application calls a key ([`CacheKey`]): it becomes text at the door, and a
/// `String` cache is asked with `&str`. Values are handed out as `Arc<V>`, so a hit never copies
/// one; `V` needs no trait beyond `Send + Sync + 'static`.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{FailSafe, LazyLayersCache};
///
/// # async fn find_name(id: u64) -> Result<Option<String>, std::io::Error> { Ok(Some(format!("user {id}"))) }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
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
    state: Arc<CacheState<V>>,
    shutdown_on_drop: Arc<ShutdownOnDrop>,
    keys: PhantomData<fn(&K)>,
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
    /// Starts building a cache. With nothing said: 10,000 entries in memory, fresh for 60 s,
    /// concurrent loads of a key coalesced.
    pub fn builder() -> CacheBuilder<K, V> {
        CacheBuilder::new()
    }

    /// The value of a key, if a level has a fresh one. Loads nothing, serves nothing stale.
    ///
    /// `None` says that no level has it, or that the key is known not to exist.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn get<Q: CacheKey + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        // The text of the key is made twice rather than kept across the await, and what is beyond
        // memory is boxed: so the future of a hit is small.
        if let Some(answer) = self.state.l1_answer(&key.key_text(), true) {
            return answer;
        }
        if self.state.l2.is_none() {
            self.state.report_miss(&key.key_text());
            return None;
        }
        Box::pin(self.state.get_slow(Arc::from(&*key.key_text()))).await
    }

    /// The value of a key, if memory has a fresh one: no future, no other level, no load.
    ///
    /// For the hottest paths, and for code that is not async.
    pub fn get_l1<Q: CacheKey + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        let key = &*key.key_text();
        self.state.l1_hit(key)
    }

    /// The value of a key: from memory, else from a load that is running already, else from the
    /// shared level if there is one, else from `loader`.
    ///
    /// The call is a request that can be told more before it is awaited, see [`GetOrSet`]. What
    /// it gives follows from what the loader returns, see [`IntoLoaded`](crate::IntoLoaded); how
    /// the loader is run, see [`Loader`].
    ///
    /// | state of the key | result |
    /// | --- | --- |
    /// | fresh | the value, without a load |
    /// | known missing | `None` |
    /// | being loaded | that load's result, value or error |
    /// | stale copy kept, load fails | the stale copy; the key is left alone for a while |
    /// | stale copy kept, load slow | after the soft timeout the stale copy; the load goes on |
    /// | neither, load fails | the error, to every caller that waited |
    ///
    /// # Errors
    ///
    /// If there is no stale copy to serve: the loader's error or panic, and the hard timeout. In
    /// any case: a loader that asks for its own key, a loader that has to wait without a tokio
    /// runtime, a closed cache. [`ErrorKind`](crate::ErrorKind) lists them.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes nothing from anyone: a load that it began goes on for the others
    /// who wait, and fills the cache.
    ///
    /// # Runtimes
    ///
    /// A load that waits goes on on the runtime of the call that began it. If that runtime shuts
    /// down, whoever else waits loads anew; if it is merely not driven (a current-thread runtime
    /// between two `block_on`s), they wait for as long as it stands still.
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

    /// Writes a value, in every level. Loads of the key that began before it fill nothing,
    /// whichever instance they run on.
    ///
    /// The call is a request that can be told more before it is awaited, see [`SetRequest`].
    ///
    /// # Errors
    ///
    /// A closed cache. With a shared level, that it is not known to have the value
    /// ([`L2Unreachable`](crate::ErrorKind::L2Unreachable)): this instance has forgotten what it
    /// held, and an old value may still be there for others.
    ///
    /// # Cancel safety
    ///
    /// Nothing happens before the first poll. Dropped later, the old value is gone from memory,
    /// and soon neither it nor the new one is in the shared level, which this instance does not ask
    /// about the key until then.
    #[doc(alias = "insert")]
    pub fn set<'a, Q>(&'a self, key: &'a Q, value: impl Into<Arc<V>>) -> SetRequest<'a, Q, V>
    where
        K: Borrow<Q>,
        Q: CacheKey + ?Sized,
    {
        SetRequest::new(&self.state, key, value.into())
    }

    /// Whether a level has a fresh value for the key.
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

    /// Deletes a key: its value, its stale copy and the knowledge that it is missing. Loads that
    /// began before it fill nothing. Once this has returned, this instance never gives an older
    /// value.
    ///
    /// Commit to the origin first, then delete here: a load that begins between the two would
    /// read the old value from the origin.
    ///
    /// With a shared level it is deleted there too, and no instance gets an older value from
    /// there, nor from a load that began before.
    ///
    /// # Errors
    ///
    /// A closed cache. With a shared level, that the delete is not known to have reached it
    /// ([`L2Unreachable`](crate::ErrorKind::L2Unreachable)): this instance has forgotten the key,
    /// and an old value may still be there.
    ///
    /// # Cancel safety
    ///
    /// Nothing happens before the first poll. Dropped later, the key is gone from memory and soon
    /// from the shared level, which this instance does not ask about it until then.
    #[doc(alias = "remove")]
    #[doc(alias = "invalidate")]
    pub async fn delete<Q: CacheKey + ?Sized>(&self, key: &Q) -> Result<(), Error>
    where
        K: Borrow<Q>,
    {
        self.state.delete(&key.key_text()).await
    }

    /// Deletes all keys that match a glob of Redis: `*`, `?`, `[a-c]`, `[^x]`, `\` to escape.
    /// Like [`delete`](Self::delete) for each of them.
    ///
    /// Bytes are compared, so `?` is one byte. Every key in memory is looked at, one at a time:
    /// other calls go on meanwhile.
    ///
    /// # Errors
    ///
    /// As for [`delete`](Self::delete).
    ///
    /// # Cancel safety
    ///
    /// From the first poll on, no load of a matching key that began before fills anything; keys
    /// that were not reached when the future is dropped stay.
    #[doc(alias = "invalidate_entries_if")]
    pub async fn delete_by_pattern(&self, pattern: &str) -> Result<(), Error> {
        self.state.delete_by_pattern(pattern).await
    }

    /// Deletes everything. Like [`delete_by_pattern`](Self::delete_by_pattern) with `*`.
    ///
    /// # Errors
    ///
    /// As for [`delete`](Self::delete).
    ///
    /// # Cancel safety
    ///
    /// As for [`delete_by_pattern`](Self::delete_by_pattern).
    #[doc(alias = "invalidate_all")]
    pub async fn clear(&self) -> Result<(), Error> {
        self.state.delete_by_pattern("*").await
    }

    /// How many entries there are, stale copies included: in the shared level if there is one and
    /// it answers, else in memory.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    #[doc(alias = "len")]
    #[doc(alias = "entry_count")]
    pub async fn size(&self) -> u64 {
        self.state.size().await
    }

    /// Counts since the cache was built.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.state.stats()
    }

    /// How the parts are doing that the cache depends on.
    #[must_use]
    pub fn health(&self) -> Health {
        self.state.health()
    }

    /// What is promised by a cache that is configured as this one is.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lazy_layers_cache::{L1Options, LazyLayersCache};
    /// let cache = LazyLayersCache::<String, u32>::builder()
    ///     .l1(L1Options::default().ttl(Duration::from_secs(10)))
    ///     .build()?;
    /// assert_eq!(cache.guarantees().max_staleness, Duration::from_secs(10));
    /// println!("{}", cache.guarantees());
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[must_use]
    pub fn guarantees(&self) -> Guarantees {
        self.state.guarantees()
    }

    /// Waits until what other instances tell is heard: at once without a bus, or where it is not
    /// to be listened to.
    ///
    /// A cache serves without waiting for this. Until then it hears of no deletes, and so believes
    /// its memory for [`trust_timeout`](crate::EventBusOptions::trust_timeout) only.
    ///
    /// # Errors
    ///
    /// A closed cache.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn ready(&self) -> Result<(), Error> {
        self.state.ready().await
    }

    /// Calls `handler` for each event from now on, until the returned guard is dropped.
    ///
    /// Handlers run in line, in the call that causes the event and in order: keep them short. A
    /// handler that blocks holds up that call and no other, for no lock is held; one that panics
    /// is skipped for that event, and neither the call nor other handlers notice. A handler may
    /// use the cache, but must not block on the key of its event: the load that it would wait for
    /// may be the one that is reporting. Without handlers no event is built.
    ///
    /// ```
    /// # use lazy_layers_cache::LazyLayersCache;
    /// # use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = LazyLayersCache::<String, u32>::builder().build()?;
    /// let misses = Arc::new(AtomicU64::new(0));
    /// let counter = Arc::clone(&misses);
    /// let _subscription = cache.on(move |event| {
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

    /// Closes the cache: refuses new loads and writes at once, lets running loads finish for up
    /// to [`close_timeout`](crate::CacheOptions::close_timeout), drops the rest, and empties the
    /// memory. When it returns, no task of the cache is left, except for a loader that blocks its
    /// thread: that cannot be dropped, and is given up on after one second more.
    ///
    /// Calling it again, also at the same time, waits for the same end.
    ///
    /// # Cancel safety
    ///
    /// Once polled the cache is closed; without a second call, loads that are still running then
    /// end on their own.
    #[doc(alias = "shutdown")]
    pub async fn close(&self) {
        self.state.close().await;
    }
}
