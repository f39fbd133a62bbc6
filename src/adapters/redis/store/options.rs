//! How a [`RedisStore`](super::RedisStore) uses its Redis.

use std::time::Duration;

/// How keys are removed from Redis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum DeleteStrategy {
    /// `UNLINK`: their memory is given back in the background. The default.
    #[default]
    Unlink,
    /// `DEL`: at once, which holds the server up for as long as a large value takes.
    Del,
}

impl DeleteStrategy {
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::Unlink => "UNLINK",
            Self::Del => "DEL",
        }
    }
}

/// What to do where Redis was restarted or a replica was promoted, so that it may have lost
/// deletes that it had confirmed, and brought old values back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum RestartPolicy {
    /// Remove everything with this prefix before anything is read. The default: nobody else can
    /// know what of it was deleted.
    #[default]
    Clear,
    /// Keep it. For a Redis that never loses a write, or values whose age does not matter.
    Keep,
}

/// What can be set of a [`RedisStore`](super::RedisStore).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RedisOptions {
    /// What every name begins with. Default: `cache:`. Keys that begin with `__` are not kept in
    /// Redis, for such names are internal.
    pub prefix: String,
    /// Whether a sorted set is kept of all names, `{prefix}__index`, so that a delete by pattern
    /// and a count look at these and not at everything that the Redis holds. Default: true. A
    /// Cluster has none: it would be the burden of one node.
    ///
    /// Values that others write under the prefix without an index are not found by it.
    pub use_index: bool,
    /// How many keys Redis looks at in one step of a walk. Default: 1,000.
    pub scan_count: usize,
    /// How many keys are removed with one command. Default: 500.
    pub batch_size: usize,
    /// How keys are removed. Default: `UNLINK`.
    pub delete_strategy: DeleteStrategy,
    /// The most entries; the oldest make room. Needs the index. Default: none.
    pub max_entries: Option<usize>,
    /// The longest payload that is read or written. Default: 32 MiB.
    pub max_payload_bytes: usize,
    /// What to do after a restart. Default: [`RestartPolicy::Clear`].
    pub after_restart: RestartPolicy,
    /// How long connecting may take before it is tried anew. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub connect_timeout: Duration,
    /// How often the connection is asked whether it lives, and how long the answer may take. It is
    /// given up after the second time without one. Default: 500 ms.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub check_interval: Duration,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            prefix: "cache:".to_owned(),
            use_index: true,
            scan_count: 1_000,
            batch_size: 500,
            delete_strategy: DeleteStrategy::default(),
            max_entries: None,
            max_payload_bytes: 32 << 20,
            after_restart: RestartPolicy::default(),
            connect_timeout: Duration::from_secs(1),
            check_interval: Duration::from_millis(500),
        }
    }
}
