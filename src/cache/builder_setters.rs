//! The setters of the builder of a cache: its name, all options at once, and the parts that no
//! configuration file can carry.

use std::sync::Arc;

use super::builder::{BuilderBus, CacheBuilder};
use crate::{bus::EventBus, codec::Codec, l2::Store, options::CacheOptions, time::Clock};

impl<K: ?Sized, V: Send + Sync + 'static> CacheBuilder<K, V> {
    /// Sets the name of the cache, the same on all its instances: the namespace of its messages on
    /// the event bus, and the start of its keys in Redis. [`CacheOptions::name`] has the rules.
    /// Required with an event bus. Default: none.
    ///
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// let names = LazyLayersCache::<u64, String>::builder().name("users").build()?;
    /// assert_eq!(names.health().name.as_deref(), Some("users"));
    ///
    /// let refused = LazyLayersCache::<u64, String>::builder().name("all users").build();
    /// assert_eq!(refused.unwrap_err().option(), "name");
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[doc(alias = "namespace")]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = Some(name.into());
        self
    }

    /// Replaces all options, the name too, for example by those of a config file. So call the
    /// setters of single options after it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{CacheOptions, LazyLayersCache};
    ///
    /// let from_file = CacheOptions::default().name("users").ttl(Duration::from_secs(300));
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .options(from_file)
    ///     .ttl_jitter(0.1)
    ///     .build()?;
    /// assert_eq!(names.health().name.as_deref(), Some("users"));
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    pub fn options(mut self, options: CacheOptions) -> Self {
        self.options = options;
        self
    }

    /// Disables L1. Callers then share the loads that run at the same time, and L2.
    ///
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let names = LazyLayersCache::<u64, String>::builder().without_l1().build()?;
    /// names.set(&7, "Ada".to_owned()).await?;
    /// assert!(names.get(&7).await.is_none(), "there is no L2 either");
    /// # Ok(()) }
    /// ```
    pub fn without_l1(mut self) -> Self {
        self.options.l1.enabled = false;
        self
    }

    /// Adds L2, the store that instances share, and the codec of its values. Default: none.
    ///
    /// Caches with different [names](Self::name) may share a `RedisStore` that has no prefix of its
    /// own. If it has one, `build` refuses a cache with another name than the first, or with none:
    /// their keys would be the same. Caches of one name share all keys, as instances of one cache
    /// do, and so do caches without a name.
    ///
    /// `build` does not connect. While L2 does not answer, the cache works without it.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, SystemClock, WireCodec, testing::SharedStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // A `RedisStore` in production; this one is shared by the caches of a test.
    /// let store = SharedStore::new(SystemClock);
    /// let instance = || {
    ///     LazyLayersCache::<u64, String>::builder().l2(store.clone(), WireCodec::new()).build()
    /// };
    /// let (one, other) = (instance()?, instance()?);
    /// one.set(&7, "Ada".to_owned()).await?;
    /// assert_eq!(other.get(&7).await.unwrap().as_str(), "Ada");
    /// # Ok(()) }
    /// ```
    pub fn l2(mut self, store: impl Store, codec: impl Codec<V>) -> Self {
        self.l2 = Some((Arc::new(store), Arc::new(codec)));
        self
    }

    /// Adds the event bus, over which instances send each other invalidations and values, and the
    /// codec of those values (usually the `WireCodec`). The cache then needs a
    /// [`name`](Self::name): caches with different names can share a channel. Default: none.
    ///
    /// `build` does not connect. The cache subscribes when the first call leaves L1, or when
    /// [`ready`](crate::LazyLayersCache::ready) is called.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, LocalTransport, WireCodec};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // A `RedisTransport`, say, in production; this one connects the caches of a process.
    /// let bus = LocalTransport::new();
    /// let instance = || {
    ///     LazyLayersCache::<u64, String>::builder()
    ///         .name("users")
    ///         .event_bus(bus.clone(), WireCodec::new())
    ///         .build()
    /// };
    /// let (one, other) = (instance()?, instance()?);
    /// one.ready().await?;
    /// other.ready().await?;
    ///
    /// other.set(&7, "Ada".to_owned()).await?;
    ///
    /// one.delete(&7).await?;
    /// # let wait = async { while other.has(&7).await { tokio::task::yield_now().await; } };
    /// # tokio::time::timeout(std::time::Duration::from_secs(10), wait).await?;
    /// // A moment later, the other instance has deleted the key too.
    /// assert!(!other.has(&7).await);
    /// # one.close().await;
    /// # other.close().await;
    /// # Ok(()) }
    /// ```
    pub fn event_bus(mut self, bus: impl Into<EventBus>, codec: impl Codec<V>) -> Self {
        self.bus = Some((BuilderBus::Alone(bus.into()), Arc::new(codec)));
        self
    }

    /// Sets the name of this instance in its messages. Default: random for each cache; that of the
    /// manager, if a manager builds the cache.
    ///
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// let host = "shop-1";
    /// let names = LazyLayersCache::<u64, String>::builder().instance_id(host).build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[doc(alias = "source")]
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.options.instance_id = Some(id.into());
        self
    }

    /// Sets how many bytes an encoded value that is sent to the peers may have. Default: no limit.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, LocalTransport, WireCodec};
    ///
    /// // A NATS server refuses messages of more than 1 MiB by default.
    /// let pages = LazyLayersCache::<str, String>::builder()
    ///     .name("pages")
    ///     .event_bus(LocalTransport::new(), WireCodec::new())
    ///     .broadcast_set_max_bytes(512 << 10)
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    pub fn broadcast_set_max_bytes(mut self, bytes: usize) -> Self {
        self.options.broadcast_set_max_bytes = Some(bytes);
        self
    }

    /// Sets the function that weighs an entry, for
    /// [`L1Options::max_weight`](crate::L1Options::max_weight). The cache calls it once per stored
    /// value, never under a lock. A weight of 0 counts as 1; if the function panics, L1 does not
    /// store the value. Default: none.
    ///
    /// ```
    /// use lazy_layers_cache::{L1Options, LazyLayersCache};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // At most 64 MiB of text, in bytes of UTF-8.
    /// let pages = LazyLayersCache::<str, String>::builder()
    ///     .l1(L1Options::default().max_weight(64 << 20))
    ///     .weigher(|key: &str, page: &String| (key.len() + page.len()) as u64)
    ///     .build()?;
    ///
    /// pages.set("home", "<html>".to_owned()).await?;
    /// assert_eq!(pages.stats().l1_weight, 10);
    /// # Ok(()) }
    /// ```
    pub fn weigher(mut self, weigher: impl Fn(&str, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// Sets the clock that measures freshness. Default: [`SystemClock`](crate::SystemClock).
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{LazyLayersCache, testing::ManualClock};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = ManualClock::new();
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .ttl(Duration::from_secs(60))
    ///     .clock(clock.clone())
    ///     .build()?;
    /// names.set(&7, "Ada".to_owned()).await?;
    ///
    /// clock.advance(Duration::from_secs(61));
    /// assert!(names.get(&7).await.is_none());
    /// # Ok(()) }
    /// ```
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }
}
