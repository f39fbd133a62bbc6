//! Options of the Redis transport, and their checks.

use std::time::Duration;

use crate::{adapters::limits::check_durations, error::BuildError, options::option_group};

option_group! {
    /// Options of a [`RedisTransport`](crate::RedisTransport). Its constructors take the address.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{RedisTransport, RedisTransportOptions};
    ///
    /// let options = RedisTransportOptions::default()
    ///     .channel("shop:invalidations")
    ///     .queue_capacity(50_000)
    ///     .queue_max_bytes(64 << 20)
    ///     .connect_timeout(Duration::from_secs(2))
    ///     .confirm_timeout(Duration::from_secs(2))
    ///     .heartbeat(Duration::from_secs(1));
    /// let bus = RedisTransport::at("redis://127.0.0.1/").options(options).build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    ///
    /// The TypeScript package's option `redis` is
    /// [`RedisTransport::over`](crate::RedisTransport::over) or
    /// [`publish_over`](crate::RedisTransportBuilder::publish_over). Its `retryQueue`,
    /// `handlerConcurrency` and `logging` are not options of a transport here.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct RedisTransportOptions {
        /// The channel of all messages, the same on every instance. It is a plain name: the
        /// transport adds no prefix and Redis sees no pattern in it. A channel is the same in all
        /// databases of a Redis. Default: `cache:invalidations`.
        pub channel: String = "cache:invalidations".to_owned() => [impl Into<String>],
        /// Maximum number of received messages that wait for the subscriber. If there are more,
        /// the subscriber gets a gap instead. Default: 10,000.
        pub queue_capacity: usize = 10_000,
        /// Maximum number of bytes of the received messages that wait for the subscriber. If there
        /// are more, the subscriber gets a gap instead; so it does for each message that is larger.
        /// The client needs room beside it for the message that is arriving, up to three times its
        /// length; the server's `client-output-buffer-limit` bounds that, 32 MB by default.
        /// Default: 32 MiB.
        pub queue_max_bytes: usize as "crate::options::byte_size" = 32 << 20,
        /// Limit for connecting, and for subscribing, at most 365 days. Default: 3 s.
        pub connect_timeout: Duration as "humantime_serde" = Duration::from_secs(3),
        /// Limit for the server to confirm a published message, at most 365 days. Default: 5 s.
        pub confirm_timeout: Duration as "humantime_serde" = Duration::from_secs(5),
        /// Interval between two requests (`ROLE` or `PING`) on the connection of each subscription.
        /// If a reply takes longer than one and a half intervals, or comes from a replica, the
        /// subscription ends. The reply arrives after the messages that were published before the
        /// request, so the interval bounds their delay too. From 50 ms to 365 days. Default: 1 s.
        pub heartbeat: Duration as "humantime_serde" = Duration::from_secs(1),
    }
}

impl RedisTransportOptions {
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        BuildError::refuse_if(
            self.channel.is_empty(),
            "channel",
            "is empty",
            "write a name, for example cache:invalidations",
        )?;
        BuildError::refuse_if(
            self.queue_capacity == 0,
            "queue_capacity",
            "is 0, so every message would become a gap",
            "write how many messages may wait, for example 10_000",
        )?;
        BuildError::refuse_if(
            self.queue_max_bytes == 0,
            "queue_max_bytes",
            "is 0, so every message would become a gap",
            "write how many bytes may wait, for example 33_554_432",
        )?;
        check_durations(
            ("connect_timeout", self.connect_timeout),
            ("confirm_timeout", self.confirm_timeout),
            ("heartbeat", self.heartbeat),
        )
    }
}
