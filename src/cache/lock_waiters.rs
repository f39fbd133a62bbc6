//! Who waits for another instance's load, and is woken when that instance tells its end. Without a
//! bus, or if the event is lost, they look now and then of their own accord.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Wakes {
    /// How many wait, so that an event asks with one read.
    count: AtomicUsize,
    /// A few: one for each key whose lock another instance has.
    waiting: Mutex<Vec<(Arc<str>, Arc<Notify>)>>,
}

/// A place among those who wait.
pub(super) struct Sleeper<'a> {
    wakes: &'a Wakes,
    /// Told when something is heard of the key; remembers one telling.
    pub(super) called: Arc<Notify>,
}

impl Wakes {
    /// To be called before the last look, so that nothing is told in between.
    pub(super) fn sleeper(&self, key: &Arc<str>) -> Sleeper<'_> {
        let called = Arc::new(Notify::new());
        self.waiting.lock().push((Arc::clone(key), Arc::clone(&called)));
        self.count.fetch_add(1, Ordering::SeqCst);
        Sleeper { wakes: self, called }
    }

    pub(super) fn wake(&self, key: &str) {
        if self.count.load(Ordering::SeqCst) > 0 {
            let waiting = self.waiting.lock();
            let of_key = waiting.iter().filter(|(other, _)| **other == *key);
            of_key.for_each(|(_, called)| called.notify_one());
        }
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.wakes.waiting.lock().retain(|(_, called)| !Arc::ptr_eq(called, &self.called));
        self.wakes.count.fetch_sub(1, Ordering::SeqCst);
    }
}
