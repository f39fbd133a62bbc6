//! The health of the cache and of the parts it depends on.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A snapshot of the state of a cache. With the feature `serde` it serializes, say for a health
/// endpoint; durations are written as "1m 5s".
///
/// ```
/// use lazy_layers_cache::LazyLayersCache;
///
/// // What a health endpoint returns, with the feature `serde`.
/// let names = LazyLayersCache::<u64, String>::builder().name("users").build()?;
/// let json = serde_json::to_value(names.health())?;
/// assert_eq!((json["name"].as_str(), json["closed"].as_bool()), (Some("users"), Some(false)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Health {
    /// The [name](crate::CacheOptions::name) of the cache; `None` if it has none.
    pub name: Option<String>,
    /// The outcome of the latest loads.
    pub origin: OriginHealth,
    /// L2; `None` if the cache has none.
    pub l2: Option<L2Health>,
    /// The event bus; `None` if the cache has none.
    pub event_bus: Option<BusHealth>,
    /// Number of loads that are running.
    pub loads_in_flight: usize,
    /// Whether [`close`](crate::LazyLayersCache::close) was called.
    pub closed: bool,
}

impl Health {
    /// Returns whether every part works: the last load succeeded, L2 answers, the bus is
    /// [healthy](BusHealth::is_healthy), and the cache is not closed.
    ///
    /// An unhealthy cache still serves: do not take an instance out of service for it.
    ///
    /// ```
    /// # use lazy_layers_cache::LazyLayersCache;
    /// let cache = LazyLayersCache::<str, u32>::builder().build()?;
    /// assert!(cache.health().is_healthy());
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self.closed
            && self.origin == OriginHealth::Answering
            && self.l2 != Some(L2Health::Skipped)
            && self.event_bus.as_ref().is_none_or(BusHealth::is_healthy)
    }
}

impl BusHealth {
    /// Returns whether L1 is trusted and messages are published. A bus that was not used yet is
    /// not healthy: [`ready`](crate::LazyLayersCache::ready) subscribes.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, LocalTransport, WireCodec};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .name("users")
    ///     .event_bus(LocalTransport::new(), WireCodec::new())
    ///     .build()?;
    /// let is_healthy = || names.health().event_bus.is_some_and(|bus| bus.is_healthy());
    /// assert!(!is_healthy(), "the cache is not subscribed yet");
    /// names.ready().await?;
    /// assert!(is_healthy());
    /// # names.close().await;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.trusted && !self.publishing_skipped && !self.publishing_refused
    }
}

/// The outcome of the latest loads, over all keys.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{LazyLayersCache, OriginHealth, testing::ManualClock};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = ManualClock::new();
/// let names = LazyLayersCache::<u64, String>::builder().clock(clock.clone()).build()?;
/// let _ = names.get_or_set(&7, || async { Err::<String, _>("the database is down") }).await;
///
/// clock.advance(Duration::from_secs(5));
/// let since = Duration::from_secs(5);
/// assert_eq!(names.health().origin, OriginHealth::Failing { since });
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OriginHealth {
    /// The last load to end succeeded, or none has ended yet.
    Answering,
    /// The last load to end failed.
    Failing {
        /// The time since the first failure of an unbroken series.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
        since: Duration,
    },
}

/// The state of L2, by its circuit breaker.
///
/// ```
/// use lazy_layers_cache::{
///     L2Health, LazyLayersCache, SystemClock, WireCodec,
///     testing::{SharedStore, StoreFault},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = SharedStore::new(SystemClock);
/// let names = LazyLayersCache::<u64, String>::builder()
///     .l2(store.clone(), WireCodec::new())
///     .build()?;
/// assert_eq!(names.health().l2, Some(L2Health::Answering));
///
/// store.set_fault(StoreFault::Fails);
/// for id in 0..3_u64 {
///     names.get(&id).await;
/// }
/// assert_eq!(names.health().l2, Some(L2Health::Skipped), "after three failures");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum L2Health {
    /// The circuit is closed: the cache calls L2.
    Answering,
    /// The circuit is open: L2 failed several times in a row, and calls skip it. After the
    /// cooldown, the cache probes L2 with one call at a time. The retry of an invalidation that L2
    /// has not got does not wait for the cooldown.
    Skipped,
}

/// The state of the event bus.
///
/// ```
/// use lazy_layers_cache::{LazyLayersCache, LocalTransport, WireCodec};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let names = LazyLayersCache::<u64, String>::builder()
///     .name("users")
///     .event_bus(LocalTransport::new(), WireCodec::new())
///     .build()?;
/// names.ready().await?;
/// let bus = names.health().event_bus.unwrap();
/// assert_eq!((bus.transport, bus.subscribed, bus.waiting), ("local", true, 0));
/// # names.close().await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BusHealth {
    /// The name of the transport.
    pub transport: &'static str,
    /// Whether the cache is to subscribe: the option
    /// [`subscribe_to_events`](crate::CacheOptions::subscribe_to_events).
    pub subscribes: bool,
    /// Whether this instance is subscribed to the messages of its peers. Always `false` if
    /// `subscribes` is.
    pub subscribed: bool,
    /// Whether L1 is trusted. If not, an entry is looked up again once it is older than
    /// [`trust_timeout`](crate::EventBusOptions::trust_timeout).
    ///
    /// It is `false` although `subscribed` is `true` in these cases:
    ///
    /// - No probe came back that was sent within `trust_timeout`: this instance is behind its
    ///   peers, or receives nothing.
    /// - A message of a peer is missing, until it arrives or a gap is reported.
    /// - A peer is silent that has neither closed its cache nor dropped it: it was killed, or is
    ///   cut off from the bus and may still delete keys. This ends when the peer is heard again,
    ///   and after a minute at the latest, when the peer is taken for dead.
    pub trusted: bool,
    /// Whether the circuit for publishing is open: publishing failed several times in a row, and
    /// messages wait until the bus answers a probe.
    pub publishing_skipped: bool,
    /// Whether the broker refuses all messages, even the smallest, because of a permission or a
    /// policy. They wait and are published when it accepts them; peers notice that this instance
    /// is silent.
    pub publishing_refused: bool,
    /// Number of messages that wait to be published.
    pub waiting: usize,
}

/// Zero while loads succeed, else one more than the clock at the first failure.
#[derive(Debug, Default)]
pub(crate) struct OriginState(AtomicU64);

impl OriginState {
    /// Records the outcome of a load; returns whether the state changed. If several callers record
    /// the same change at the same time, exactly one of them gets `true`.
    pub(crate) fn record(&self, failed: bool, now: u64) -> bool {
        if failed {
            let first = now.saturating_add(1);
            self.0.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        } else {
            // Read first: while loads succeed, they must not write to a shared cache line.
            self.0.load(Ordering::Relaxed) != 0 && self.0.swap(0, Ordering::Relaxed) != 0
        }
    }

    pub(crate) fn read(&self, now: u64) -> OriginHealth {
        match self.0.load(Ordering::Relaxed) {
            0 => OriginHealth::Answering,
            first => OriginHealth::Failing {
                since: Duration::from_millis(now.saturating_sub(first - 1)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_reported() {
        let origin = OriginState::default();
        assert!(!origin.record(false, 0));
        assert!(origin.record(true, 0));
        assert!(!origin.record(true, 5));
        assert_eq!(origin.read(7), OriginHealth::Failing { since: Duration::from_millis(7) });
        assert!(origin.record(false, 8));
        assert!(!origin.record(false, 9));
        assert_eq!(origin.read(9), OriginHealth::Answering);
    }
}
