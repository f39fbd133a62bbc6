//! The end: refuse, drain, drop, empty.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::runtime::Handle;

use super::shared::Shared;
use crate::{pattern::Pattern, resilience::within};

impl<V: Send + Sync + 'static> Shared<V> {
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(fleet) = &self.fleet {
            fleet.closed.notify_waiters();
        }
        // Whoever begins a load has its token once it has let go of the lock.
        self.flights.settle();
        self.drained_within(self.options.close_timeout).await;
        self.running.stop();
        // What is left ends at its next poll. A loader that blocks its thread has no next poll,
        // and must not hold up whoever closes the cache.
        self.drained_within(GRACE).await;
        if Handle::try_current().is_ok() {
            self.leave_the_fleet(self.options.close_timeout).await;
        }
        // From here on nothing is begun (see `Look::Closed`), and nothing that began is published.
        self.flights.invalidate_matching(|_| true);
        self.l1.sweep(&Pattern::new("*")).for_each(drop);
    }

    async fn drained_within(&self, limit: Duration) {
        // Without a runtime there is no timer, and loads are on the runtime of somebody else.
        if Handle::try_current().is_ok() {
            let _ = within(Some(limit), self.running.idle()).await;
        }
    }
}

const GRACE: Duration = Duration::from_secs(1);
