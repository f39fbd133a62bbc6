//! Builds a manager from its options, and checks those of its caches.

use std::{fmt, sync::Arc};

use super::{
    cache_manager::CacheManager,
    options::{ManagerOptions, StoreOf},
    registry::{Manager, SharedL2},
    shared_options::adopt,
};
use crate::{
    bus::EventBus,
    error::BuildError,
    l2::{ServerState, Store},
    options::CacheOptions,
    time::Clock,
};

/// Builds a [`CacheManager`]. Its methods neither panic nor connect; [`build`](Self::build) checks
/// the options.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{CacheManager, CacheOptions, LocalTransport};
///
/// let manager = CacheManager::builder()
///     .options(CacheOptions::default().ttl(Duration::from_secs(300)))
///     .instance_id("shop-1")
///     .event_bus(LocalTransport::new())
///     .build()?;
/// let users = manager.cache::<u64, String>("users").build()?;
/// # Ok::<(), lazy_layers_cache::BuildError>(())
/// ```
#[must_use = "nothing happens before build()"]
#[derive(Default)]
pub struct CacheManagerBuilder {
    options: ManagerOptions,
    instance_id: Option<String>,
    clock: Option<Arc<dyn Clock>>,
    pub(super) l2: Option<Result<StoreOf, BuildError>>,
    bus: Option<EventBus>,
}

impl CacheManager {
    /// Returns a builder without L2 and event bus, with the default options for all caches.
    ///
    /// ```
    /// use lazy_layers_cache::CacheManager;
    ///
    /// let manager = CacheManager::builder().build()?;
    /// let users = manager.cache::<u64, String>("users").build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    pub fn builder() -> CacheManagerBuilder {
        CacheManagerBuilder::default()
    }
}

impl CacheManagerBuilder {
    /// Sets the options: those of a configuration file, or `CacheOptions` as the defaults of all
    /// caches. What the other methods of the builder set replaces what a file says. Default: the
    /// default options for all caches, neither L2 nor event bus.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{CacheManager, CacheOptions, L1Options};
    ///
    /// let l1 = L1Options::default().ttl(Duration::from_secs(10));
    /// let defaults = CacheOptions::default().l1(l1);
    /// let manager = CacheManager::builder().options(defaults).build()?;
    /// let users = manager.cache::<u64, String>("users").build()?;
    /// assert_eq!(users.guarantees().max_staleness, Some(Duration::from_secs(10)));
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    pub fn options(mut self, options: impl Into<ManagerOptions>) -> Self {
        self.options = options.into();
        self
    }

    /// Sets the name of this process in the messages of all its caches. Default: that of the
    /// options, else random.
    ///
    /// ```
    /// use lazy_layers_cache::CacheManager;
    ///
    /// let manager = CacheManager::builder().instance_id("shop-1").build()?;
    /// assert_eq!(manager.health().instance_id, "shop-1");
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[doc(alias = "source")]
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.instance_id = Some(id.into());
        self
    }

    /// Adds L2 by a function that makes the store of each cache from its name, for stores of your
    /// own and for tests. (For Redis there is `redis(..)`, with the feature `redis`.) Two caches
    /// must not see each other's keys: give each a store, or a part of one, of its own. A store
    /// that implements [`Store::for_cache`] may be given to all of them. One that belongs to the
    /// caches of one name ([`Store::claim`]), as a `RedisStore` with a prefix does, refuses the
    /// second cache: its `build` is an error.
    ///
    /// All these stores count as one L2, of one server: they have one circuit breaker, and their
    /// [`connection_generation`](Store::connection_generation) must be that of one connection.
    /// `build` of a cache calls the function, which may ask the manager for other caches than this
    /// one. Default: none.
    ///
    /// ```
    /// use lazy_layers_cache::{CacheManager, testing::{SharedStore, TokioClock}};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager =
    ///     CacheManager::builder().l2(|_name| SharedStore::new(TokioClock::new())).build()?;
    /// let users = manager.cache::<u64, String>("users").build()?;
    /// # users.set(&7, "Ada".to_owned()).await?;
    /// # assert!(manager.health().shared.l2.is_some());
    /// # Ok(()) }
    /// ```
    pub fn l2<S: Store>(mut self, store: impl Fn(&str) -> S + Send + Sync + 'static) -> Self {
        self.l2 = Some(Ok(Arc::new(move |name| Ok(Arc::new(store(name))))));
        self
    }

    /// Adds the event bus of all caches ([`EventBus`] says which buses caches can share). Default:
    /// that of the options, else none.
    ///
    /// ```
    /// use lazy_layers_cache::{CacheManager, LocalTransport};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = CacheManager::builder().event_bus(LocalTransport::new()).build()?;
    /// let users = manager.cache::<u64, String>("users").build()?;
    /// manager.ready().await?;
    /// assert!(users.health().event_bus.unwrap().subscribed);
    /// # manager.close().await;
    /// # Ok(()) }
    /// ```
    pub fn event_bus(mut self, bus: impl Into<EventBus>) -> Self {
        self.bus = Some(bus.into());
        self
    }

    /// Sets the clock that measures freshness. Default: [`SystemClock`](crate::SystemClock).
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{CacheManager, testing::ManualClock};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = ManualClock::new();
    /// let manager = CacheManager::builder().clock(clock.clone()).build()?;
    /// let users = manager.cache::<u64, String>("users").build()?;
    /// users.set(&7, "Ada".to_owned()).await?;
    ///
    /// clock.advance(Duration::from_secs(61));
    /// assert!(users.get(&7).await.is_none());
    /// # Ok(()) }
    /// ```
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Builds the manager. It needs no runtime, and does not connect.
    ///
    /// # Errors
    ///
    /// An option is invalid, contradicts another one, or belongs to the manager and is set for one
    /// cache. The error names the section, the option and the fix.
    ///
    /// ```
    /// use lazy_layers_cache::{CacheManager, CacheOptions, EventBusOptions, ManagerOptions};
    /// # use std::time::Duration;
    ///
    /// let own = EventBusOptions::default().trust_timeout(Duration::from_secs(1));
    /// let options = ManagerOptions::default()
    ///     .cache("users", CacheOptions::default().event_bus(own));
    /// let refused = CacheManager::builder().options(options).build().unwrap_err();
    /// assert_eq!(refused.option(), "event_bus.trust_timeout");
    /// assert!(refused.to_string().starts_with("[caches.users]: event_bus.trust_timeout is set"));
    /// ```
    pub fn build(self) -> Result<CacheManager, BuildError> {
        let mut options = self.options;
        if let Some(misplaced) = options.misplaced.take() {
            return Err(misplaced);
        }
        let l2 = match (self.l2, options.redis.take()) {
            (Some(l2), _) => Some(l2?),
            (None, Some(redis)) => Some(redis().map_err(|error| error.at("[redis]"))?),
            (None, None) => None,
        };
        let bus = match (self.bus, options.bus.take()) {
            (Some(bus), _) => Some(bus),
            (None, Some(bus)) => Some(bus().map_err(|error| error.at("[bus]"))?),
            (None, None) => None,
        };
        let defaults = &mut options.defaults;
        let of_options = options.instance_id.take().or_else(|| defaults.instance_id.take());
        let instance_id = self
            .instance_id
            .or(of_options)
            .unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
        defaults.instance_id = Some(instance_id.clone());
        defaults.name = None;
        check(defaults, "defaults", bus.is_some()).map_err(|error| error.at("[defaults]"))?;
        for (name, own) in &mut options.caches {
            adopt(own, defaults)
                .and_then(|()| check(own, name, bus.is_some()))
                .map_err(|error| error.at(format!("[caches.{name}]")))?;
        }
        let server = || ServerState::new(&defaults.l2_circuit_breaker, true);
        let l2 = l2.map(|store_of| SharedL2 { store_of, server: Arc::new(server()) });
        let ManagerOptions { defaults, caches, .. } = options;
        Ok(CacheManager::new(Manager::new(instance_id, defaults, caches, self.clock, l2, bus)))
    }
}

/// Checks the options of caches. Only the builder of a cache knows whether it has a weigher.
fn check(options: &CacheOptions, name: &str, has_bus: bool) -> Result<(), BuildError> {
    let mut named = options.clone();
    named.name.get_or_insert_with(|| name.to_owned());
    BuildError::refuse_if(
        named.name.as_deref() != Some(name),
        "name",
        "is not that of the section",
        "leave it out: the section has the name of the cache",
    )?;
    named.check(options.l1.max_weight.is_some(), has_bus)
}

impl fmt::Debug for CacheManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheManagerBuilder")
            .field("options", &self.options)
            .field("instance_id", &self.instance_id)
            .field("event_bus", &self.bus)
            .finish_non_exhaustive()
    }
}
