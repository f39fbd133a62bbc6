//! What can be set about RabbitMQ.

use std::{fmt, time::Duration};

use crate::adapters::tls::TlsOptions;

/// How instances reach each other over RabbitMQ.
///
/// ```
/// use lazy_layers_cache::RabbitMqOptions;
///
/// // What an instance misses while it is away, it misses.
/// let passing = RabbitMqOptions::new("amqp://guest:guest@localhost:5672/%2f");
/// // RabbitMQ keeps it in a queue of the instance's own.
/// let durable = RabbitMqOptions::new("amqp://guest:guest@localhost:5672/%2f").durable("shop-1");
/// ```
///
/// The `retryQueue` and `logging` of the TypeScript package are no business of a transport.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RabbitMqOptions {
    /// Where the broker is: `amqp://user:password@host:port/vhost`, or `amqps://` for TLS.
    /// Required. Of its query `heartbeat` counts (in seconds; default: 5), a
    /// `connection_timeout` does not.
    pub url: Option<String>,
    /// Where events are published, the same on every instance. Default: `cache.invalidations`.
    pub exchange: String,
    /// How the exchange distributes. Default: fanout, to everybody.
    pub exchange_type: RabbitMqExchangeType,
    /// Turns on all that it takes to miss nothing while away: `durable`, `persistent`, a queue
    /// that is neither exclusive nor deleted automatically. Needs a `queue_name`.
    /// Default: false.
    pub durable_invalidation_mode: bool,
    /// Whether exchange and queue survive a restart of the broker.
    /// Default: as `durable_invalidation_mode`.
    pub durable: Option<bool>,
    /// Whether events are written to disk. Default: as `durable`.
    pub persistent: Option<bool>,
    /// The queue of this instance, its own for every instance: two that share one take each
    /// other's events away. Default: none, the broker makes one up for each subscription.
    pub queue_name: Option<String>,
    /// Whether the queue belongs to one connection and goes with it.
    /// Default: true, but in `durable_invalidation_mode`.
    pub exclusive_queue: Option<bool>,
    /// Whether the queue goes with its last consumer.
    /// Default: true, but in `durable_invalidation_mode`.
    pub auto_delete_queue: Option<bool>,
    /// After how long without its instance the broker deletes a queue that stays otherwise: those
    /// of instances that never come back would fill its disk. Only for a queue that is created.
    /// Default: 24 h.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub queue_expires: Duration,
    /// What events are published and received under; a fanout exchange does not look at it, the
    /// others need it. No wildcards, since events are published under it too. Default: empty.
    pub routing_key: String,
    /// How many events the broker hands out ahead of the one that is dealt with. Default: 100.
    /// No bound, the default of the TypeScript package, is refused: a subscriber who falls behind
    /// would be given the whole queue to hold in memory.
    pub prefetch: u16,
    /// TLS, and whom to trust, for `amqps://`.
    pub tls: TlsOptions,
    /// How long it may take to connect. Default: 3 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub connect_timeout: Duration,
    /// How long it may take the broker to confirm an event, or to set up a subscription.
    /// Default: 5 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub confirm_timeout: Duration,
    /// How often the broker is asked whether it and the exchange are still there, for each
    /// subscription. Without an answer for one and a half times as long the subscription ends.
    /// Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub heartbeat: Duration,
}

/// How an exchange distributes events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum RabbitMqExchangeType {
    /// To every queue.
    #[default]
    Fanout,
    /// To the queues whose pattern the routing key matches: one exchange for several caches.
    Topic,
    /// To the queues that ask for this routing key.
    Direct,
}

impl Default for RabbitMqOptions {
    fn default() -> Self {
        Self {
            url: None,
            exchange: "cache.invalidations".to_owned(),
            exchange_type: RabbitMqExchangeType::Fanout,
            durable_invalidation_mode: false,
            durable: None,
            persistent: None,
            queue_name: None,
            exclusive_queue: None,
            auto_delete_queue: None,
            queue_expires: Duration::from_secs(86_400),
            routing_key: String::new(),
            prefetch: 100,
            tls: TlsOptions::default(),
            connect_timeout: Duration::from_secs(3),
            confirm_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_secs(1),
        }
    }
}

impl RabbitMqOptions {
    /// With this address, and the other defaults.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: Some(url.into()), ..Self::default() }
    }

    /// See the field [`durable_invalidation_mode`](Self::durable_invalidation_mode), and
    /// [`queue_name`](Self::queue_name) without which it cannot be.
    #[must_use]
    pub fn durable(mut self, queue_name: impl Into<String>) -> Self {
        self.durable_invalidation_mode = true;
        self.queue_name(queue_name)
    }

    /// See the field [`exchange`](Self::exchange).
    #[must_use]
    pub fn exchange(mut self, name: impl Into<String>) -> Self {
        self.exchange = name.into();
        self
    }

    /// See the field [`exchange_type`](Self::exchange_type), and
    /// [`routing_key`](Self::routing_key) which all but fanout need.
    #[must_use]
    pub fn exchange_type(
        mut self,
        exchange_type: RabbitMqExchangeType,
        routing_key: impl Into<String>,
    ) -> Self {
        self.exchange_type = exchange_type;
        self.routing_key = routing_key.into();
        self
    }

    /// See the field [`queue_name`](Self::queue_name).
    #[must_use]
    pub fn queue_name(mut self, name: impl Into<String>) -> Self {
        self.queue_name = Some(name.into());
        self
    }

    /// See the field [`exclusive_queue`](Self::exclusive_queue).
    #[must_use]
    pub fn exclusive_queue(mut self, exclusive: bool) -> Self {
        self.exclusive_queue = Some(exclusive);
        self
    }

    /// See the field [`auto_delete_queue`](Self::auto_delete_queue).
    #[must_use]
    pub fn auto_delete_queue(mut self, auto_delete: bool) -> Self {
        self.auto_delete_queue = Some(auto_delete);
        self
    }

    /// See the field [`queue_expires`](Self::queue_expires).
    #[must_use]
    pub fn queue_expires(mut self, after: Duration) -> Self {
        self.queue_expires = after;
        self
    }

    /// See the field [`persistent`](Self::persistent).
    #[must_use]
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = Some(persistent);
        self
    }

    /// See the field [`prefetch`](Self::prefetch).
    #[must_use]
    pub fn prefetch(mut self, events: u16) -> Self {
        self.prefetch = events;
        self
    }

    /// See the field [`tls`](Self::tls).
    #[must_use]
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.tls = tls;
        self
    }

    /// See the field [`connect_timeout`](Self::connect_timeout).
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// See the field [`confirm_timeout`](Self::confirm_timeout).
    #[must_use]
    pub fn confirm_timeout(mut self, limit: Duration) -> Self {
        self.confirm_timeout = limit;
        self
    }

    /// See the field [`heartbeat`](Self::heartbeat).
    #[must_use]
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every;
        self
    }
}

/// Without what is secret, which is in the address.
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
            .field("tls", &self.tls)
            .field("connect_timeout", &self.connect_timeout)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("heartbeat", &self.heartbeat)
            .finish_non_exhaustive()
    }
}
