//! Deletes that did not reach the shared level are made up for in the background, as soon as it
//! answers.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::sleep};

use super::state::CacheState;
use crate::{
    bus::Change,
    l2::PendingInvalidation,
    resilience::{Backoff, has_timer},
    time::SystemClock,
};

impl<V: Send + Sync + 'static> CacheState<V> {
    /// Sees to it that what is owed to the shared level is paid: by one task, which ends when it
    /// is, or with the cache. To be called wherever something may have come to be owed, and where
    /// the shared level is asked: for a caller that went away may have left a debt, or a runtime
    /// that shut down the task.
    pub(super) fn repay(self: &Arc<Self>) {
        let Some(l2) = &self.l2 else { return };
        if l2.owes() == 0 || !has_timer() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if !l2.take_over_debts() {
            return;
        }
        let token = self.running.token();
        let payer = Payer { state: Arc::clone(self), has_paid: false };
        runtime.spawn(token.run(async move {
            payer.state.pay_back().await;
            payer.has_paid();
        }));
    }

    async fn pay_back(self: &Arc<Self>) {
        let Some(l2) = &self.l2 else { return };
        let clock = self.clock.as_deref().unwrap_or(&SystemClock);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        // Others were told at once, and may have read the old value since.
        let paid_for = |debt: &PendingInvalidation| {
            let name = Arc::clone(&debt.name);
            // mutant pending-broadcast: s/self.enqueue(/drop(/
            self.enqueue(if debt.is_pattern {
                Change::Pattern(name)
            } else {
                Change::Delete(name)
            });
        };
        while l2.repay(&self.observer, clock, paid_for).await.is_err() {
            sleep(backoff.next(fastrand::f64())).await;
        }
    }
}

/// Lets another task take over where this one was dropped before its end: with its runtime, say.
struct Payer<V: Send + Sync + 'static> {
    state: Arc<CacheState<V>>,
    has_paid: bool,
}

impl<V: Send + Sync + 'static> Payer<V> {
    fn has_paid(mut self) {
        self.has_paid = true;
    }
}

impl<V: Send + Sync + 'static> Drop for Payer<V> {
    fn drop(&mut self) {
        if let Some(l2) = self.state.l2.as_ref().filter(|_| !self.has_paid) {
            l2.give_up_debts();
        }
    }
}
