//! Task tracker: counts running tasks, waits until all have ended, and cancels them.
//!
//! Alternatives considered: `TaskTracker` and `CancellationToken` of tokio-util. They bring twelve
//! crates, a macro parser among them, into a library that needs no other of them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use super::deadline::run_until;

/// Counts and cancels tasks. All clones of a tracker share one count.
#[derive(Clone, Default)]
pub(crate) struct TaskTracker(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Number of tokens.
    count: AtomicUsize,
    idle: Notify,
    stopped: AtomicBool,
    stop: Notify,
}

/// Counts as one running task, from before its first poll to its end.
pub(crate) struct TaskToken(TaskTracker);

impl TaskTracker {
    pub(crate) fn token(&self) -> TaskToken {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        TaskToken(self.clone())
    }

    /// Waits until no task is running.
    pub(crate) async fn wait_idle(&self) {
        loop {
            // Created before the count is read, so that a token dropped in between wakes it.
            let idle = self.0.idle.notified();
            if self.0.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Waits until the tracker is stopped.
    pub(crate) async fn wait_stopped(&self) {
        // Created before the flag is read, so that a stop in between wakes it.
        let stop = self.0.stop.notified();
        if !self.is_stopped() {
            stop.await;
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    /// Cancels every task at its next poll, including tasks that start later.
    pub(crate) fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        self.0.stop.notify_waiters();
    }
}

impl TaskToken {
    /// Runs `task` to its end, or until the tracker is stopped.
    pub(crate) async fn run(self, task: impl Future<Output = ()>) {
        run_until(task, self.0.wait_stopped()).await;
    }
}

impl Drop for TaskToken {
    fn drop(&mut self) {
        if self.0.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.0.idle.notify_waiters();
        }
    }
}
