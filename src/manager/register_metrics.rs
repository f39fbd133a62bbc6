//! Feature `opentelemetry`: registers all caches of a manager with a meter.

use opentelemetry::metrics::Meter;

use super::cache_manager::CacheManager;

impl CacheManager {
    /// Registers the metrics of all caches with a meter of OpenTelemetry (feature `opentelemetry`),
    /// as [`LazyLayersCache::register_metrics`](crate::LazyLayersCache::register_metrics) does for
    /// one: those that live now, and each that is built later. The first call counts; later calls
    /// do nothing.
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
        if self.0.meter.set(meter) {
            for (_, cache) in self.0.live() {
                cache.register_metrics(meter);
            }
        }
    }
}
