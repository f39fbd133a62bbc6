//! Feature `opentelemetry`: registers all caches of a manager with a meter.

use std::sync::OnceLock;

use opentelemetry::metrics::Meter;

use super::{cache_manager::CacheManager, live_cache::LiveCache};
use crate::cache::LazyLayersCache;

/// The part of any cache that this file needs.
pub(super) trait RegisterMetrics {
    fn register_metrics(&self, meter: &Meter);
}

impl<K: ?Sized, V: Send + Sync + 'static> RegisterMetrics for LazyLayersCache<K, V> {
    fn register_metrics(&self, meter: &Meter) {
        Self::register_metrics(self, meter);
    }
}

/// The meter of a manager, once there is one.
#[derive(Default)]
pub(super) struct MeterSlot(OnceLock<Meter>);

impl MeterSlot {
    /// Registers a cache that was just built.
    pub(super) fn register(&self, cache: &dyn LiveCache) {
        if let Some(meter) = self.0.get() {
            cache.register_metrics(meter);
        }
    }
}

impl CacheManager {
    /// Registers the metrics of all caches with a meter of OpenTelemetry (feature `opentelemetry`),
    /// as [`LazyLayersCache::register_metrics`] does for one: those that live now, and each that is
    /// built later. The first call counts; later calls do nothing.
    ///
    /// ```
    /// # use lazy_layers_cache::CacheManager;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = CacheManager::builder().build()?;
    /// manager.register_metrics(&opentelemetry::global::meter("my-service"));
    /// let users = manager.cache::<u64, String>("users").build()?;
    /// # Ok(()) }
    /// ```
    pub fn register_metrics(&self, meter: &Meter) {
        if self.0.meter.0.set(meter.clone()).is_ok() {
            for (_, cache) in self.0.live() {
                cache.register_metrics(meter);
            }
        }
    }
}
