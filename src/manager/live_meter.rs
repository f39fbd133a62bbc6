//! Feature `opentelemetry`: the meter of a manager, and what it needs of any cache.

use std::sync::OnceLock;

use opentelemetry::metrics::Meter;

use crate::cache::LazyLayersCache;

/// The part of any cache that registers its metrics.
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
    /// Keeps the meter, unless there is one already. Returns whether it did.
    pub(super) fn set(&self, meter: &Meter) -> bool {
        self.0.set(meter.clone()).is_ok()
    }

    /// Registers a cache that was just built.
    pub(super) fn register<T: RegisterMetrics + ?Sized>(&self, cache: &T) {
        if let Some(meter) = self.0.get() {
            cache.register_metrics(meter);
        }
    }
}
