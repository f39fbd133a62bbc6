//! The manager: its handle and its verbs.

use std::{any::type_name, collections::BTreeMap, fmt, sync::Arc};

use super::{
    entry::NamedCodec,
    health::{ManagerHealth, SharedHealth, sum_of},
    join_all::join_all,
    registry::{Manager, SharedL2},
};
use crate::{
    cache::CacheBuilder,
    codec::Codec,
    error::{Cause, Error, ErrorKind},
    key::CacheKey,
    observe::{L2Health, Stats},
    resilience::{has_timer, timeout},
};

/// The caches of one process: they share L2, the event bus, the instance id and the options of a
/// configuration file, and are made ready, observed and closed together.
///
/// A clone is a cheap handle to the same manager.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{CacheManager, CacheOptions, EventBus, LocalTransport};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let manager = CacheManager::builder()
///     // .redis(RedisStore::at("redis://127.0.0.1/"))
///     .event_bus(EventBus::new(LocalTransport::new()))
///     .instance_id("host-1")
///     .options(CacheOptions::default().ttl(Duration::from_secs(300)))
///     .build()?;
///
/// let users = manager.cache::<u64, String>("users").build()?;
/// let prices = manager.cache::<str, f64>("prices").ttl(Duration::from_secs(5)).build()?;
/// manager.ready().await?;
///
/// users.set(&7, "Ada".to_owned()).await?;
/// assert_eq!(manager.stats()["users"].l1_entries, 1);
/// assert!(manager.health().is_healthy());
///
/// manager.close().await;
/// # Ok(()) }
/// ```
///
/// # The caches of a manager
///
/// | case | result |
/// | --- | --- |
/// | a name is asked for twice, with the same types | the same cache; options of the second builder that differ are ignored, with a warning |
/// | a name is asked for twice, with other types | an error of `build()` that names both |
/// | a name is asked for twice, with another codec, or once as a [`memory_cache`](Self::memory_cache) | an error of `build()` that names both |
/// | a name is asked for by several threads at once | one cache |
/// | a section of the file that no cache was asked for | one warning, with the nearest name: at the first `ready()`, else at `close()` or when the last handle of the manager is dropped |
/// | a second cache with [`accept_unnamed`](crate::EventBusOptions::accept_unnamed) | an error of `build()` |
/// | the last handle of a cache is dropped | the cache ends, as a cache without a manager does; no report names it any more, and its name builds a new one |
/// | a cache was closed by itself | its name builds a new one; until then it is reported as closed |
/// | the last handle of the manager is dropped | its caches go on |
///
/// So the manager keeps no cache alive: keep a handle of each, say in the state of the service, as
/// long as it is used, and drop it only after [`close`](Self::close), which does not reach a cache
/// without handles.
///
/// The setters of a cache's builder win over its section in the file: leave out what the file is
/// to decide. A setter of a group, such as `l1(..)`, replaces the whole group.
///
/// # Shared
///
/// All caches have one circuit breaker of L2: if Redis is down, the first failures of all of them
/// together open it, and one probe closes it for all. A cache that was given a store of its own, by
/// `l2(..)` on its builder, has a circuit breaker of its own too.
#[derive(Clone)]
pub struct CacheManager(pub(super) Arc<Manager>);

impl CacheManager {
    pub(super) fn new(manager: Manager) -> Self {
        Self(Arc::new(manager))
    }

    /// Returns the builder of a cache whose values are encoded by this codec, for L2 and for the
    /// bus. It begins with the options of the cache's section, else with the defaults. (With the
    /// feature `wire`, `cache(name)` does the same with the `WireCodec`.)
    ///
    /// `build()` returns the cache that has the name already, if there is one of the same types and
    /// with a codec of the same type.
    ///
    /// ```
    /// use lazy_layers_cache::{BoxError, CacheManager, Codec};
    ///
    /// struct Utf8;
    ///
    /// impl Codec<String> for Utf8 {
    ///     fn encode(&self, value: &String) -> Result<Vec<u8>, BoxError> {
    ///         Ok(value.clone().into_bytes())
    ///     }
    ///
    ///     fn decode(&self, bytes: &[u8]) -> Result<String, BoxError> {
    ///         Ok(String::from_utf8(bytes.to_vec())?)
    ///     }
    /// }
    ///
    /// let manager = CacheManager::builder().build()?;
    /// let pages = manager.cache_with_codec::<str, String>("pages", Utf8).build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    pub fn cache_with_codec<K, V>(&self, name: &str, codec: impl Codec<V>) -> CacheBuilder<K, V>
    where
        K: CacheKey + ?Sized + 'static,
        V: Send + Sync + 'static,
    {
        self.begin(name, Some(named(codec)))
    }

    /// Returns the builder of a cache with neither L2 nor event bus, for values that have no form
    /// in bytes. Otherwise as [`cache_with_codec`](Self::cache_with_codec).
    ///
    /// ```
    /// # use lazy_layers_cache::CacheManager;
    /// let manager = CacheManager::builder().build()?;
    /// let pools = manager.memory_cache::<str, std::sync::Mutex<Vec<u8>>>("pools").build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    pub fn memory_cache<K, V>(&self, name: &str) -> CacheBuilder<K, V>
    where
        K: CacheKey + ?Sized + 'static,
        V: Send + Sync + 'static,
    {
        self.begin(name, None)
    }

    fn begin<K, V>(&self, name: &str, codec: Option<NamedCodec<V>>) -> CacheBuilder<K, V>
    where
        K: CacheKey + ?Sized + 'static,
        V: Send + Sync + 'static,
    {
        let (manager, asked) = (Arc::clone(&self.0), name.to_owned());
        let build = move |builder| {
            let cache = manager.build(&asked, builder, codec);
            cache.map_err(|error| error.at(format!("cache `{asked}`")))
        };
        CacheBuilder::built_by(self.0.options_of(name), Box::new(build))
    }

    /// Waits until all caches are subscribed to the event bus, as
    /// [`LazyLayersCache::ready`](crate::LazyLayersCache::ready) does for one. Call it after all
    /// caches were built: the first call warns of sections of the file that no cache was asked for.
    ///
    /// ```
    /// use lazy_layers_cache::{CacheManager, LocalTransport};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = CacheManager::builder().event_bus(LocalTransport::new()).build()?;
    /// let users = manager.cache::<u64, String>("users").build()?;
    /// // At the start of the service, when all caches are built.
    /// manager.ready().await?;
    /// assert!(manager.health().is_healthy());
    /// # manager.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The manager is closed, or there is no runtime in which the caches could subscribe.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn ready(&self) -> Result<(), Error> {
        self.check_open()?;
        self.0.warn_of_unused_sections();
        let caches = self.0.live();
        let results = join_all(caches.iter().map(|(_, cache)| cache.ready()).collect()).await;
        // A cache that was closed by itself is none of the manager's any more.
        let is_own = |error: &Error| error.kind() != ErrorKind::Closed;
        results.into_iter().filter_map(Result::err).find(is_own).map_or(Ok(()), Err)?;
        self.check_open()
    }

    /// Returns the state of each cache and of the parts that they share, as this process sees them.
    ///
    /// ```
    /// use lazy_layers_cache::CacheManager;
    ///
    /// let manager = CacheManager::builder().build()?;
    /// let users = manager.cache::<u64, String>("users").build()?;
    /// let health = manager.health();
    /// assert_eq!(health.caches.keys().collect::<Vec<_>>(), ["users"]);
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[must_use]
    pub fn health(&self) -> ManagerHealth {
        let live = self.0.live();
        let caches: BTreeMap<_, _> =
            live.iter().map(|(name, cache)| (name.clone(), cache.health())).collect();
        let of_l2 = |l2: &SharedL2| {
            if l2.server.breaker.is_open() { L2Health::Skipped } else { L2Health::Answering }
        };
        let l2 = self.0.l2.as_ref().map(of_l2);
        ManagerHealth {
            instance_id: self.0.instance_id.clone(),
            shared: SharedHealth { l2, event_bus: sum_of(caches.values()) },
            caches,
            closed: self.0.is_closed(),
        }
    }

    /// Returns the counters of each cache, by its name.
    ///
    /// ```
    /// # use lazy_layers_cache::CacheManager;
    /// # let manager = CacheManager::builder().build()?;
    /// for (cache, stats) in manager.stats() {
    ///     for (counter, value) in stats.iter() {
    ///         println!("cache_{counter}{{cache=\"{cache}\"}} {value}");
    ///     }
    /// }
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> BTreeMap<String, Stats> {
        let live = self.0.live();
        live.iter().map(|(name, cache)| (name.clone(), cache.stats())).collect()
    }

    /// Returns the names of the sections of the file that no cache was asked for yet. They are
    /// probably misspelt.
    ///
    /// ```
    /// use lazy_layers_cache::{CacheManager, CacheOptions, ManagerOptions};
    ///
    /// let options = ManagerOptions::default().cache("usres", CacheOptions::default());
    /// let manager = CacheManager::builder().options(options).build()?;
    /// let users = manager.cache::<u64, String>("users").build()?;
    /// assert_eq!(manager.unused_sections(), ["usres"]);
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[must_use]
    pub fn unused_sections(&self) -> Vec<String> {
        self.0.unused_sections()
    }

    /// Closes all caches at the same time, as
    /// [`LazyLayersCache::close`](crate::LazyLayersCache::close) closes one, within one deadline:
    /// the [`close_timeout`](crate::CacheOptions::close_timeout) of the defaults. From then on
    /// `build()` of a cache is an error.
    ///
    /// Keep a handle of each cache until then, for example beside the state that a router of axum
    /// owns and drops. For a cache whose last handle was dropped before, `close` waits only until
    /// its last messages are published, for at most a second and one
    /// [`publish_timeout`](crate::EventBusOptions::publish_timeout). What that cache had still to
    /// bring to L2 is lost, and reported in the same way.
    ///
    /// Invalidations that are lost are reported by each cache: the event `close:lost`,
    /// [`Stats::invalidations_lost`] and a line in the log.
    ///
    /// A second call, also a concurrent one, waits for the same end.
    ///
    /// ```
    /// use lazy_layers_cache::CacheManager;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = CacheManager::builder().build()?;
    /// let users = manager.cache::<u64, String>("users").build()?;
    ///
    /// // At the end of the service, when it takes no more requests.
    /// manager.close().await;
    /// assert!(users.health().closed);
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Once polled, the manager and its caches are closed. If the future is dropped and `close` is
    /// not called again, running loads end on their own.
    #[doc(alias = "shutdown")]
    pub async fn close(&self) {
        self.0.close();
        self.0.warn_of_unused_sections();
        let caches = self.0.live();
        let limit = self.0.defaults.close_timeout;
        join_all(caches.iter().map(|(_, cache)| cache.close_within(limit)).collect()).await;
        if let Some(bus) = self.0.bus.as_ref().filter(|_| has_timer()) {
            // mutant close-dropped: remove
            let _ = timeout(Some(limit), bus.dropped().wait_idle()).await;
        }
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.0.is_closed() { Err(Error::without_key(Cause::Closed)) } else { Ok(()) }
    }
}

fn named<V, C: Codec<V>>(codec: C) -> NamedCodec<V> {
    (Arc::new(codec), type_name::<C>())
}

impl fmt::Debug for CacheManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let caches: Vec<String> = self.0.live().into_iter().map(|(name, _)| name).collect();
        f.debug_struct("CacheManager")
            .field("instance_id", &self.0.instance_id)
            .field("event_bus", &self.0.bus)
            .field("caches", &caches)
            .finish_non_exhaustive()
    }
}
