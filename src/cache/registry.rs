//! Small lists that are empty most of the time: the pattern deletes that walk L1, and the callers
//! that wait for the lock of a peer. A check of an empty list costs one atomic read.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::glob::Pattern;

/// The pattern deletes that are walking L1.
///
/// A pattern delete first revokes the tickets of the matching loads, then walks L1. A load that
/// begins during the walk would find an old entry that the walk has not reached, keep it as its
/// stale copy, and store it again behind the walk when the loader fails. So while a walk lasts,
/// loads of the keys that its pattern matches begin without a stale copy. The pattern is inserted
/// before the tickets are revoked: that locks every shard of the flights, so each load that begins
/// later sees the pattern.
pub(super) type ActivePatterns = Registry<Pattern>;

/// The callers that wait for the load of a peer, which holds the distributed lock of their key.
/// The subscriber wakes them when a message about the key was applied. Without a bus, or if the
/// message is lost, they poll. A caller is inserted before it looks in L2 once more, so that it
/// misses no message.
pub(super) type LockWaiters = Registry<LockWaiter>;

pub(super) struct LockWaiter {
    pub(super) key: Arc<str>,
    /// Notified by the subscriber; one notification is kept for a caller that does not wait yet.
    pub(super) notified: Notify,
}

pub(super) struct Registry<T> {
    count: AtomicUsize,
    items: Mutex<Vec<Arc<T>>>,
}

/// An item of a registry, until it is dropped.
pub(super) struct Registered<'a, T> {
    registry: &'a Registry<T>,
    pub(super) item: Arc<T>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self { count: AtomicUsize::new(0), items: Mutex::default() }
    }
}

impl<T> Registry<T> {
    pub(super) fn insert(&self, item: Arc<T>) -> Registered<'_, T> {
        self.items.lock().push(Arc::clone(&item));
        self.count.fetch_add(1, Ordering::SeqCst);
        Registered { registry: self, item }
    }
}

impl<T> Drop for Registered<'_, T> {
    fn drop(&mut self) {
        self.registry.items.lock().retain(|other| !Arc::ptr_eq(other, &self.item));
        self.registry.count.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ActivePatterns {
    /// Returns whether a load of this key must begin without a stale copy.
    pub(super) fn covers(&self, key: &str) -> bool {
        self.count.load(Ordering::SeqCst) > 0
            && self.items.lock().iter().any(|pattern| pattern.matches(key))
    }
}

impl LockWaiters {
    pub(super) fn wake(&self, key: &str) {
        if self.count.load(Ordering::SeqCst) > 0 {
            let is_it = |waiter: &&Arc<LockWaiter>| *waiter.key == *key;
            let waiters: Vec<_> = self.items.lock().iter().filter(is_it).cloned().collect();
            // A waker runs foreign code: no lock is held.
            waiters.iter().for_each(|waiter| waiter.notified.notify_one());
        }
    }
}
