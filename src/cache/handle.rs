//! The handle of a cache, and the verbs that read.

use std::{borrow::Borrow, fmt, marker::PhantomData, sync::Arc};

use super::{
    request::GetOrSet,
    state::{CacheState, ShutdownOnDrop},
};
use crate::{key::CacheKey, load::Loader};

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
/// needs no trait but `Send + Sync + 'static`. To serialize an `Arc<V>`, as axum's
/// `Json(user)` does, serde needs its feature `rc`; a reference, `Json(&*user)`, needs nothing.
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
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let names = LazyLayersCache::<u64, String>::builder().build()?;
    /// assert!(names.get(&7).await.is_none());
    ///
    /// names.set(&7, "Ada".to_owned()).await?;
    /// assert_eq!(names.get(&7).await.unwrap().as_str(), "Ada");
    /// # Ok(()) }
    /// ```
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
    ///
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let names = LazyLayersCache::<u64, String>::builder().build()?;
    /// names.set(&7, "Ada".to_owned()).await?;
    /// // No await: for code that is not async, the rendering of a page say.
    /// assert_eq!(names.get_l1(&7).unwrap().as_str(), "Ada");
    /// # Ok(()) }
    /// ```
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
    /// [`IntoLoaded`](crate::IntoLoaded); [`Loader`] says how the loader is run, and what to do if
    /// the compiler refuses it.
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
    /// ```
    /// use std::{io, sync::Arc};
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// struct Users { db: Db, names: LazyLayersCache<u64, String> }
    /// # #[derive(Clone)] struct Db;
    /// # impl Db { async fn name(&self, _: u64) -> Result<Option<String>, io::Error> { Ok(None) } }
    ///
    /// impl Users {
    ///     async fn name(&self, id: u64) -> Result<Option<Arc<String>>, lazy_layers_cache::Error> {
    ///         // The load may outlive this call, so it owns a handle of the database.
    ///         let db = self.db.clone();
    ///         self.names.get_or_set(&id, move || async move { db.name(id).await }).await
    ///     }
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let names = LazyLayersCache::builder().build()?;
    /// # assert!(Users { db: Db, names }.name(7).await?.is_none());
    /// # Ok(()) }
    /// ```
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

    /// Returns whether L1 or L2 has a fresh value of the key.
    ///
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let names = LazyLayersCache::<u64, String>::builder().build()?;
    /// names.set(&7, "Ada".to_owned()).await?;
    /// assert!(names.has(&7).await && !names.has(&8).await);
    /// # Ok(()) }
    /// ```
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

    /// Returns the number of entries, stale ones included: of L2 if there is one and it answers,
    /// else of L1.
    ///
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let names = LazyLayersCache::<u64, String>::builder().build()?;
    /// names.set(&7, "Ada".to_owned()).await?;
    /// names.set(&8, "Grace".to_owned()).await?;
    /// assert_eq!(names.size().await, 2);
    /// # Ok(()) }
    /// ```
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
}
