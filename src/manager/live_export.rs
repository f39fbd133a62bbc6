//! Feature `metrics`: what an export of all caches of a manager needs of each.

use crate::cache::LazyLayersCache;

/// The part of any cache that exports its metrics.
pub(super) trait ExportMetrics {
    fn export_metrics(&self);
}

impl<K: ?Sized, V: Send + Sync + 'static> ExportMetrics for LazyLayersCache<K, V> {
    fn export_metrics(&self) {
        Self::export_metrics(self);
    }
}
