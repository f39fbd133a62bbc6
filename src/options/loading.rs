//! The groups of options about loads.

use std::time::Duration;

/// Coalescing of concurrent loads of one key: one loads, the others wait for its result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Coalescing {
    /// Whether loads are coalesced. Default: true.
    pub enabled: bool,
    /// A load older than this is not joined any more: the next caller starts a new one.
    /// Default: 5 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ttl: Duration,
    /// The most loads that can be joined at a time. Beyond it a caller loads for itself, and an
    /// `inflight:bypass` event says so. Default: 10,000.
    pub max_entries: usize,
    /// The most callers that wait for one load. Beyond it likewise. Default: 100,000.
    pub max_followers: usize,
}

impl Default for Coalescing {
    fn default() -> Self {
        Self {
            enabled: true,
            ttl: Duration::from_secs(5),
            max_entries: 10_000,
            max_followers: 100_000,
        }
    }
}

impl Coalescing {
    /// No coalescing: each caller loads for itself.
    #[must_use]
    pub fn disabled() -> Self {
        Self { enabled: false, ..Self::default() }
    }

    /// See the field [`ttl`](Self::ttl).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// See the field [`max_entries`](Self::max_entries).
    #[must_use]
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }

    /// See the field [`max_followers`](Self::max_followers).
    #[must_use]
    pub fn max_followers(mut self, followers: usize) -> Self {
        self.max_followers = followers;
        self
    }
}

/// One load at a time in the whole fleet, by a lock in the shared level. It saves loads; that
/// nothing old is cached never depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct DistributedLock {
    /// Default: false.
    pub enabled: bool,
    /// How long a lock outlives an owner that is killed. While its loader runs, the owner renews it
    /// every third of this. Default: 10 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ttl: Duration,
    /// How long a caller waits for the owner's result, before it takes a stale copy if there is
    /// one and loads without the lock if not. Default: 2 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub wait_timeout: Duration,
    /// How often it looks meanwhile. Default: 50 ms.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub poll: Duration,
}

impl Default for DistributedLock {
    fn default() -> Self {
        Self {
            enabled: false,
            ttl: Duration::from_secs(10),
            wait_timeout: Duration::from_secs(2),
            poll: Duration::from_millis(50),
        }
    }
}

impl DistributedLock {
    /// Switched on, with the other defaults.
    #[must_use]
    pub fn enabled() -> Self {
        Self { enabled: true, ..Self::default() }
    }

    /// See the field [`ttl`](Self::ttl).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// See the field [`wait_timeout`](Self::wait_timeout).
    #[must_use]
    pub fn wait_timeout(mut self, limit: Duration) -> Self {
        self.wait_timeout = limit;
        self
    }

    /// See the field [`poll`](Self::poll).
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }
}

/// Remembering for a while that the loader found nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct NegativeCache {
    /// Default: false.
    pub enabled: bool,
    /// How long a key counts as missing. Default: 5 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub ttl: Duration,
    /// The most keys remembered as missing. They have room of their own, so that a flood of
    /// missing keys does not push out values. Default: 10,000.
    pub max_entries: usize,
}

impl Default for NegativeCache {
    fn default() -> Self {
        Self { enabled: false, ttl: Duration::from_secs(5), max_entries: 10_000 }
    }
}

impl NegativeCache {
    /// Switched on, with the other defaults.
    #[must_use]
    pub fn enabled() -> Self {
        Self { enabled: true, ..Self::default() }
    }

    /// See the field [`ttl`](Self::ttl).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// See the field [`max_entries`](Self::max_entries).
    #[must_use]
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }
}

/// Limits on the time of a load. They follow tokio's timer: without one (outside of a runtime, or
/// in one built without `enable_time`) there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Timeouts {
    /// When a stale copy exists, callers wait this long for the load and then take the copy; the
    /// load goes on and refreshes the cache. Counted from the start of the load. Zero serves
    /// stale at once and refreshes behind. Default: none.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde::option"))]
    pub soft: Option<Duration>,
    /// The load is dropped after this long. Its callers get the stale copy if there is one, else
    /// an error. Default: none.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde::option"))]
    pub hard: Option<Duration>,
}

impl Timeouts {
    pub(crate) fn without_hard(self) -> Self {
        Self { hard: None, ..self }
    }

    /// None: a load may take as long as it takes.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// See the field [`soft`](Self::soft).
    #[must_use]
    pub fn soft(mut self, limit: Duration) -> Self {
        self.soft = Some(limit);
        self
    }

    /// See the field [`hard`](Self::hard).
    #[must_use]
    pub fn hard(mut self, limit: Duration) -> Self {
        self.hard = Some(limit);
        self
    }
}
