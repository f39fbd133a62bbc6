//! The events of a cache, with the names that the TypeScript package uses.

use std::{fmt, time::Duration};

use crate::error::Error;

/// The level that held an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// L1, the memory of this instance.
    L1,
    /// L2, the store that instances share.
    L2,
}

/// Why a stale copy was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StaleReason {
    /// The loader returned an error or panicked.
    LoaderError,
    /// The load took longer than the soft timeout. It continues.
    SoftTimeout,
    /// The load took longer than the hard timeout and was dropped.
    HardTimeout,
    /// The last load failed, and the key is not loaded again until the
    /// [`throttle`](crate::FailSafe::throttle) time is over.
    Throttled,
    /// Another instance holds the distributed lock and did not finish in time.
    LockTimeout,
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LoaderError => "loader-error",
            Self::SoftTimeout => "soft-timeout",
            Self::HardTimeout => "hard-timeout",
            Self::Throttled => "throttled",
            Self::LockTimeout => "lock-timeout",
        })
    }
}

/// Something that happened in a cache, for the handlers that
/// [`on`](crate::LazyLayersCache::on) registers. Built only if there are handlers.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names of the fields say all, in every variant")]
pub enum Event<'a> {
    /// `hit`: a fresh entry was served. `negative` if the entry says that the key does not exist.
    #[non_exhaustive]
    Hit { key: &'a str, level: Level, negative: bool },
    /// `miss`: no level had a fresh entry.
    #[non_exhaustive]
    Miss { key: &'a str },
    /// `set`: a value was written to the cache, by a load or by a call of `set`.
    #[non_exhaustive]
    Set { key: &'a str, ttl: Duration },
    /// `set:skipped`: a value is too heavy for L1, or its weigher panicked; L1 does not keep it.
    #[non_exhaustive]
    SetSkipped { key: &'a str, weight: u64 },
    /// `delete`: a key was deleted.
    #[non_exhaustive]
    Delete { key: &'a str },
    /// `delete-pattern`: all keys that match a pattern were deleted. A clear has the pattern `*`.
    #[non_exhaustive]
    DeletePattern { pattern: &'a str },
    /// `loader:start`: a loader is about to be called.
    #[non_exhaustive]
    LoaderStart { key: &'a str },
    /// `loader:success`: a loader returned a value, or that the key does not exist.
    #[non_exhaustive]
    LoaderSuccess { key: &'a str, took: Duration },
    /// `loader:error`: a loader returned an error or panicked.
    #[non_exhaustive]
    LoaderError { key: &'a str, error: &'a Error },
    /// `loader:timeout`: a load took longer than the soft timeout (and continues), or than the
    /// `hard` one (and was dropped).
    #[non_exhaustive]
    LoaderTimeout { key: &'a str, limit: Duration, hard: bool },
    /// `load:superseded`: while a load ran, its key was deleted or set, or a later load of the key
    /// ended. The callers of the load got its result, but no level caches it.
    #[non_exhaustive]
    LoadSuperseded { key: &'a str },
    /// `inflight:reuse`: a caller joined the load that another caller had started.
    #[non_exhaustive]
    InflightReuse { key: &'a str },
    /// `inflight:bypass`: a caller loads outside the single flight, because coalescing is off or
    /// full.
    #[non_exhaustive]
    InflightBypass { key: &'a str },
    /// `lock:wait`: another instance holds the distributed lock, and the caller waits for its
    /// result.
    #[non_exhaustive]
    LockWait { key: &'a str },
    /// `lock:timeout`: the result did not come in time. The caller gets a stale copy if there is
    /// one, else it loads without the lock.
    #[non_exhaustive]
    LockTimeout { key: &'a str, limit: Duration },
    /// `lock:lost`: the owner could not renew the lock while its loader runs, so another instance
    /// may load too.
    #[non_exhaustive]
    LockLost { key: &'a str },
    /// `stale:hit`: a stale copy was served.
    #[non_exhaustive]
    StaleHit { key: &'a str, reason: StaleReason, age: Duration },
    /// `negative:set`: a negative entry was cached: the key counts as missing for `ttl`.
    #[non_exhaustive]
    NegativeSet { key: &'a str, ttl: Duration },
    /// `l2:error`: a call of L2 failed or timed out, or its value could not be decoded. For the
    /// delete of a pattern, `key` is the pattern.
    #[non_exhaustive]
    L2Error { key: &'a str, error: &'a (dyn std::error::Error + Send + Sync + 'static) },
    /// `l2:skipped`: L2 was not called, because its circuit is open.
    #[non_exhaustive]
    L2Skipped { key: &'a str },
    /// `invalidation:received`: a peer deleted or set these keys, or deleted a pattern.
    #[non_exhaustive]
    InvalidationReceived { source: &'a str, keys: &'a [&'a str], pattern: Option<&'a str> },
    /// `invalidation:duplicate`: a message arrived again and was ignored.
    #[non_exhaustive]
    InvalidationDuplicate { source: &'a str },
    /// `invalidation:stale`: a received value may be older than a delete and was not cached.
    #[non_exhaustive]
    InvalidationStale { key: &'a str, source: &'a str },
    /// `invalidation:refused`: a message could not be decoded. Its content is lost, so L1 is marked
    /// untrusted.
    #[non_exhaustive]
    InvalidationRefused { error: &'a (dyn std::error::Error + Send + Sync + 'static) },
    /// `set:broadcast`: a value was queued to be published to peers.
    #[non_exhaustive]
    SetBroadcast { key: &'a str, bytes: usize },
    /// `set:broadcast-skipped`: a value is not published, because it is too long or cannot be
    /// encoded.
    #[non_exhaustive]
    SetBroadcastSkipped { key: &'a str },
    /// `set:received`: a value of a peer was written to L1.
    #[non_exhaustive]
    SetReceived { key: &'a str, source: &'a str },
    /// `event-bus:publish-error`: a publish failed. The message stays queued.
    #[non_exhaustive]
    BusPublishError { error: &'a (dyn std::error::Error + Send + Sync + 'static) },
    /// `event-bus:publish-skipped`: a message stays queued, because the circuit for publishing is
    /// open.
    #[non_exhaustive]
    BusPublishSkipped { key: &'a str },
    /// `event-bus:subscribed`: a subscription began. `resumed` if no message was lost since the
    /// last subscription.
    #[non_exhaustive]
    BusSubscribed { resumed: bool },
    /// `event-bus:subscribe-error`: an attempt to subscribe failed. The subscriber retries.
    #[non_exhaustive]
    BusSubscribeError { error: &'a (dyn std::error::Error + Send + Sync + 'static) },
    /// `event-bus:disconnected`: the subscription ended. The subscriber begins another.
    BusDisconnected,
    /// `event-bus:gap`: messages were lost, or may have been. L1 is marked untrusted.
    #[non_exhaustive]
    BusGap { reason: &'a str },
}

impl Event<'_> {
    /// Returns the name that the TypeScript package uses, for metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hit { .. } => "hit",
            Self::Miss { .. } => "miss",
            Self::Set { .. } => "set",
            Self::SetSkipped { .. } => "set:skipped",
            Self::Delete { .. } => "delete",
            Self::DeletePattern { .. } => "delete-pattern",
            Self::LoaderStart { .. } => "loader:start",
            Self::LoaderSuccess { .. } => "loader:success",
            Self::LoaderError { .. } => "loader:error",
            Self::LoaderTimeout { .. } => "loader:timeout",
            Self::LoadSuperseded { .. } => "load:superseded",
            Self::InflightReuse { .. } => "inflight:reuse",
            Self::InflightBypass { .. } => "inflight:bypass",
            Self::LockWait { .. } => "lock:wait",
            Self::LockTimeout { .. } => "lock:timeout",
            Self::LockLost { .. } => "lock:lost",
            Self::StaleHit { .. } => "stale:hit",
            Self::NegativeSet { .. } => "negative:set",
            Self::L2Error { .. } => "l2:error",
            Self::L2Skipped { .. } => "l2:skipped",
            Self::InvalidationReceived { .. } => "invalidation:received",
            Self::InvalidationDuplicate { .. } => "invalidation:duplicate",
            Self::InvalidationStale { .. } => "invalidation:stale",
            Self::InvalidationRefused { .. } => "invalidation:refused",
            Self::SetBroadcast { .. } => "set:broadcast",
            Self::SetBroadcastSkipped { .. } => "set:broadcast-skipped",
            Self::SetReceived { .. } => "set:received",
            Self::BusPublishError { .. } => "event-bus:publish-error",
            Self::BusPublishSkipped { .. } => "event-bus:publish-skipped",
            Self::BusSubscribed { .. } => "event-bus:subscribed",
            Self::BusSubscribeError { .. } => "event-bus:subscribe-error",
            Self::BusDisconnected => "event-bus:disconnected",
            Self::BusGap { .. } => "event-bus:gap",
        }
    }

    /// Returns the key of the event, if it concerns exactly one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Hit { key, .. }
            | Self::Miss { key }
            | Self::Set { key, .. }
            | Self::SetSkipped { key, .. }
            | Self::Delete { key }
            | Self::LoaderStart { key }
            | Self::LoaderSuccess { key, .. }
            | Self::LoaderError { key, .. }
            | Self::LoaderTimeout { key, .. }
            | Self::LoadSuperseded { key }
            | Self::InflightReuse { key }
            | Self::InflightBypass { key }
            | Self::LockWait { key }
            | Self::LockTimeout { key, .. }
            | Self::LockLost { key }
            | Self::StaleHit { key, .. }
            | Self::NegativeSet { key, .. }
            | Self::L2Error { key, .. }
            | Self::L2Skipped { key }
            | Self::InvalidationStale { key, .. }
            | Self::SetBroadcast { key, .. }
            | Self::SetBroadcastSkipped { key }
            | Self::SetReceived { key, .. }
            | Self::BusPublishSkipped { key } => Some(key),
            Self::DeletePattern { .. }
            | Self::InvalidationReceived { .. }
            | Self::InvalidationDuplicate { .. }
            | Self::InvalidationRefused { .. }
            | Self::BusPublishError { .. }
            | Self::BusSubscribed { .. }
            | Self::BusSubscribeError { .. }
            | Self::BusDisconnected
            | Self::BusGap { .. } => None,
        }
    }
}
