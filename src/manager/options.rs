//! The options of a manager: defaults of all caches, a section per cache, and how to reach L2 and
//! the event bus.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{bus::EventBus, error::BuildError, l2::Store, options::CacheOptions};

/// Makes the store of the cache with this name.
pub(super) type StoreOf = Arc<dyn Fn(&str) -> Result<Arc<dyn Store>, BuildError> + Send + Sync>;

/// Makes what the section `[redis]` describes.
pub(super) type MakeL2 = Arc<dyn Fn() -> Result<StoreOf, BuildError> + Send + Sync>;

/// Makes what the section `[bus]` describes.
pub(super) type MakeBus = Arc<dyn Fn() -> Result<EventBus, BuildError> + Send + Sync>;

/// The options of a [`CacheManager`](crate::CacheManager) and of all its caches.
///
/// With the feature `serde` they can be read from a configuration file, here from TOML:
///
/// ```
/// # #[cfg(feature = "serde")] {
/// use lazy_layers_cache::{CacheManager, ManagerOptions};
///
/// let options: ManagerOptions = toml::from_str(r#"
///     instance_id = "shop-1"
///
///     [redis]
///     url = "redis://:password@127.0.0.1/"
///     prefix = "shop:"
///     max_payload_bytes = "8MiB"
///
///     [bus]
///     transport = "redis"
///     channel = "shop:invalidations"
///
///     [defaults]
///     ttl = "5m"
///     l1.max_entries = 50_000
///     event_bus.trust_timeout = "2s"
///
///     [caches.users]
///     ttl = "30s"
///     l1.ttl = "5s"
///
///     [caches.prices]
///     fail_safe = { enabled = true, stale_ttl = "1h" }
/// "#)?;
///
/// let manager = CacheManager::builder().options(options).build()?;
/// let users = manager.cache::<u64, String>("users").build()?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Sections
///
/// | section | content |
/// | --- | --- |
/// | (top) | `instance_id`: the name of this process in all messages. Default: random |
/// | `[redis]` | L2, with the feature `redis`: `url`; or `cluster`, a list of URLs; or `sentinel`, a list of URLs, and `master`, the URL with the name of the master as its host. For `rediss://`, with the feature `redis-tls`, a group `tls` with `ca_file`, `client_cert` and `client_key`, PEM files. Beside it the options of `RedisOptions`; `prefix` stands before the `{name}:cache:` of each cache |
/// | `[bus]` | `transport`: `redis`, `nats`, `jetstream` or `rabbitmq`, with the feature of that name (`nats` for `jetstream`). Beside it the options of `RedisTransportOptions`, `NatsOptions`, `JetStreamOptions` or `RabbitMqOptions`. `redis` takes an address as `[redis]` does, and without one that of `[redis]`; `nats` and `jetstream` take a `url` in place of `connection.servers` |
/// | `[defaults]` | the [`CacheOptions`] of all caches, without `name` and `instance_id` |
/// | `[caches.<name>]` | options of one cache, over the defaults |
///
/// A section replaces only the options that it names, in nested groups too: above, `users` has an
/// L1 of 50,000 entries. Durations are texts such as `"5m"`, sizes in bytes numbers or texts such
/// as `"64MiB"`. An unknown name is an error that says where it is and which name is nearest. No
/// error, log line or `Debug` shows a value of `[redis]` or `[bus]`, because it may be a password.
/// Only a file that is no valid TOML is refused by its parser, whose error quotes the line: print
/// the [`message()`](https://docs.rs/toml/latest/toml/de/struct.Error.html#method.message) of a
/// `toml::de::Error` rather than the error.
///
/// Some options belong to the manager, because its caches share the parts that they are about:
/// `instance_id`, `event_dedupe`, `event_bus.trust_timeout`, `event_bus.publish_timeout`,
/// `event_bus_circuit_breaker` and `l2_circuit_breaker`. They have their place in `[defaults]`
/// (`instance_id`: at the top); in the section of a cache, or on its builder, they are an error of
/// `build()`.
///
/// # Environment variables
///
/// A crate such as `config` can lay environment variables over the file, for example
/// `SHOP__CACHES__USERS__TTL=1m` or the password of Redis; numbers and bools may therefore be texts
/// too. The example `examples/configured.rs` in the repository does so.
#[derive(Clone, Default)]
pub struct ManagerOptions {
    pub(super) instance_id: Option<String>,
    pub(super) defaults: CacheOptions,
    /// Complete options: the sections of a file are merged with its defaults.
    pub(super) caches: BTreeMap<String, CacheOptions>,
    pub(super) redis: Option<MakeL2>,
    pub(super) bus: Option<MakeBus>,
    /// The first section that sets an option of the manager.
    pub(super) misplaced: Option<BuildError>,
}

impl ManagerOptions {
    /// Returns options with these defaults, without sections. `CacheOptions` convert into them too.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{CacheOptions, ManagerOptions};
    ///
    /// let defaults = CacheOptions::default().ttl(Duration::from_secs(300));
    /// let options = ManagerOptions::new(defaults.clone());
    /// assert_eq!(options.defaults(), &defaults);
    /// ```
    #[must_use]
    pub fn new(defaults: CacheOptions) -> Self {
        Self { defaults, ..Self::default() }
    }

    /// Sets all options of the cache with this name, in place of a section and of the defaults.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{CacheManager, CacheOptions, ManagerOptions};
    ///
    /// let options = ManagerOptions::new(CacheOptions::default().ttl(Duration::from_secs(300)))
    ///     .cache("users", CacheOptions::default().ttl(Duration::from_secs(30)));
    /// let manager = CacheManager::builder().options(options).build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[must_use]
    pub fn cache(mut self, name: impl Into<String>, options: CacheOptions) -> Self {
        self.caches.insert(name.into(), options);
        self
    }

    /// Leaves out `[redis]` and `[bus]`: for tests of a service with the options of its file, but
    /// without servers.
    ///
    /// ```
    /// # #[cfg(feature = "serde")] {
    /// use std::time::Duration;
    /// use lazy_layers_cache::{CacheManager, ManagerOptions};
    ///
    /// let file = "
    ///     redis.url = 'redis://cache.example.com/'
    ///     defaults.ttl = '30s'
    /// ";
    /// let options = toml::from_str::<ManagerOptions>(file)?.without_servers();
    /// assert_eq!(options.defaults().ttl, Duration::from_secs(30));
    /// let manager = CacheManager::builder().options(options).build()?;
    /// let users = manager.cache::<u64, String>("users").build()?;
    /// assert_eq!(users.health().l2, None);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn without_servers(self) -> Self {
        Self { redis: None, bus: None, ..self }
    }

    /// Returns the options of caches without a section.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::ManagerOptions;
    ///
    /// let options = ManagerOptions::default();
    /// assert_eq!(options.defaults().ttl, Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn defaults(&self) -> &CacheOptions {
        &self.defaults
    }
}

impl From<CacheOptions> for ManagerOptions {
    fn from(defaults: CacheOptions) -> Self {
        Self::new(defaults)
    }
}

/// Leaves out how to reach Redis and the bus, since URLs may contain passwords.
impl fmt::Debug for ManagerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerOptions")
            .field("instance_id", &self.instance_id)
            .field("redis", &self.redis.is_some())
            .field("bus", &self.bus.is_some())
            .field("defaults", &self.defaults)
            .field("caches", &self.caches)
            .finish_non_exhaustive()
    }
}
