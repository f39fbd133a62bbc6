//! Feature `opentelemetry`: registers the instruments of a cache with a meter.

use std::sync::Arc;

use opentelemetry::metrics::Meter;

use super::handle::LazyLayersCache;

impl<K: ?Sized, V: Send + Sync + 'static> LazyLayersCache<K, V> {
    /// Registers the metrics of this cache with a meter of OpenTelemetry (feature `opentelemetry`):
    /// observable counters and gauges, which are read when they are collected, and histograms of
    /// the durations of loads, calls of L2 and publications. The first call counts; later calls do
    /// nothing. Give all caches of a process the same meter.
    ///
    /// `docs/metrics.md` in the repository lists the metrics. Their attribute `cache` is the name
    /// of the cache; no metric has a key as an attribute. A cache without a name has the attribute
    /// `unnamed`. While several caches of one name live in the process, the later ones have the
    /// attributes `users#2`, `users#3` and so on.
    ///
    /// The instruments do not keep the cache alive: after its last handle is dropped, its counters
    /// and gauges are no longer reported. The SDK goes on to report the durations that were
    /// recorded, and has no way to remove a callback, so that a few kilobytes stay for each cache
    /// that was registered.
    ///
    /// ```
    /// # use lazy_layers_cache::LazyLayersCache;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let meter = opentelemetry::global::meter("my-service");
    /// let users = LazyLayersCache::<u64, String>::builder().name("users").build()?;
    /// users.register_metrics(&meter);
    /// # Ok(()) }
    /// ```
    pub fn register_metrics(&self, meter: &Meter) {
        let cache = Arc::new(self.weak_state());
        let source = move || cache.upgrade();
        let metrics = &self.state.observer.metrics;
        metrics.otel.register(meter, &metrics.label, source);
    }
}
