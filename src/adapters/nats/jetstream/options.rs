//! What can be set about JetStream, and what is wrong with it.

use std::time::Duration;

use crate::{
    adapters::nats::options::{NatsConnection, SUBJECT, check_subject},
    error::BuildError,
};

/// How instances reach each other over NATS JetStream.
///
/// ```
/// use lazy_layers_cache::JetStreamOptions;
///
/// let options = JetStreamOptions::durable("shop-1-cache");
/// ```
///
/// What the TypeScript package calls `connection` is
/// [`JetStreamTransport::with_client`](crate::JetStreamTransport::with_client). Its `retryQueue`
/// and `logging` are no business of a transport.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct JetStreamOptions {
    /// How to connect.
    pub connection: NatsConnection,
    /// Where events are published, the same on every instance. No wildcards.
    /// Default: `cache.invalidations`.
    pub subject: String,
    /// The stream that keeps them. It is to carry nothing else: what another subject put between
    /// two events looks like a lost one. Default: `CACHE_INVALIDATIONS`.
    pub stream: String,
    /// The name under which the server remembers how far this instance has come. Required, and
    /// its own for every instance: two that share one take each other's events away.
    pub durable_name: Option<String>,
    /// Where a stream that is created keeps events. Default: in files.
    pub storage: JetStreamStorage,
    /// How long a stream that is created keeps an event. Default: none, for ever.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde::option"))]
    pub max_age: Option<Duration>,
    /// How many events a stream that is created keeps; more push out the oldest.
    /// Default: none, no bound.
    pub max_messages: Option<u64>,
    /// On how many servers a stream that is created is kept, 1 to 5. Default: 1.
    pub replicas: usize,
    /// How long the server waits for an event to be dealt with before it brings it again.
    /// Default: 30 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ack_wait: Duration,
    /// How often the server brings an event that is not dealt with. Then it gives up, which is
    /// told as a gap. Default: 10.
    pub max_deliver: u32,
    /// How many events the server hands out ahead of the one that is dealt with. Default: 200.
    pub prefetch: u16,
    /// After how long without its instance the server forgets the durable name. Set it where
    /// names are not used again, or they pile up. Default: none, never.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde::option"))]
    pub inactive_threshold: Option<Duration>,
    /// Creates the stream where there is none. One that exists is left as it is. Default: true.
    pub ensure_stream: bool,
    /// Creates the durable consumer, and again at each subscribe, so that it goes on exactly
    /// where this instance has come to. Without it a consumer that was set up elsewhere is used,
    /// which brings unfinished events only after its own `ack_wait`. Default: true.
    pub ensure_consumer: bool,
}

/// Where a stream keeps events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum JetStreamStorage {
    /// In files, which survive a restart of the server. By default it syncs them to the disk
    /// every two minutes.
    #[default]
    File,
    /// In memory: faster, and lost with the server.
    Memory,
}

impl Default for JetStreamOptions {
    fn default() -> Self {
        Self {
            connection: NatsConnection::default(),
            subject: SUBJECT.to_owned(),
            stream: "CACHE_INVALIDATIONS".to_owned(),
            durable_name: None,
            storage: JetStreamStorage::File,
            max_age: None,
            max_messages: None,
            replicas: 1,
            ack_wait: Duration::from_secs(30),
            max_deliver: 10,
            prefetch: 200,
            inactive_threshold: None,
            ensure_stream: true,
            ensure_consumer: true,
        }
    }
}

impl JetStreamOptions {
    /// With this durable name, see [`durable_name`](Self::durable_name), and the other defaults.
    #[must_use]
    pub fn durable(name: impl Into<String>) -> Self {
        Self { durable_name: Some(name.into()), ..Self::default() }
    }

    /// See the field [`connection`](Self::connection).
    #[must_use]
    pub fn connection(mut self, connection: NatsConnection) -> Self {
        self.connection = connection;
        self
    }

    /// See the field [`subject`](Self::subject).
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// See the field [`stream`](Self::stream).
    #[must_use]
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.stream = name.into();
        self
    }

    /// See the field [`storage`](Self::storage).
    #[must_use]
    pub fn storage(mut self, storage: JetStreamStorage) -> Self {
        self.storage = storage;
        self
    }

    /// See the field [`max_age`](Self::max_age).
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// See the field [`max_messages`](Self::max_messages).
    #[must_use]
    pub fn max_messages(mut self, events: u64) -> Self {
        self.max_messages = Some(events);
        self
    }

    /// See the field [`replicas`](Self::replicas).
    #[must_use]
    pub fn replicas(mut self, servers: usize) -> Self {
        self.replicas = servers;
        self
    }

    /// See the field [`ack_wait`](Self::ack_wait).
    #[must_use]
    pub fn ack_wait(mut self, wait: Duration) -> Self {
        self.ack_wait = wait;
        self
    }

    /// See the field [`max_deliver`](Self::max_deliver).
    #[must_use]
    pub fn max_deliver(mut self, times: u32) -> Self {
        self.max_deliver = times;
        self
    }

    /// See the field [`prefetch`](Self::prefetch).
    #[must_use]
    pub fn prefetch(mut self, events: u16) -> Self {
        self.prefetch = events;
        self
    }

    /// See the field [`inactive_threshold`](Self::inactive_threshold).
    #[must_use]
    pub fn inactive_threshold(mut self, threshold: Duration) -> Self {
        self.inactive_threshold = Some(threshold);
        self
    }

    /// See the field [`ensure_stream`](Self::ensure_stream).
    #[must_use]
    pub fn ensure_stream(mut self, ensure: bool) -> Self {
        self.ensure_stream = ensure;
        self
    }

    /// See the field [`ensure_consumer`](Self::ensure_consumer).
    #[must_use]
    pub fn ensure_consumer(mut self, ensure: bool) -> Self {
        self.ensure_consumer = ensure;
        self
    }

    /// The durable name, if nothing is wrong.
    pub(crate) fn check(&self) -> Result<String, BuildError> {
        let refuse = |refused: bool, option, problem: &str, fix| {
            if refused { Err(BuildError::new(option, problem, fix)) } else { Ok(()) }
        };
        self.connection.check()?;
        check_subject(&self.subject)?;
        refuse(!is_name(&self.stream), "stream", "is no name of a stream", A_NAME)?;
        let Some(durable_name) = &self.durable_name else {
            return Err(BuildError::new(
                "durable_name",
                "is missing, so the server could not remember how far this instance has come",
                "write one that no other instance has, for example JetStreamOptions::durable(..) \
                 of the instance's id and \"-cache\"",
            ));
        };
        refuse(!is_name(durable_name), "durable_name", "is no name of a consumer", A_NAME)?;
        refuse(
            self.max_age.is_some_and(|age| age < Duration::from_millis(100)),
            "max_age",
            "is less than 100 ms, which no server takes",
            "write how long events are kept, for example 24 h",
        )?;
        refuse(
            self.max_messages
                .is_some_and(|events| i64::try_from(events).map_or(true, |it| it == 0)),
            "max_messages",
            "is not from 1 to 2^63 - 1",
            "write how many events are kept, or leave it away for no bound",
        )?;
        refuse(
            !(1..=5).contains(&self.replicas),
            "replicas",
            "is not from 1 to 5",
            "write an odd number up to the count of servers, for example 3",
        )?;
        refuse(
            self.ack_wait < Duration::from_millis(100),
            "ack_wait",
            "is less than 100 ms, so the server would bring events again that are being dealt with",
            "write how long that may take, for example 30 s",
        )?;
        refuse(
            self.max_deliver == 0,
            "max_deliver",
            "is 0, so nothing would be brought",
            "write how often an event is brought, for example 10",
        )?;
        refuse(
            self.prefetch == 0,
            "prefetch",
            "is 0, so nothing would be brought",
            "write how many events are handed out ahead, for example 200",
        )?;
        refuse(
            self.inactive_threshold.is_some_and(|threshold| threshold < Duration::from_secs(10)),
            "inactive_threshold",
            "is less than 10 s, so a short break would lose events",
            "write how long an instance may be away, for example 24 h",
        )?;
        Ok(durable_name.clone())
    }
}

/// Names become words of subjects, and names of files.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.contains(|it: char| it.is_whitespace() || it.is_control() || ".*>/\\".contains(it))
}

const A_NAME: &str = "write up to 255 characters without blanks and `. * > / \\`";
