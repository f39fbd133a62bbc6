//! The groups of options. Each can be built up (`FailSafe::enabled().throttle(..)`) or read from
//! a config file.

use std::time::Duration;

/// The level in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct L1Options {
    /// Whether there is a level in memory at all. Default: true.
    pub enabled: bool,
    /// The most entries it holds. Default: 10,000, or no bound of its own where `max_weight` is
    /// set. With both, an entry weighs at least `max_weight / max_entries`, and so both hold.
    pub max_entries: Option<usize>,
    /// The most weight it holds, in the unit of the builder's
    /// [`weigher`](crate::Builder::weigher), which it needs. Default: none.
    ///
    /// The level is divided into shards and an entry must fit into one: a value heavier than an
    /// eighth of this (with `max_entries` too: a 64th) is not kept, and a `set:skipped` event
    /// says so.
    pub max_weight: Option<u64>,
    /// How long a value is fresh in memory. Default: [`CacheOptions::ttl`](super::CacheOptions).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde::option"))]
    pub ttl: Option<Duration>,
}

impl Default for L1Options {
    fn default() -> Self {
        Self { enabled: true, max_entries: None, max_weight: None, ttl: None }
    }
}

impl L1Options {
    /// Where neither entries nor weight are bounded by the user.
    pub(crate) const DEFAULT_MAX_ENTRIES: usize = 10_000;

    /// See the field [`max_entries`](Self::max_entries).
    #[must_use]
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = Some(entries);
        self
    }

    /// See the field [`max_weight`](Self::max_weight).
    #[must_use]
    pub fn max_weight(mut self, weight: u64) -> Self {
        self.max_weight = Some(weight);
        self
    }

    /// See the field [`ttl`](Self::ttl).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

/// The level that instances share.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct L2Options {
    /// How long a value is fresh there. Default: [`CacheOptions::ttl`](super::CacheOptions).
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde::option"))]
    pub ttl: Option<Duration>,
    /// The longest key that it is asked about. A value under a longer one is kept in memory only,
    /// and an `l2:error` event says so. Default: 65,536 bytes.
    pub max_key_bytes: usize,
    /// Whether names in the level end with how often this instance has deleted the key,
    /// `{key}::v{n}`, as those of the TypeScript package do under `versioning`. Default: false.
    ///
    /// For sharing with instances of that package that have it on, and for nothing else: that no
    /// old value is published needs no versions. Instances at different versions of a key do not
    /// see each other's values, so each loads for itself; a `set` takes a round trip more. Those on
    /// one bus tell each other, one event a key, and agree; also with an instance of that package
    /// that counts higher. A delete or `set` removes version 0 and those up to 8 from its own. What
    /// an instance further away wrote goes when that hears of it; without a bus it stays until its
    /// time to live ends, for others at that version.
    pub versioning: bool,
}

impl Default for L2Options {
    fn default() -> Self {
        Self { ttl: None, max_key_bytes: 64 << 10, versioning: false }
    }
}

impl L2Options {
    /// See the field [`max_key_bytes`](Self::max_key_bytes).
    #[must_use]
    pub fn max_key_bytes(mut self, bytes: usize) -> Self {
        self.max_key_bytes = bytes;
        self
    }

    /// See the field [`versioning`](Self::versioning).
    #[must_use]
    pub fn versioning(mut self, versioning: bool) -> Self {
        self.versioning = versioning;
        self
    }

    /// See the field [`ttl`](Self::ttl).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

/// How long the shared level may take to answer before it counts as failed. They follow tokio's
/// timer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct L2Timeouts {
    /// A read, with the lease that comes with it. Default: 500 ms.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub read: Duration,
    /// A write or a delete of one key. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub write: Duration,
    /// A delete by pattern, which looks at every key there is. Default: 60 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub pattern: Duration,
}

impl Default for L2Timeouts {
    fn default() -> Self {
        Self {
            read: Duration::from_millis(500),
            write: Duration::from_secs(1),
            pattern: Duration::from_secs(60),
        }
    }
}

impl L2Timeouts {
    /// See the field [`read`](Self::read).
    #[must_use]
    pub fn read(mut self, limit: Duration) -> Self {
        self.read = limit;
        self
    }

    /// See the field [`write`](Self::write).
    #[must_use]
    pub fn write(mut self, limit: Duration) -> Self {
        self.write = limit;
        self
    }

    /// See the field [`pattern`](Self::pattern).
    #[must_use]
    pub fn pattern(mut self, limit: Duration) -> Self {
        self.pattern = limit;
        self
    }
}

/// When something that fails is left alone: after so many failures in a row nothing is tried for
/// a while, and then one call at a time until one succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CircuitBreaker {
    /// Failures in a row. Default: 3.
    pub failure_threshold: u32,
    /// How long nothing is tried. Default: 30 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub cooldown: Duration,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { failure_threshold: 3, cooldown: Duration::from_secs(30) }
    }
}

impl CircuitBreaker {
    /// See the field [`failure_threshold`](Self::failure_threshold).
    #[must_use]
    pub fn failure_threshold(mut self, failures: u32) -> Self {
        self.failure_threshold = failures;
        self
    }

    /// See the field [`cooldown`](Self::cooldown).
    #[must_use]
    pub fn cooldown(mut self, cooldown: Duration) -> Self {
        self.cooldown = cooldown;
        self
    }
}

/// Coalescing of concurrent loads of one key: one loads, the others wait for its result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Inflight {
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

impl Default for Inflight {
    fn default() -> Self {
        Self {
            enabled: true,
            ttl: Duration::from_secs(5),
            max_entries: 10_000,
            max_followers: 100_000,
        }
    }
}

impl Inflight {
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

/// Keeping a value beyond its time to live, to serve it where a load fails or takes too long.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct FailSafe {
    /// Default: false.
    pub enabled: bool,
    /// How long a value may serve as a stale copy after it has ceased to be fresh.
    /// Default: 300 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub stale_ttl: Duration,
    /// After a load failed and a stale copy was served, the key is not loaded again for this
    /// long: the stale copy answers at once. Default: 5 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub throttle: Duration,
}

impl Default for FailSafe {
    fn default() -> Self {
        Self {
            enabled: false,
            stale_ttl: Duration::from_secs(300),
            throttle: Duration::from_secs(5),
        }
    }
}

impl FailSafe {
    /// Switched on, with the other defaults.
    #[must_use]
    pub fn enabled() -> Self {
        Self { enabled: true, ..Self::default() }
    }

    /// See the field [`stale_ttl`](Self::stale_ttl).
    #[must_use]
    pub fn stale_ttl(mut self, stale_ttl: Duration) -> Self {
        self.stale_ttl = stale_ttl;
        self
    }

    /// See the field [`throttle`](Self::throttle).
    #[must_use]
    pub fn throttle(mut self, throttle: Duration) -> Self {
        self.throttle = throttle;
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
