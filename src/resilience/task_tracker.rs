//! The loads that are running: counted, waited for, ended.
//!
//! tokio-util has this as `TaskTracker` and `CancellationToken`. Together they bring twelve
//! crates, a macro parser among them, into a cache that needs no other.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use super::unless;

/// Handles are one and the same.
#[derive(Clone, Default)]
pub(crate) struct TaskTracker(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Tokens that are out.
    count: AtomicUsize,
    /// Told when the last of them is back.
    idle: Notify,
    stopped: AtomicBool,
    /// Told when `stopped` is set.
    stop: Notify,
}

/// Held by a load from before its first poll to its end, wherever that is.
pub(crate) struct Token(TaskTracker);

impl TaskTracker {
    pub(crate) fn token(&self) -> Token {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        Token(self.clone())
    }

    /// Waits until no load is running.
    pub(crate) async fn idle(&self) {
        loop {
            // Made before the question, it hears of every answer that changes after it.
            let told = self.0.idle.notified();
            if self.0.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            told.await;
        }
    }

    /// Ends all loads at their next poll, those to come too.
    pub(crate) fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        self.0.stop.notify_waiters();
    }
}

impl Token {
    /// Runs a load to its end, or until it is stopped.
    pub(crate) async fn run(self, load: impl Future<Output = ()>) {
        let inner = &self.0.0;
        // Made before the question, it hears of a stop that comes after it.
        let told = inner.stop.notified();
        if !inner.stopped.load(Ordering::SeqCst) {
            unless(told, load).await;
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let inner = &self.0.0;
        if inner.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            inner.idle.notify_waiters();
        }
    }
}
