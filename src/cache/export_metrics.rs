//! Feature `metrics`: exports a cache to the recorder of the `metrics` facade, once or regularly.

use std::time::Duration;

use tokio::{task::AbortHandle, time::sleep};

use super::handle::LazyLayersCache;
use crate::{
    contain::contain,
    error::{Cause, Error},
    observe::export_metrics,
    resilience::has_timer,
};

/// A shorter interval counts as this one.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// A task that exports metrics regularly: those of a cache, see
/// [`LazyLayersCache::export_metrics_every`], or of all caches of a manager, see
/// [`CacheManager::export_metrics_every`](crate::CacheManager::export_metrics_every). Dropping it
/// ends the task.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{LazyLayersCache, MetricsExport};
///
/// /// The state of a service. Its metrics end with it.
/// struct Service { users: LazyLayersCache<u64, String>, metrics: MetricsExport }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let users = LazyLayersCache::<u64, String>::builder().name("users").build()?;
/// let metrics = users.export_metrics_every(Duration::from_secs(10))?;
/// let service = Service { users, metrics };
/// # let _ = (&service.users, &service.metrics);
/// # Ok(()) }
/// ```
#[must_use = "dropping it ends the export"]
#[derive(Debug)]
pub struct MetricsExport(AbortHandle);

impl Drop for MetricsExport {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl MetricsExport {
    /// Calls `export` now, and then at each interval in a task, until it returns false.
    pub(crate) fn every(
        interval: Duration,
        export: impl Fn() -> bool + Send + 'static,
    ) -> Result<Self, Error> {
        if !has_timer() {
            return Err(Error::without_key(Cause::NoRuntime));
        }
        export();
        let interval = interval.max(MIN_INTERVAL);
        let task = tokio::spawn(async move {
            loop {
                sleep(interval).await;
                // A recorder that panics once may work the next time.
                if contain(&export).is_ok_and(|goes_on| !goes_on) {
                    return;
                }
            }
        });
        Ok(Self(task.abort_handle()))
    }
}

impl<K: ?Sized, V: Send + Sync + 'static> LazyLayersCache<K, V> {
    /// Writes all counters and gauges of this cache to the recorder of the `metrics` crate (feature
    /// `metrics`). Call it before each scrape, or have it called by
    /// [`export_metrics_every`](Self::export_metrics_every).
    ///
    /// `docs/metrics.md` in the repository lists the metrics. Their label `cache` is the name of
    /// the cache; no metric has a key as a label. A cache without a name has the label `unnamed`.
    /// While several caches of one name live in the process, the later ones have the labels
    /// `users#2`, `users#3` and so on; a cache that is built after the last one of its name was
    /// dropped continues the counters of that one.
    ///
    /// The durations of loads, calls of L2 and publications need no export: with the feature, each
    /// is recorded when it ends, in a histogram of the recorder that is installed then.
    ///
    /// The facade cannot remove a gauge: after the last handle of a cache is dropped, its gauges
    /// keep their last values until the recorder removes them (`idle_timeout` of
    /// `metrics-exporter-prometheus`). An export after [`close`](Self::close) says
    /// `lazy_layers_cache_closed 1`, and that L1 is empty.
    ///
    /// ```
    /// # use lazy_layers_cache::LazyLayersCache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    /// let scrape = recorder.handle();
    /// metrics::set_global_recorder(recorder)?;
    ///
    /// let users = LazyLayersCache::<u64, String>::builder().name("users").build()?;
    /// users.get(&7).await;
    /// users.export_metrics();
    /// assert!(scrape.render().contains("lazy_layers_cache_misses_total{cache=\"users\"} 1"));
    /// # Ok(()) }
    /// ```
    pub fn export_metrics(&self) {
        export_metrics(&*self.state);
    }

    /// Exports now, as [`export_metrics`](Self::export_metrics) does, and then every `interval`
    /// (10 s, say; at least 100 ms), in a task of the current runtime. The task ends when the
    /// returned handle is dropped, when the last handle of the cache is dropped, or with the
    /// runtime. It does not keep the cache alive. `close` leaves it running, so that it exports the
    /// end of the cache too.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let users = LazyLayersCache::<u64, String>::builder().name("users").build()?;
    /// // `let _ = ..` would end the export at once.
    /// let _export = users.export_metrics_every(Duration::from_secs(10))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// There is no tokio runtime with a timer here ([`NoRuntime`](crate::ErrorKind::NoRuntime)).
    /// Then nothing was exported.
    pub fn export_metrics_every(&self, interval: Duration) -> Result<MetricsExport, Error> {
        let cache = self.weak_state();
        MetricsExport::every(interval, move || {
            cache.upgrade().is_some_and(|state| {
                export_metrics(&*state);
                true
            })
        })
    }
}
