//! What can be set about Redis Pub/Sub, and what is wrong with it.

use std::time::Duration;

use crate::error::BuildError;

/// How instances reach each other over Redis Pub/Sub: all but where the Redis is, which
/// [`RedisTransport`](crate::RedisTransport) is told.
///
/// ```
/// use lazy_layers_cache::RedisTransportOptions;
///
/// let options = RedisTransportOptions::default().channel("shop:invalidations");
/// ```
///
/// The `redis` of the TypeScript package is
/// [`RedisTransport::over`](crate::RedisTransport::over), or
/// [`publish_over`](crate::RedisTransportBuilder::publish_over). Its `retryQueue`,
/// `handlerConcurrency` and `logging` are no business of a transport.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RedisTransportOptions {
    /// Where events are published, the same on every instance. It is taken as it is: it has no
    /// pattern, no prefix, and is the same in every database of a Redis.
    /// Default: `cache:invalidations`.
    pub channel: String,
    /// How many events a subscriber may fall behind before it is told of a gap instead.
    /// Default: 10,000.
    pub queue_capacity: usize,
    /// How long it may take to connect, and to subscribe. Default: 3 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub connect_timeout: Duration,
    /// How long it may take the server to answer that it has taken an event. Default: 5 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub confirm_timeout: Duration,
    /// How often the server is asked whether it is there, on the connection of each subscription.
    /// Without an answer for one and a half times as long the subscription ends. The answer comes
    /// behind the events that were published before, so this bounds how late those are, too.
    /// Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub heartbeat: Duration,
}

impl Default for RedisTransportOptions {
    fn default() -> Self {
        Self {
            channel: "cache:invalidations".to_owned(),
            queue_capacity: 10_000,
            connect_timeout: Duration::from_secs(3),
            confirm_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_secs(1),
        }
    }
}

impl RedisTransportOptions {
    /// See the field [`channel`](Self::channel).
    #[must_use]
    pub fn channel(mut self, channel: impl Into<String>) -> Self {
        self.channel = channel.into();
        self
    }

    /// See the field [`queue_capacity`](Self::queue_capacity).
    #[must_use]
    pub fn queue_capacity(mut self, events: usize) -> Self {
        self.queue_capacity = events;
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

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let refuse = |refused: bool, option, problem: &str, fix| {
            if refused { Err(BuildError::new(option, problem, fix)) } else { Ok(()) }
        };
        refuse(
            self.channel.is_empty(),
            "channel",
            "is empty",
            "write a name, for example cache:invalidations",
        )?;
        refuse(
            self.queue_capacity == 0,
            "queue_capacity",
            "is 0, so every event would be a gap",
            "write how many events may wait, for example 10_000",
        )?;
        refuse(
            self.connect_timeout.is_zero(),
            "connect_timeout",
            "is zero, so nothing would ever connect",
            A_DURATION,
        )?;
        refuse(
            self.confirm_timeout.is_zero(),
            "confirm_timeout",
            "is zero, so every publish would fail",
            A_DURATION,
        )?;
        refuse(
            self.heartbeat < Duration::from_millis(50),
            "heartbeat",
            "is less than 50 ms, so a healthy server would count as broken",
            "write how often the server is asked, for example 1 s",
        )
    }
}

const A_DURATION: &str = "write a duration of at least 1 ms";
