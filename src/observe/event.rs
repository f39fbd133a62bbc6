//! The events of a cache, with the names of the TypeScript package where it has the event.

use std::{fmt, time::Duration};

use crate::error::Error;

/// The level that held an entry.
///
/// ```
/// use lazy_layers_cache::{Event, LazyLayersCache, Level};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let names = LazyLayersCache::<u64, String>::builder().build()?;
/// let _guard = names.on(|event| {
///     if let Event::Hit { key, level: Level::L2, .. } = event {
///         println!("{key} came from the store that instances share");
///     }
/// });
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// L1, the memory of this instance.
    L1,
    /// L2, the store that instances share.
    L2,
}

/// Why a stale copy was served.
///
/// ```
/// use lazy_layers_cache::StaleReason;
///
/// assert_eq!(StaleReason::SoftTimeout.to_string(), "soft-timeout");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum StaleReason {
    /// The loader returned an error or panicked.
    LoaderError,
    /// The load took longer than the soft timeout. It continues.
    SoftTimeout,
    /// The caller waited longer than its hard timeout. Its own loader is dropped when it has run
    /// for that time; a load that another caller began continues.
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

/// An error of L2 or of the bus.
type Cause<'a> = &'a (dyn std::error::Error + Send + Sync + 'static);

/// Declares [`Event`]. Each row is a variant after the name of the event, that of the TypeScript
/// package where it has the event; `of key` marks the events that concern exactly one key.
macro_rules! events {
    ($($(#[$doc:meta])* $name:literal $(of $key:ident)? => $variant:ident { $($fields:tt)* })*) => {
        /// Something that happened in a cache, for the handlers that
        /// [`on`](crate::LazyLayersCache::on) registers. Built only if there are handlers.
        ///
        /// ```
        /// use lazy_layers_cache::{Event, LazyLayersCache};
        ///
        /// # #[tokio::main(flavor = "current_thread")]
        /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
        /// let names = LazyLayersCache::<u64, String>::builder().build()?;
        /// let _guard = names.on(|event| match event {
        ///     Event::LoaderError { key, error, .. } => eprintln!("{key}: {error}"),
        ///     Event::L2Error { key, error, .. } => eprintln!("{key}: L2: {error}"),
        ///     _ => {}
        /// });
        /// # Ok(()) }
        /// ```
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        #[expect(missing_docs, reason = "the names of the fields say all, in every variant")]
        pub enum Event<'a> {
            $(
                #[doc = concat!("`", $name, "`:")]
                $(#[$doc])*
                #[non_exhaustive]
                $variant { $($fields)* },
            )*
            /// `event-bus:disconnected`: The subscription ended. The subscriber begins another.
            BusDisconnected,
        }

        impl Event<'_> {
            /// Returns the name for metrics and logs: that of the TypeScript package, where it has
            /// the event.
            ///
            /// ```
            /// use std::sync::mpsc;
            /// use lazy_layers_cache::LazyLayersCache;
            ///
            /// # #[tokio::main(flavor = "current_thread")]
            /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let names = LazyLayersCache::<u64, String>::builder().build()?;
            /// let (events, seen) = mpsc::channel();
            /// let _guard = names.on(move |event| events.send(event.name()).unwrap_or_default());
            ///
            /// names.get(&7).await;
            /// names.set(&7, "Ada".to_owned()).await?;
            /// assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["miss", "set"]);
            /// # Ok(()) }
            /// ```
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $name,)*
                    Self::BusDisconnected => "event-bus:disconnected",
                }
            }

            /// Returns the key of the event, if it concerns exactly one.
            ///
            /// ```
            /// use std::sync::mpsc;
            /// use lazy_layers_cache::LazyLayersCache;
            ///
            /// # #[tokio::main(flavor = "current_thread")]
            /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let names = LazyLayersCache::<u64, String>::builder().build()?;
            /// let (keys, seen) = mpsc::channel();
            /// let _guard =
            ///     names.on(move |it| keys.send(it.key().map(str::to_owned)).unwrap_or_default());
            ///
            /// names.delete(&7).await?;
            /// names.clear().await?;
            /// assert_eq!(seen.try_iter().collect::<Vec<_>>(), [Some("7".to_owned()), None]);
            /// # Ok(()) }
            /// ```
            #[must_use]
            pub fn key(&self) -> Option<&str> {
                match self {
                    $($(Self::$variant { $key, .. } => Some($key),)?)*
                    _ => None,
                }
            }
        }
    };
}

events! {
    /// A fresh entry was served. `negative` if the entry says that the key does not exist.
    "hit" of key => Hit { key: &'a str, level: Level, negative: bool }
    /// No level had a fresh entry.
    "miss" of key => Miss { key: &'a str }
    /// A load or a call of `set` has written its value to the cache.
    "set" of key => Set { key: &'a str, ttl: Duration }
    /// A value is too heavy for L1, or its weigher panicked; L1 does not keep it.
    "set:skipped" of key => SetSkipped { key: &'a str, weight: u64 }
    /// A key was deleted.
    "delete" of key => Delete { key: &'a str }
    /// All keys that match a pattern were deleted. A clear has the pattern `*`.
    "delete-pattern" => DeletePattern { pattern: &'a str }
    /// A loader is about to be called.
    "loader:start" of key => LoaderStart { key: &'a str }
    /// A loader returned a value, or that the key does not exist.
    "loader:success" of key => LoaderSuccess { key: &'a str, took: Duration }
    /// A loader returned an error or panicked.
    "loader:error" of key => LoaderError { key: &'a str, error: &'a Error }
    /// A load took longer than the soft timeout (and continues), or than the `hard` one (and was
    /// dropped).
    "loader:timeout" of key => LoaderTimeout { key: &'a str, limit: Duration, hard: bool }
    /// While a load ran, its key was deleted or set, or a later load of the key ended. The callers
    /// of the load got its result, but no level caches it.
    "load:superseded" of key => LoadSuperseded { key: &'a str }
    /// A caller joined the load that another caller had started.
    "inflight:reuse" of key => InflightReuse { key: &'a str }
    /// A caller loads outside the single flight, because coalescing is off or full.
    "inflight:bypass" of key => InflightBypass { key: &'a str }
    /// Another instance holds the distributed lock, and the caller waits for its result.
    "lock:wait" of key => LockWait { key: &'a str }
    /// The result did not come in time. The caller gets a stale copy if there is one, else it loads
    /// without the lock.
    "lock:timeout" of key => LockTimeout { key: &'a str, limit: Duration }
    /// The owner could not renew the lock while its loader runs, so another instance may load too.
    "lock:lost" of key => LockLost { key: &'a str }
    /// A stale copy was served.
    "stale:hit" of key => StaleHit { key: &'a str, reason: StaleReason, age: Duration }
    /// A negative entry was cached: the key counts as missing for `ttl`.
    "negative:set" of key => NegativeSet { key: &'a str, ttl: Duration }
    /// A call of L2 failed or timed out, or its value could not be decoded. For the delete of a
    /// pattern, `key` is the pattern.
    "l2:error" of key => L2Error { key: &'a str, error: Cause<'a> }
    /// L2 holds no value of this key, because the key or the value breaks a limit, or the codec
    /// cannot encode the value or could not decode it again. This is no failure of L2.
    "l2:refused" of key => L2Refused { key: &'a str, error: Cause<'a> }
    /// More than 10,000 keys or 100 patterns were waiting to be deleted from L2. A pending delete
    /// of all keys replaces them. Until it has reached L2, no key is read from L2.
    "l2:pending-overflow" => L2PendingOverflow {}
    /// The store has removed all keys of the cache, because its server may have lost deletes: it
    /// was restarted or replaced, or has evicted the record of that. Reported at the next call.
    "l2:emptied" => L2Emptied {}
    /// L2 was not called, because its circuit is open.
    "l2:skipped" of key => L2Skipped { key: &'a str }
    /// The cache was closed, or its last handle dropped, before these numbers of invalidations had
    /// reached L2 and been published on the bus: nobody retries them. Again for a write that
    /// outlasts the close.
    "close:lost" => CloseLost { l2: usize, bus: usize }
    /// A peer deleted or set these keys, or deleted a pattern.
    "invalidation:received" => InvalidationReceived {
        source: &'a str, keys: &'a [&'a str], pattern: Option<&'a str>
    }
    /// A message arrived again and was ignored.
    "invalidation:duplicate" => InvalidationDuplicate { source: &'a str }
    /// A received value may be older than a delete and was not cached.
    "invalidation:stale" of key => InvalidationStale { key: &'a str, source: &'a str }
    /// A message could not be decoded. Its content is lost, so L1 is marked untrusted.
    "invalidation:refused" => InvalidationRefused { error: Cause<'a> }
    /// A value was queued to be published to peers.
    "set:broadcast" of key => SetBroadcast { key: &'a str, bytes: usize }
    /// A value is not published, or was queued and is not published after all. If it was `set`,
    /// peers get a delete instead.
    "set:broadcast-skipped" of key => SetBroadcastSkipped { key: &'a str, reason: &'a str }
    /// A value of a peer was written to L1.
    "set:received" of key => SetReceived { key: &'a str, source: &'a str }
    /// A publish failed. The message stays queued.
    "event-bus:publish-error" => BusPublishError { error: Cause<'a> }
    /// The broker refuses a message because of its size, a permission or a policy, and would refuse
    /// it again. A smaller message, or one that covers more keys, is published instead. If there is
    /// none, the message stays queued, and `health()` says `publishing_refused`.
    "event-bus:publish-refused" => BusPublishRefused { error: Cause<'a> }
    /// An invalidation that covers more keys than were invalidated is queued: all that match
    /// `pattern`. The outbox is full, a name is too long, or the broker refuses the message.
    "event-bus:widened" => BusWidened { pattern: &'a str, reason: &'a str }
    /// A message stays queued, because the circuit for publishing is open, or because the broker
    /// refuses all messages.
    "event-bus:publish-skipped" of key => BusPublishSkipped { key: &'a str }
    /// A subscription began. `resumed` if no message was lost since the last subscription.
    "event-bus:subscribed" => BusSubscribed { resumed: bool }
    /// An attempt to subscribe failed. The subscriber retries.
    "event-bus:subscribe-error" => BusSubscribeError { error: Cause<'a> }
    /// A probe of the subscription could not be sent. Without probes that come back, L1 is not
    /// trusted.
    "event-bus:probe-error" => BusProbeError { error: Cause<'a> }
    /// Messages were lost, or may have been. L1 is marked untrusted.
    "event-bus:gap" => BusGap { reason: &'a str }
    /// Two live processes that have this cache publish under one instance id.
    "event-bus:shared-instance-id" => BusSharedInstanceId { instance_id: &'a str }
}
