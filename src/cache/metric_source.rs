//! The cache as the features of metrics read it.

use super::state::CacheState;
use crate::observe::{Label, MetricSource, Snapshot};

impl<V: Send + Sync + 'static> MetricSource for CacheState<V> {
    fn label(&self) -> &Label {
        &self.observer.metrics.label
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            stats: self.stats(),
            health: self.health(),
            pending_invalidations: self.l2.as_ref().map(|l2| l2.pending_len()),
        }
    }
}
