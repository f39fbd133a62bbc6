//! The health of all caches of a manager, and of the parts that they share.

use std::collections::BTreeMap;

use crate::observe::{BusHealth, Health, L2Health};

/// A snapshot of the state of a [`CacheManager`](crate::CacheManager) and its caches. With the
/// feature `serde` it serializes, say for a health endpoint.
///
/// ```
/// use lazy_layers_cache::{CacheManager, ManagerHealth};
///
/// /// The lines of a status page.
/// fn lines(health: &ManagerHealth) -> Vec<String> {
///     let caches = health.caches.iter();
///     caches.map(|(name, cache)| format!("{name}: {:?}", cache.origin)).collect()
/// }
///
/// let manager = CacheManager::builder().build()?;
/// let users = manager.cache::<u64, String>("users").build()?;
/// assert_eq!(lines(&manager.health()), ["users: Answering"]);
/// # Ok::<(), lazy_layers_cache::BuildError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ManagerHealth {
    /// The name of this process in the messages of all its caches.
    pub instance_id: String,
    /// The parts that all caches share.
    pub shared: SharedHealth,
    /// Each cache that has handles, by its name.
    pub caches: BTreeMap<String, Health>,
    /// Whether [`close`](crate::CacheManager::close) was called.
    pub closed: bool,
}

/// The state of the parts that the caches of a manager share.
///
/// ```
/// use lazy_layers_cache::{CacheManager, L2Health, SystemClock, testing::SharedStore};
///
/// let manager = CacheManager::builder().l2(|_name| SharedStore::new(SystemClock)).build()?;
/// let shared = manager.health().shared;
/// assert_eq!(shared.l2, Some(L2Health::Answering));
/// assert!(shared.event_bus.is_none());
/// # Ok::<(), lazy_layers_cache::BuildError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SharedHealth {
    /// L2, by the circuit breaker of all caches; `None` if the manager has none.
    pub l2: Option<L2Health>,
    /// The event bus: `subscribed` if every cache is that subscribes, `trusted` if every cache is;
    /// `subscribes`, skipped or refused if it is so for one; `waiting` is the sum. `None` if no
    /// open cache has a bus.
    pub event_bus: Option<BusHealth>,
}

impl ManagerHealth {
    /// Returns whether every part works: L2 answers, the bus is
    /// [healthy](BusHealth::is_healthy), so is [each cache](Health::is_healthy) that was not closed
    /// by itself, and the manager is not closed.
    ///
    /// An unhealthy manager still serves: do not take an instance out of service for it.
    ///
    /// ```
    /// use lazy_layers_cache::CacheManager;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = CacheManager::builder().build()?;
    /// let users = manager.cache::<u64, String>("users").build()?;
    /// assert!(manager.health().is_healthy());
    ///
    /// let _ = users.get_or_set(&7, || async { Err::<String, _>("the database is down") }).await;
    /// assert!(!manager.health().is_healthy());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        let SharedHealth { l2, event_bus } = &self.shared;
        !self.closed
            && *l2 != Some(L2Health::Skipped)
            && event_bus.as_ref().is_none_or(BusHealth::is_healthy)
            && self.caches.values().all(|cache| cache.closed || cache.is_healthy())
    }
}

/// The bus as all these caches see it.
pub(super) fn sum_of<'a>(caches: impl Iterator<Item = &'a Health>) -> Option<BusHealth> {
    let buses = caches.filter(|health| !health.closed).filter_map(|health| health.event_bus);
    buses.reduce(|sum, one| BusHealth {
        transport: sum.transport,
        subscribes: sum.subscribes || one.subscribes,
        // A cache that does not subscribe says nothing about the subscription of the others.
        subscribed: match (sum.subscribes, one.subscribes) {
            (true, true) => sum.subscribed && one.subscribed,
            _ => sum.subscribed || one.subscribed,
        },
        trusted: sum.trusted && one.trusted,
        publishing_skipped: sum.publishing_skipped || one.publishing_skipped,
        publishing_refused: sum.publishing_refused || one.publishing_refused,
        waiting: sum.waiting + one.waiting,
    })
}
