//! The options of RabbitMQ.

use std::{fmt, time::Duration};

use crate::{adapters::tls::TlsOptions, options::option_group};

option_group! {
    /// Options of [`RabbitMqTransport`](crate::RabbitMqTransport).
    ///
    /// ```
    /// use lazy_layers_cache::RabbitMqOptions;
    ///
    /// let url = "amqp://guest:guest@localhost:5672/%2f";
    /// // A disconnected instance misses messages.
    /// let transient = RabbitMqOptions::new(url);
    /// // RabbitMQ keeps them in a queue of the instance.
    /// let durable = RabbitMqOptions::new(url).durable_queue("shop-1");
    /// ```
    ///
    /// With all options:
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{
    ///     RabbitMqExchangeType, RabbitMqOptions, RabbitMqTransport, TlsOptions,
    /// };
    ///
    /// let options = RabbitMqOptions::default()
    ///     .url("amqp://guest:guest@localhost:5672/%2f")
    ///     .exchange("shop.invalidations")
    ///     .exchange_type(RabbitMqExchangeType::Topic)
    ///     .routing_key("shop.cache")
    ///     .durable_invalidation_mode(true)
    ///     .queue_name("shop-1-cache")
    ///     .queue_expires(Duration::from_secs(86_400))
    ///     .prefetch(50)
    ///     .queue_max_bytes(64 << 20)
    ///     .tls(TlsOptions::default())
    ///     .connect_timeout(Duration::from_secs(2))
    ///     .confirm_timeout(Duration::from_secs(2))
    ///     .heartbeat(Duration::from_secs(1));
    /// let bus = RabbitMqTransport::new(options)?;
    ///
    /// // Interop only: what `durable_invalidation_mode` sets, one by one.
    /// let options = RabbitMqOptions::default()
    ///     .durable(true)
    ///     .persistent(true)
    ///     .exclusive_queue(false)
    ///     .auto_delete_queue(false);
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    ///
    /// The options `retryQueue` and `logging` of the TypeScript package have no counterpart here:
    /// the cache retries and reports.
    #[derive(Clone, PartialEq, Eq)]
    pub struct RabbitMqOptions {
        /// The broker: `amqp://user:password@host:port/vhost`, or `amqps://` for TLS. Required. It
        /// means what amqplib takes it for: an empty vhost is `/`, without user and password both
        /// are `guest`. Of its parameters `heartbeat` (in seconds, default: 5), `channelMax`,
        /// `frameMax` (in bytes, at most 1 MiB), `locale`, `auth_mechanism` and
        /// `connection_timeout` (in milliseconds, instead of `connect_timeout`) apply. Any other
        /// one is refused.
        pub url: Option<String> = None => [Some(impl Into<String>)],
        /// The exchange of all messages, the same on every instance.
        /// Default: `cache.invalidations`.
        pub exchange: String = "cache.invalidations".to_owned() => [impl Into<String>],
        /// How the exchange routes messages to queues. Default: fanout, to every queue.
        pub exchange_type: RabbitMqExchangeType = RabbitMqExchangeType::Fanout,
        /// Keeps the messages of a disconnected instance: it sets `durable` and `persistent`, and
        /// clears `exclusive_queue` and `auto_delete_queue`. Needs `queue_name`. Default: false.
        pub durable_invalidation_mode: bool = false,
        /// Interop only, see `durable_invalidation_mode`: whether exchange and queue survive a
        /// restart of the broker. Default: as `durable_invalidation_mode`.
        pub durable: Option<bool> = None => [bool],
        /// Interop only, see `durable_invalidation_mode`: whether messages are written to disk.
        /// Default: as `durable`.
        pub persistent: Option<bool> = None => [bool],
        /// The queue of this instance, different on every instance: two instances with one queue
        /// would each receive only a part of the messages. Default: none, the broker names a new
        /// queue for each subscription.
        pub queue_name: Option<String> = None => [Some(impl Into<String>)],
        /// Interop only, see `durable_invalidation_mode`: whether the queue is deleted with its
        /// connection. Default: the opposite of `durable_invalidation_mode`.
        pub exclusive_queue: Option<bool> = None => [bool],
        /// Interop only, see `durable_invalidation_mode`: whether the queue is deleted with its
        /// last consumer. Default: the opposite of `durable_invalidation_mode`.
        pub auto_delete_queue: Option<bool> = None => [bool],
        /// How long the broker keeps the queue of a disconnected instance, from one minute to 49
        /// days. It becomes an argument of the queue (`x-expires`), which every instance that
        /// declares the queue must then repeat: those of the TypeScript package cannot. Default:
        /// none. Without a limit, the queues of instances that never come back fill the disk of the
        /// broker, so set a policy there, which also bounds the length:
        ///
        /// ```text
        /// rabbitmqctl set_policy caches '-cache$' --apply-to queues \
        ///     '{"expires":86400000,"max-length-bytes":1073741824}'
        /// ```
        ///
        /// The pattern matches the names of the queues, here `shop-1-cache`. A queue that exceeds
        /// the length drops its oldest messages. The next message or beacon of their publishers
        /// shows the cache that they are missing: it marks L1 untrusted. With
        /// `"overflow":"reject-publish"` the queue of one absent instance would make every publish
        /// fail.
        pub queue_expires: Option<Duration> as "humantime_serde::option" = None => [Duration],
        /// The routing key of published messages and of the binding, so without wildcards. A fanout
        /// exchange ignores it, the other types need it. Default: empty.
        pub routing_key: String = String::new() => [impl Into<String>],
        /// How many unacknowledged messages the broker delivers ahead, at most one for each MiB of
        /// `queue_max_bytes`. Default: 100, of which the default of `queue_max_bytes` leaves 32.
        /// Zero, no bound and the default of the TypeScript package, is refused: a slow subscriber
        /// would have to hold the whole queue in memory.
        pub prefetch: u16 = 100,
        /// How many bytes of received messages may wait in memory until the subscriber processes
        /// them, at least 64 KiB. Larger messages are skipped with a gap. Default: 32 MiB.
        pub queue_max_bytes: usize as "crate::options::byte_size" = 32 << 20,
        /// TLS for `amqps://`, and the certificates to trust.
        pub tls: TlsOptions = TlsOptions::default(),
        /// The time limit to connect, at most 365 days. Default: 3 s.
        pub connect_timeout: Duration as "humantime_serde" = Duration::from_secs(3),
        /// The time limit to confirm a message, and to set up a subscription, at most 365 days.
        /// Default: 5 s.
        pub confirm_timeout: Duration as "humantime_serde" = Duration::from_secs(5),
        /// The interval at which each subscription asks whether the exchange still exists. Without
        /// an answer within one and a half intervals the subscription ends. From 50 ms to 365 days.
        /// Default: 1 s.
        pub heartbeat: Duration as "humantime_serde" = Duration::from_secs(1),
    }
}

/// How an exchange routes messages to queues.
///
/// ```
/// use lazy_layers_cache::{RabbitMqExchangeType, RabbitMqOptions};
///
/// let options = RabbitMqOptions::new("amqp://127.0.0.1:5672/%2f")
///     .exchange_type(RabbitMqExchangeType::Topic)
///     .routing_key("shop.cache");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum RabbitMqExchangeType {
    /// To every queue.
    #[default]
    Fanout,
    /// To the queues whose pattern matches the routing key. Caches can share such an exchange.
    Topic,
    /// To the queues that are bound with the routing key.
    Direct,
}

impl RabbitMqOptions {
    /// The default options with this [`url`](Self#structfield.url).
    ///
    /// ```
    /// use lazy_layers_cache::RabbitMqOptions;
    ///
    /// let options = RabbitMqOptions::new("amqp://guest:guest@127.0.0.1:5672/%2f");
    /// ```
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self::default().url(url)
    }

    /// Sets [`durable_invalidation_mode`](Self#structfield.durable_invalidation_mode) and
    /// [`queue_name`](Self#structfield.queue_name), which the mode needs.
    ///
    /// ```
    /// use lazy_layers_cache::RabbitMqOptions;
    ///
    /// // The name of the queue: another one on every instance, the same after a restart.
    /// let url = "amqp://127.0.0.1:5672/%2f";
    /// let options = RabbitMqOptions::new(url).durable_queue("shop-1-cache");
    /// assert!(options.durable_invalidation_mode);
    /// ```
    #[must_use]
    pub fn durable_queue(self, name: impl Into<String>) -> Self {
        self.durable_invalidation_mode(true).queue_name(name)
    }
}

/// Leaves out the URL, which may contain a password.
impl fmt::Debug for RabbitMqOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqOptions")
            .field("exchange", &self.exchange)
            .field("exchange_type", &self.exchange_type)
            .field("durable_invalidation_mode", &self.durable_invalidation_mode)
            .field("durable", &self.durable)
            .field("persistent", &self.persistent)
            .field("queue_name", &self.queue_name)
            .field("exclusive_queue", &self.exclusive_queue)
            .field("auto_delete_queue", &self.auto_delete_queue)
            .field("queue_expires", &self.queue_expires)
            .field("routing_key", &self.routing_key)
            .field("prefetch", &self.prefetch)
            .field("queue_max_bytes", &self.queue_max_bytes)
            .field("tls", &self.tls)
            .field("connect_timeout", &self.connect_timeout)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("heartbeat", &self.heartbeat)
            .finish_non_exhaustive()
    }
}
