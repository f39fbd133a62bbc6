//! Pattern deletes that are on their way through memory.
//!
//! A pattern delete takes the right to publish from all running loads first and then walks
//! memory. A load that begins during the walk would still find an old copy where the walk has not
//! been, take it along as its stale copy, and put it back behind the walk when it fails. So while
//! a walk lasts, loads of keys that it matches begin with empty hands.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;

use crate::glob::Pattern;

#[derive(Default)]
pub(super) struct ActivePatterns {
    /// How many there are, so that loads ask with one read.
    count: AtomicUsize,
    patterns: Mutex<Vec<Arc<Pattern>>>,
}

/// A pattern delete's time on the list.
pub(super) struct Sweep<'a> {
    active_patterns: &'a ActivePatterns,
    pattern: Arc<Pattern>,
}

impl ActivePatterns {
    /// To be called before the right to publish is taken from the running loads: taking it locks
    /// every shard of flights, so whoever begins a load after that sees the count.
    pub(super) fn begin(&self, pattern: Arc<Pattern>) -> Sweep<'_> {
        self.patterns.lock().push(Arc::clone(&pattern));
        self.count.fetch_add(1, Ordering::SeqCst);
        Sweep { active_patterns: self, pattern }
    }

    /// Whether a copy of this key must not be taken along.
    pub(super) fn covers(&self, key: &str) -> bool {
        self.count.load(Ordering::SeqCst) > 0
            && self.patterns.lock().iter().any(|pattern| pattern.matches(key))
    }
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        self.active_patterns.count.fetch_sub(1, Ordering::SeqCst);
        self.active_patterns.patterns.lock().retain(|other| !Arc::ptr_eq(other, &self.pattern));
    }
}
