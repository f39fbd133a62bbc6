//! The groups of options that concern the bus.

use std::time::Duration;

use crate::error::BuildError;

/// Remembering which events were here before: durable buses deliver again what was not confirmed,
/// and a publish whose outcome is not known is made again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct EventDedupe {
    /// How many events are remembered; 0 for none. An event that is forgotten and comes again is
    /// applied again. Default: 10,000.
    pub max_entries: usize,
    /// For how long. Should be longer than a bus takes to deliver again. Default: 300 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ttl: Duration,
}

impl Default for EventDedupe {
    fn default() -> Self {
        Self { max_entries: 10_000, ttl: Duration::from_secs(300) }
    }
}

impl EventDedupe {
    /// See the field [`max_entries`](Self::max_entries).
    #[must_use]
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }

    /// See the field [`ttl`](Self::ttl).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }
}

/// How events travel, and how their loss is dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct EventBusOptions {
    /// Which caches of those that share a bus belong together: events of another namespace are
    /// passed over. Events without one are everybody's. Default: none.
    pub namespace: Option<String>,
    /// How soon the loss of events is noticed; and for how long, while there is no connection, an
    /// entry in memory is believed before it is looked up again. All instances should agree on it.
    /// Default: 3 s; at least 300 ms.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub trust_timeout: Duration,
    /// Whether a delete or set returns only when the bus has confirmed it, see what that means for
    /// each [`Transport`](crate::Transport).
    ///
    /// `false`: it returns at once, and peers hear of it as soon as the bus takes it. If this
    /// process is killed before that, they hear of it never, and what they hold ends with its
    /// time, unless they notice that this instance fell silent. [`close`](crate::LazyLayersCache::close)
    /// waits for what is still to be told.
    ///
    /// `true`: it waits, up to `publish_timeout`, and returns
    /// [`Unconfirmed`](crate::ErrorKind::Unconfirmed) if that was not enough or the bus is known to
    /// be away; it will be told all the same, as soon as the bus is back.
    ///
    /// Default: false.
    pub confirm_deletes: bool,
    /// How long the bus may take to confirm an event before it counts as failed. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub publish_timeout: Duration,
    /// The most changes that wait for the bus. They wait once per key; what is too much turns into
    /// a delete of everything, and is never lost. Default: 10,000.
    #[doc(alias = "retry_queue")]
    pub outbox_max_entries: usize,
    /// The most bytes that they take. Default: 8 MiB.
    pub outbox_max_bytes: usize,
}

impl Default for EventBusOptions {
    fn default() -> Self {
        Self {
            namespace: None,
            trust_timeout: Duration::from_secs(3),
            confirm_deletes: false,
            publish_timeout: Duration::from_secs(1),
            outbox_max_entries: 10_000,
            outbox_max_bytes: 8 << 20,
        }
    }
}

impl EventBusOptions {
    /// See the field [`namespace`](Self::namespace).
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// See the field [`trust_timeout`](Self::trust_timeout).
    #[must_use]
    pub fn trust_timeout(mut self, timeout: Duration) -> Self {
        self.trust_timeout = timeout;
        self
    }

    /// See the field [`confirm_deletes`](Self::confirm_deletes).
    #[must_use]
    pub fn confirm_deletes(mut self, confirm: bool) -> Self {
        self.confirm_deletes = confirm;
        self
    }

    /// See the field [`publish_timeout`](Self::publish_timeout).
    #[must_use]
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.publish_timeout = timeout;
        self
    }

    /// See the field [`outbox_max_entries`](Self::outbox_max_entries).
    #[must_use]
    pub fn outbox_max_entries(mut self, entries: usize) -> Self {
        self.outbox_max_entries = entries;
        self
    }

    /// See the field [`outbox_max_bytes`](Self::outbox_max_bytes).
    #[must_use]
    pub fn outbox_max_bytes(mut self, bytes: usize) -> Self {
        self.outbox_max_bytes = bytes;
        self
    }

    pub(super) fn check(&self) -> Result<(), BuildError> {
        if self.trust_timeout < LEAST_TRUST {
            return Err(BuildError::new(
                "event_bus.trust_timeout",
                "is shorter than 300 ms, less than events may take",
                "write a time such as 3 s",
            ));
        }
        if self.publish_timeout.is_zero() {
            return Err(BuildError::new(
                "event_bus.publish_timeout",
                "is zero, so every publish would fail",
                "write a time such as 1 s",
            ));
        }
        if self.namespace.as_ref().is_some_and(|name| name.len() > LONGEST_NAME) {
            return Err(BuildError::new(
                "event_bus.namespace",
                "is longer than 1,024 bytes",
                "write a short name",
            ));
        }
        Ok(())
    }
}

const LEAST_TRUST: Duration = Duration::from_millis(300);
/// It goes with every event.
pub(super) const LONGEST_NAME: usize = 1_024;
