//! The groups of options about the two levels. Each group can be built up
//! (`FailSafe::enabled().throttle(..)`) or read from a config file.

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
    /// [`weigher`](crate::CacheBuilder::weigher), which it needs. Default: none.
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
