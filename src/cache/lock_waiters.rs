//! Who waits for another instance's load, and is woken when that instance tells its end. Without a
//! bus, or if the event is lost, they look now and then of their own accord.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct LockWaiters {
    /// How many wait, so that an event asks with one read.
    count: AtomicUsize,
    /// A few: one for each key whose lock another instance has.
    waiting: Mutex<Vec<(Arc<str>, Arc<Notify>)>>,
}

/// A place among those who wait.
pub(super) struct LockWaiter<'a> {
    lock_waiters: &'a LockWaiters,
    /// Told when something is heard of the key; remembers one telling.
    pub(super) notified: Arc<Notify>,
}

impl LockWaiters {
    /// To be called before the last look, so that nothing is told in between.
    pub(super) fn register(&self, key: &Arc<str>) -> LockWaiter<'_> {
        let notified = Arc::new(Notify::new());
        self.waiting.lock().push((Arc::clone(key), Arc::clone(&notified)));
        self.count.fetch_add(1, Ordering::SeqCst);
        LockWaiter { lock_waiters: self, notified }
    }

    pub(super) fn wake(&self, key: &str) {
        if self.count.load(Ordering::SeqCst) > 0 {
            let waiting = self.waiting.lock();
            let of_key = waiting.iter().filter(|(other, _)| **other == *key);
            of_key.for_each(|(_, notified)| notified.notify_one());
        }
    }
}

impl Drop for LockWaiter<'_> {
    fn drop(&mut self) {
        self.lock_waiters
            .waiting
            .lock()
            .retain(|(_, notified)| !Arc::ptr_eq(notified, &self.notified));
        self.lock_waiters.count.fetch_sub(1, Ordering::SeqCst);
    }
}
