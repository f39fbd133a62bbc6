//! Feature `metrics`: exports all caches of a manager to the recorder of the `metrics` facade.

use std::{sync::Arc, time::Duration};

use super::{cache_manager::CacheManager, registry::Manager};
use crate::{cache::MetricsExport, error::Error};

impl CacheManager {
    /// Writes the counters and gauges of all caches to the recorder of the `metrics` crate (feature
    /// `metrics`), as [`LazyLayersCache::export_metrics`](crate::LazyLayersCache::export_metrics)
    /// does for one. Call it before each scrape, or have it called by
    /// [`export_metrics_every`](Self::export_metrics_every).
    ///
    /// ```
    /// # use lazy_layers_cache::CacheManager;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    /// let scrape = recorder.handle();
    /// metrics::set_global_recorder(recorder)?;
    ///
    /// let manager = CacheManager::builder().build()?;
    /// let users = manager.cache::<u64, String>("users").build()?;
    /// let mails = manager.cache::<u64, String>("mails").build()?;
    /// users.get(&7).await;
    /// manager.export_metrics();
    /// assert!(scrape.render().contains("lazy_layers_cache_misses_total{cache=\"users\"} 1"));
    /// assert!(scrape.render().contains("lazy_layers_cache_misses_total{cache=\"mails\"} 0"));
    /// # Ok(()) }
    /// ```
    pub fn export_metrics(&self) {
        export(&self.0);
    }

    /// Exports now, as [`export_metrics`](Self::export_metrics) does, and then every `interval`
    /// (10 s, say; at least 100 ms), in a task of the current runtime; caches that are built later
    /// too. The task ends when the returned handle or the last handle of the manager is dropped, or
    /// with the runtime. It does not keep the manager alive. `close` leaves it running.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::CacheManager;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = CacheManager::builder().build()?;
    /// let users = manager.cache::<u64, String>("users").build()?;
    /// // `let _ = ..` would end the export at once.
    /// let _export = manager.export_metrics_every(Duration::from_secs(10))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// There is no tokio runtime with a timer here ([`NoRuntime`](crate::ErrorKind::NoRuntime)).
    /// Then nothing was exported.
    pub fn export_metrics_every(&self, interval: Duration) -> Result<MetricsExport, Error> {
        let manager = Arc::downgrade(&self.0);
        MetricsExport::every(interval, move || {
            manager.upgrade().is_some_and(|manager| {
                export(&manager);
                true
            })
        })
    }
}

fn export(manager: &Manager) {
    for (_, cache) in manager.live() {
        cache.export_metrics();
    }
}
