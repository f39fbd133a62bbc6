//! Closes a cache: refuse new calls, wait for the loads and writes that run, stop the rest, empty
//! L1. A cache that is dropped instead only publishes its outbox.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use super::state::{CacheBus, CacheState};
use crate::{
    flight::Origin,
    glob::Pattern,
    resilience::{DropGuard, has_timer, task_tracker::TaskTracker, timeout},
};

/// Time for stopped tasks to end; also the least time for the bus to publish its outbox.
const GRACE: Duration = Duration::from_secs(1);

impl<V: Send + Sync + 'static> CacheState<V> {
    /// `limit`: how long the loads, the writes and the messages of the outbox may take.
    pub(super) async fn close(&self, limit: Duration) {
        let begun = Instant::now();
        // Sequentially consistent, as is the count of the tasks: of this store and the token of a
        // write, one comes first.
        self.closed.store(true, Ordering::SeqCst);
        if let Some(bus) = &self.bus {
            bus.client.close();
        }
        // Runs also if the caller drops this future.
        // mutant closing-name: => let free_name = DropGuard::new(|| ());
        let free_name = DropGuard::new(|| {
            self.empty_l1();
            if let Some(bus) = &self.bus {
                bus.client.release_name();
            }
        });
        // A caller that begins a load has its task token once it has released the shard's lock.
        self.flights.barrier();
        self.drain(&self.running, limit).await;
        self.running.stop();
        // A stopped task ends at its next poll. A loader that blocks its thread is not polled,
        // and must not block the caller of `close`.
        self.drain(&self.running, GRACE).await;
        drop(free_name);
        if let Some(bus) = &self.bus {
            if has_timer() {
                let left = limit.saturating_sub(begun.elapsed());
                bus.client.shutdown(left.max(GRACE)).await;
            }
            if let Some(tasks) = bus.client.end() {
                self.drain(&tasks, GRACE).await;
            }
        }
        // A peer's value may have arrived meanwhile.
        self.empty_l1();
        self.report_lost();
    }

    /// Empties L1 of a closed cache. From here on no load begins, and no load that began can write
    /// L1.
    fn empty_l1(&self) {
        self.flights.invalidate_matching(Origin::Local, |_| true);
        self.l1.sweep(&Pattern::new("*")).for_each(drop);
    }

    /// Ends a cache whose last handle was dropped. If it was not closed and there is a runtime, a
    /// task publishes the outbox for at most a second and then says goodbye to the peers, so that
    /// they do not take the silence of this instance for a loss.
    pub(super) fn end_on_drop(self: &Arc<Self>) {
        // First: `close` of a manager, which finds this cache no more, waits for the token.
        let last_messages = self.bus.as_ref().map(|bus| bus.client.drop_token());
        self.running.stop();
        let Some(bus) = &self.bus else { return self.report_lost() };
        bus.client.close();
        // No call runs any more, and the next cache may be built before this one has drained.
        bus.client.release_name();
        self.closed.store(true, Ordering::Release);
        // mutant dropped-goodbye: s/last_runtime()/last_runtime().filter(|_| false)/
        let Some(runtime) = bus.client.last_runtime() else {
            bus.client.end();
            return self.report_lost();
        };
        let state = Arc::clone(self);
        // The guard runs also if the runtime shuts down before the task has ended.
        let end = DropGuard::new(move || {
            let Some(bus) = &state.bus else { return };
            bus.client.end();
            state.report_lost();
        });
        let (state, token) = (Arc::clone(self), bus.client.drop_token());
        runtime.spawn(token.run(async move {
            if let Some(bus) = &state.bus {
                bus.client.shutdown(GRACE).await;
            }
            drop(end);
        }));
        drop(last_messages);
    }

    /// A write that outlasts the close, by more than its deadline, has nobody to retry it.
    pub(super) fn report_lost_after_close(&self) {
        let has_ended = |bus: &CacheBus<V>| bus.client.has_ended();
        if self.bus.as_ref().map_or(self.running.is_stopped(), has_ended) {
            self.report_lost();
        }
    }

    /// Reports the invalidations that nobody retries any more, each once.
    fn report_lost(&self) {
        let pending = self.l2.as_ref().map_or(0, |l2| l2.pending_len());
        let reported = self.lost_in_l2.fetch_max(pending, Ordering::SeqCst);
        let l2 = pending.saturating_sub(reported);
        match &self.bus {
            Some(bus) => bus.client.report_lost(l2),
            None => self.observer.on_close_lost(l2, 0),
        }
    }

    /// Waits until the tasks have ended, for at most `limit`.
    async fn drain(&self, tasks: &TaskTracker, limit: Duration) {
        // Without a runtime there is no timer, and the loads run on the runtimes of other callers.
        if Handle::try_current().is_ok() {
            let _ = timeout(Some(limit), tasks.wait_idle()).await;
        }
    }
}
