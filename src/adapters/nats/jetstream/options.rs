//! The options of JetStream and their checks.

use std::time::Duration;

use crate::{
    adapters::{
        limits::{check_longest, check_longest_or},
        nats::options::{
            NatsConnection, QUEUE_MAX_BYTES, SUBJECT, check_queue_max_bytes, check_subject,
        },
    },
    error::BuildError,
    options::option_group,
};

option_group! {
    /// Options of [`JetStreamTransport`](crate::JetStreamTransport).
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{
    ///     JetStreamOptions, JetStreamStorage, JetStreamTransport, NatsConnection,
    /// };
    ///
    /// // Enough for most services:
    /// let options = JetStreamOptions::durable("shop-1-cache");
    ///
    /// // With all options:
    /// let options = JetStreamOptions::default()
    ///     .connection(NatsConnection::default().servers(["nats://nats-1:4222"]))
    ///     .subject("shop.invalidations")
    ///     .stream("SHOP_INVALIDATIONS")
    ///     .durable_name("shop-1-cache")
    ///     .storage(JetStreamStorage::File)
    ///     .max_age(Duration::from_secs(86_400))
    ///     .max_messages(1_000_000)
    ///     .replicas(3)
    ///     .ack_wait(Duration::from_secs(30))
    ///     .max_deliver(10)
    ///     .prefetch(200)
    ///     .queue_max_bytes(64 << 20)
    ///     .inactive_threshold(Duration::from_secs(3_600))
    ///     .ensure_stream(true)
    ///     .ensure_consumer(true);
    /// let bus = JetStreamTransport::new(options)?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    ///
    /// [`NatsOptions`](crate::NatsOptions) lists the differences from the TypeScript package.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct JetStreamOptions {
        /// The server, and how to authenticate.
        pub connection: NatsConnection = NatsConnection::default(),
        /// The subject of all messages, the same on every instance, without wildcards.
        /// Default: `cache.invalidations`.
        pub subject: String = SUBJECT.to_owned() => [impl Into<String>],
        /// The stream that stores the messages. It must have no other subject: a message of another
        /// subject between two of ours would look like a lost one.
        /// Default: `CACHE_INVALIDATIONS`.
        pub stream: String = "CACHE_INVALIDATIONS".to_owned() => [impl Into<String>],
        /// The name of the consumer by which the server remembers the position of this instance.
        /// Required, and different on every instance: two instances with one name would each
        /// receive only a part of the messages.
        pub durable_name: Option<String> = None => [Some(impl Into<String>)],
        /// Where a stream that this transport creates is stored. Default: in files.
        pub storage: JetStreamStorage = JetStreamStorage::File,
        /// How long a stream that this transport creates keeps a message, from 100 ms to 365 days.
        /// Default: none, for ever.
        pub max_age: Option<Duration> as "humantime_serde::option" = None => [Duration],
        /// How many messages a stream that this transport creates keeps; then it removes the
        /// oldest. Default: none, no bound.
        pub max_messages: Option<u64> = None => [u64],
        /// How many servers, 1 to 5, store a stream that this transport creates. Default: 1.
        pub replicas: usize = 1,
        /// After how long the server redelivers an unacknowledged message, from 100 ms to 365 days.
        /// Default: 30 s.
        pub ack_wait: Duration as "humantime_serde" = Duration::from_secs(30),
        /// How often the server delivers a message that is not acknowledged. After that, the
        /// message is lost, and the subscriber receives a gap. Default: 10.
        pub max_deliver: u32 = 10,
        /// How many unacknowledged messages the server delivers ahead. Default: 200.
        pub prefetch: u16 = 200,
        /// How many bytes of messages the client requests ahead, at least one and a half times the
        /// largest message that the server accepts. Default: 32 MiB (33,554,432).
        pub queue_max_bytes: usize as "crate::options::byte_size" = QUEUE_MAX_BYTES,
        /// How long the server keeps the consumer of a disconnected instance. An instance that
        /// comes back later resumes all the same if its process still runs, because it knows its
        /// position; a new process then starts at the end of the stream. Zero: for ever, so the
        /// consumers of names that are not used again accumulate. Else from 10 s to 365 days.
        /// Default: 24 h.
        pub inactive_threshold: Duration as "humantime_serde" = Duration::from_secs(86_400),
        /// Creates the stream if it does not exist; an existing one is not changed. Default: true.
        pub ensure_stream: bool = true,
        /// Interop only: false uses a consumer that somebody else has created. The server then
        /// delivers the messages that a subscription left unacknowledged only after the consumer's
        /// own `ack_wait`. True creates the consumer at each subscribe, exactly where this instance
        /// stopped. Default: true.
        pub ensure_consumer: bool = true,
    }
}

/// Where a stream is stored.
///
/// ```
/// use lazy_layers_cache::{JetStreamOptions, JetStreamStorage};
///
/// let options = JetStreamOptions::durable("shop-1-cache").storage(JetStreamStorage::Memory);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum JetStreamStorage {
    /// In files, which survive a restart of the server.
    #[default]
    File,
    /// In memory: faster, and lost with the server.
    Memory,
}

impl JetStreamOptions {
    /// The default options with this [`durable_name`](Self#structfield.durable_name).
    ///
    /// ```
    /// use lazy_layers_cache::JetStreamOptions;
    ///
    /// let options = JetStreamOptions::durable("shop-1-cache");
    /// assert_eq!(options.durable_name.as_deref(), Some("shop-1-cache"));
    /// ```
    #[must_use]
    pub fn durable(name: impl Into<String>) -> Self {
        Self::default().durable_name(name)
    }

    /// Returns the durable name if all options are valid.
    pub(crate) fn check(&self) -> Result<String, BuildError> {
        self.connection.check()?;
        check_subject(&self.subject)?;
        check_name(&self.stream, "stream", "is not a valid name of a stream")?;
        let Some(durable_name) = &self.durable_name else {
            return Err(BuildError::new(
                "durable_name",
                "is missing, so the server could not remember the position of this instance",
                "write a name that no other instance has, for example \
                 JetStreamOptions::durable(..) of the instance's id and \"-cache\"",
            ));
        };
        check_name(durable_name, "durable_name", "is not a valid name of a consumer")?;
        BuildError::refuse_if(
            self.max_age.is_some_and(|age| age < Duration::from_millis(100)),
            "max_age",
            "is less than 100 ms, which the server refuses",
            "write how long messages are kept, for example 24 h",
        )?;
        check_longest_or(
            "max_age",
            self.max_age.unwrap_or_default(),
            "write at most 365 days, or leave it out for no limit",
        )?;
        BuildError::refuse_if(
            self.max_messages.is_some_and(|max| i64::try_from(max).map_or(true, |it| it == 0)),
            "max_messages",
            "is not from 1 to 2^63 - 1",
            "write how many messages are kept, or leave it out for no bound",
        )?;
        BuildError::refuse_if(
            !(1..=5).contains(&self.replicas),
            "replicas",
            "is not from 1 to 5",
            "write an odd number up to the number of servers, for example 3",
        )?;
        BuildError::refuse_if(
            self.ack_wait < Duration::from_millis(100),
            "ack_wait",
            "is less than 100 ms, so the server would redeliver messages that are being processed",
            "write how long processing may take, for example 30 s",
        )?;
        check_longest(("ack_wait", self.ack_wait))?;
        BuildError::refuse_if(
            self.max_deliver == 0,
            "max_deliver",
            "is 0, so no message would be delivered",
            "write how often a message is delivered, for example 10",
        )?;
        BuildError::refuse_if(
            self.prefetch == 0,
            "prefetch",
            "is 0, so no message would be delivered",
            "write how many messages are delivered ahead, for example 200",
        )?;
        BuildError::refuse_if(
            (1..10_000).contains(&self.inactive_threshold.as_millis()),
            "inactive_threshold",
            "is less than 10 s, so a short disconnect would lose messages",
            "write how long an instance may be disconnected, for example 24 h, or 0 s for ever",
        )?;
        check_longest_or(
            "inactive_threshold",
            self.inactive_threshold,
            "write at most 365 days, or 0 s for ever",
        )?;
        check_queue_max_bytes(self.queue_max_bytes)?;
        Ok(durable_name.clone())
    }
}

/// Accepts names that can be tokens of subjects and names of files.
fn check_name(name: &str, option: &'static str, problem: &str) -> Result<(), BuildError> {
    let is_special = |it: char| it.is_whitespace() || it.is_control() || ".*>/\\".contains(it);
    BuildError::refuse_if(
        !(1..=255).contains(&name.len()) || name.contains(is_special),
        option,
        problem,
        "write up to 255 bytes without whitespace and `. * > / \\`",
    )
}
