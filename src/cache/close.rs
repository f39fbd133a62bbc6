//! The end: refuse, drain, drop, empty.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use super::state::CacheState;
use crate::resilience::task_tracker::TaskTracker;
use crate::{
    glob::Pattern,
    resilience::{has_timer, timeout},
};

impl<V: Send + Sync + 'static> CacheState<V> {
    pub(super) async fn close(&self) {
        let until = self.options.close_timeout;
        let begun = Instant::now();
        self.closed.store(true, Ordering::Release);
        if let Some(bus) = &self.bus {
            bus.closed.notify_waiters();
        }
        // Whoever begins a load has its token once it has let go of the lock.
        self.flights.settle();
        self.drained_within(&self.running, until).await;
        self.running.stop();
        // What is left ends at its next poll. A loader that blocks its thread has no next poll,
        // and must not hold up whoever closes the cache.
        self.drained_within(&self.running, GRACE).await;
        if let Some(bus) = &self.bus {
            if has_timer() {
                self.shutdown_bus(until.saturating_sub(begun.elapsed()).max(GRACE)).await;
            }
            bus.tasks.stop();
            self.drained_within(&bus.tasks, GRACE).await;
        }
        // From here on nothing is begun (see `Look::Closed`), and nothing that began is published.
        self.flights.invalidate_matching(|_| true);
        self.l1.sweep(&Pattern::new("*")).for_each(drop);
    }

    async fn drained_within(&self, tasks: &TaskTracker, limit: Duration) {
        // Without a runtime there is no timer, and loads are on the runtime of somebody else.
        if Handle::try_current().is_ok() {
            let _ = timeout(Some(limit), tasks.wait_idle()).await;
        }
    }
}

const GRACE: Duration = Duration::from_secs(1);
