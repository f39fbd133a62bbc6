//! The verbs of the handle that change values.

use std::{borrow::Borrow, sync::Arc};

use super::{handle::LazyLayersCache, set_request::SetRequest, write_report::WriteReport};
use crate::{error::Error, key::CacheKey};

impl<K: CacheKey + ?Sized, V: Send + Sync + 'static> LazyLayersCache<K, V> {
    /// Writes a value to L1 and L2, and sends it to the peers. Loads of the key that began before,
    /// on any instance, do not overwrite it.
    ///
    /// The call returns a request, which takes options before it is awaited, see [`SetRequest`].
    ///
    /// The report says how far the write has got. If L2 does not answer, L1 keeps the value, and
    /// the cache deletes the old value from L2 as soon as L2 answers. A value that L2 cannot hold
    /// (too large, or not encodable) is kept in L1 only, and the old value is deleted from L2.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let names = LazyLayersCache::<u64, String>::builder().build()?;
    /// // The database has committed the change: the value is known, so no load is needed.
    /// names.set(&7, "Ada".to_owned()).ttl(Duration::from_secs(10)).await?;
    /// assert_eq!(names.get(&7).await.unwrap().as_str(), "Ada");
    /// # Ok(()) }
    /// ```
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
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let names = LazyLayersCache::<u64, String>::builder().build()?;
    /// names.set(&7, "Ada".to_owned()).await?;
    ///
    /// // The database has committed the change, so an error here is logged and not returned.
    /// if let Err(error) = names.delete(&7).await {
    ///     eprintln!("{error}");
    /// }
    /// assert!(names.get(&7).await.is_none());
    /// # Ok(()) }
    /// ```
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
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pages = LazyLayersCache::<str, String>::builder().build()?;
    /// for page in ["product:7:en", "product:7:de", "product:70:en"] {
    ///     pages.set(page, "...".to_owned()).await?;
    /// }
    /// pages.delete_by_pattern("product:7:*").await?;
    /// assert!(!pages.has("product:7:de").await && pages.has("product:70:en").await);
    /// # Ok(()) }
    /// ```
    ///
    /// A glob compares at most 4,096 bytes of a key, not counting those that a `*` matches. What
    /// follows in a longer glob counts as `*`: the delete then covers more keys, never fewer.
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
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let names = LazyLayersCache::<u64, String>::builder().build()?;
    /// names.set(&7, "Ada".to_owned()).await?;
    /// names.clear().await?;
    /// assert_eq!(names.size().await, 0);
    /// # Ok(()) }
    /// ```
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
}
