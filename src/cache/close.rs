//! The end: refuse, drain, drop, empty.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use super::state::Shared;
use crate::resilience::task_tracker::TaskTracker;
use crate::{
    glob::Pattern,
    resilience::{has_timer, timeout},
};

impl<V: Send + Sync + 'static> Shared<V> {
    pub(super) async fn close(&self) {
        let until = self.options.close_timeout;
        let begun = Instant::now();
        self.closed.store(true, Ordering::Release);
        if let Some(fleet) = &self.fleet {
            fleet.closed.notify_waiters();
        }
        // Whoever begins a load has its token once it has let go of the lock.
        self.flights.settle();
        self.drained_within(&self.running, until).await;
        self.running.stop();
        // What is left ends at its next poll. A loader that blocks its thread has no next poll,
        // and must not hold up whoever closes the cache.
        self.drained_within(&self.running, GRACE).await;
        if let Some(fleet) = &self.fleet {
            if has_timer() {
                self.leave_the_fleet(until.saturating_sub(begun.elapsed()).max(GRACE)).await;
            }
            fleet.tasks.stop();
            self.drained_within(&fleet.tasks, GRACE).await;
        }
        // From here on nothing is begun (see `Look::Closed`), and nothing that began is published.
        self.flights.invalidate_matching(|_| true);
        self.l1.sweep(&Pattern::new("*")).for_each(drop);
    }

    async fn drained_within(&self, tasks: &TaskTracker, limit: Duration) {
        // Without a runtime there is no timer, and loads are on the runtime of somebody else.
        if Handle::try_current().is_ok() {
            let _ = timeout(Some(limit), tasks.idle()).await;
        }
    }
}

const GRACE: Duration = Duration::from_secs(1);
