//! The events, under the names that the TypeScript package gives them.

use std::{fmt, time::Duration};

use crate::error::Error;

/// Where an entry was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// The memory of this instance.
    L1,
    /// The level that instances share.
    L2,
}

/// Why a stale copy was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StaleReason {
    /// The loader returned an error or panicked.
    LoaderError,
    /// The load outlived the soft timeout. It goes on.
    SoftTimeout,
    /// The load outlived the hard timeout and was dropped.
    HardTimeout,
    /// The last load failed just now, and the key is left alone for a while.
    Throttled,
    /// Another instance has the lock and did not come to an end in time.
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

/// Something that happened in a cache. Built only while somebody listens.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[expect(missing_docs, reason = "`key` and `error` are what they say, in every variant")]
pub enum Event<'a> {
    /// `hit`: a fresh entry answered. `negative` if it says that the key does not exist.
    #[non_exhaustive]
    Hit { key: &'a str, level: Level, negative: bool },
    /// `miss`: no level had a fresh entry.
    #[non_exhaustive]
    Miss { key: &'a str },
    /// `set`: a value entered the cache, from a load or from a call of `set`.
    #[non_exhaustive]
    Set { key: &'a str, ttl: Duration },
    /// `set:skipped`: a value is too heavy for memory, or its weigher panicked; it is not kept
    /// there.
    #[non_exhaustive]
    SetSkipped { key: &'a str, weight: u64 },
    /// `delete`: a key was deleted.
    #[non_exhaustive]
    Delete { key: &'a str },
    /// `delete-pattern`: all keys that match were deleted; `*` is a clear.
    #[non_exhaustive]
    DeletePattern { pattern: &'a str },
    /// `loader:start`: a loader is about to be called.
    #[non_exhaustive]
    LoaderStart { key: &'a str },
    /// `loader:success`: it returned a value, or that there is none.
    #[non_exhaustive]
    LoaderSuccess { key: &'a str, took: Duration },
    /// `loader:error`: it failed or panicked.
    #[non_exhaustive]
    LoaderError { key: &'a str, error: &'a Error },
    /// `loader:timeout`: it outlived the soft timeout (and goes on), or the hard one (and was
    /// dropped).
    #[non_exhaustive]
    LoaderTimeout { key: &'a str, limit: Duration, hard: bool },
    /// `load:superseded`: a delete, a set, a pattern delete or a clear, or a load begun later,
    /// came before this load's end. Its callers got its result; it is cached nowhere.
    #[non_exhaustive]
    LoadSuperseded { key: &'a str },
    /// `inflight:reuse`: a caller joined the load of another.
    #[non_exhaustive]
    InflightReuse { key: &'a str },
    /// `inflight:bypass`: a caller loads for itself, because coalescing is off or full.
    #[non_exhaustive]
    InflightBypass { key: &'a str },
    /// `lock:wait`: another instance has the lock, and its result is waited for.
    #[non_exhaustive]
    LockWait { key: &'a str },
    /// `lock:timeout`: it did not come in time. A stale copy serves, or else the key is loaded
    /// without the lock.
    #[non_exhaustive]
    LockTimeout { key: &'a str, limit: Duration },
    /// `lock:lost`: the lock could not be renewed while the loader runs, so another instance may
    /// load too.
    #[non_exhaustive]
    LockLost { key: &'a str },
    /// `stale:hit`: a stale copy answered.
    #[non_exhaustive]
    StaleHit { key: &'a str, reason: StaleReason, age: Duration },
    /// `negative:set`: a key will count as missing for a while.
    #[non_exhaustive]
    NegativeSet { key: &'a str, ttl: Duration },
    /// `l2:error`: the shared level failed, was late, or held what is no value. `key` is a pattern
    /// where one was deleted.
    #[non_exhaustive]
    L2Error { key: &'a str, error: &'a (dyn std::error::Error + Send + Sync + 'static) },
    /// `l2:skipped`: the shared level was not asked, because it failed just now.
    #[non_exhaustive]
    L2Skipped { key: &'a str },
    /// `invalidation:received`: another instance deleted or set so many keys, or a pattern.
    #[non_exhaustive]
    InvalidationReceived { source: &'a str, keys: &'a [&'a str], pattern: Option<&'a str> },
    /// `invalidation:duplicate`: an event that was here before came again.
    #[non_exhaustive]
    InvalidationDuplicate { source: &'a str },
    /// `invalidation:stale`: a value that was received may be older than a delete, and was not
    /// kept.
    #[non_exhaustive]
    InvalidationStale { key: &'a str, source: &'a str },
    /// `invalidation:refused`: bytes that are no event. What they would have said is lost, so
    /// memory is suspect.
    #[non_exhaustive]
    InvalidationRefused { error: &'a (dyn std::error::Error + Send + Sync + 'static) },
    /// `set:broadcast`: a value is told to the other instances.
    #[non_exhaustive]
    SetBroadcast { key: &'a str, bytes: usize },
    /// `set:broadcast-skipped`: it is not, because it is too long or cannot be encoded.
    #[non_exhaustive]
    SetBroadcastSkipped { key: &'a str },
    /// `set:received`: a value of another instance is in memory now.
    #[non_exhaustive]
    SetReceived { key: &'a str, source: &'a str },
    /// `event-bus:publish-error`: an event did not get through. It goes on waiting.
    #[non_exhaustive]
    BusPublishError { error: &'a (dyn std::error::Error + Send + Sync + 'static) },
    /// `event-bus:publish-skipped`: a change waits, because the bus failed just now.
    #[non_exhaustive]
    BusPublishSkipped { key: &'a str },
    /// `event-bus:subscribed`: events of others are heard from now on. `resumed` if none can have
    /// been missed since the last time.
    #[non_exhaustive]
    BusSubscribed { resumed: bool },
    /// `event-bus:subscribe-error`: an attempt to listen failed. There will be another.
    #[non_exhaustive]
    BusSubscribeError { error: &'a (dyn std::error::Error + Send + Sync + 'static) },
    /// `event-bus:disconnected`: events are not heard any more.
    BusDisconnected,
    /// `event-bus:gap`: events were lost, or may have been. What memory holds is suspect.
    #[non_exhaustive]
    BusGap { reason: &'a str },
}

impl Event<'_> {
    /// The event's name in the TypeScript package, for metrics and logs.
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

    /// The key it is about, if it is about one.
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
