//! Pending invalidations: deletes that have not reached L2 yet. Until they have, the cache does not
//! read the keys that they cover from L2.
//!
//! The queue is bounded and never drops an invalidation. A full queue is replaced by one pending
//! invalidation of all keys: one of more than 10,000 keys, or of more than 100 patterns.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    glob::Pattern,
    resilience::{run_until, task_tracker::TaskTracker},
};

#[derive(Default)]
pub(crate) struct PendingInvalidations {
    state: Mutex<State>,
    /// Notified when an invalidation has reached the store.
    completed: Notify,
    /// The length of the queue, so that a read without pending invalidations takes no lock.
    len: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// Each pending key, with its number in the queue.
    keys: HashMap<Arc<str>, u64>,
    patterns: HashMap<Arc<str>, (u64, Pattern)>,
    /// All pending invalidations, in the order in which they are retried.
    queue: BTreeMap<u64, PendingInvalidation>,
    /// The last number given. An invalidation that is recorded again while it is retried gets a
    /// new number, so the retry does not complete it.
    last_number: u64,
    has_worker: bool,
}

const MAX_KEYS: usize = 10_000;
const MAX_PATTERNS: usize = 100;
const ALL: &str = "*";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingInvalidation {
    /// A key, or a glob.
    pub(crate) name: Arc<str>,
    pub(crate) is_pattern: bool,
    /// How often its retry has failed.
    pub(super) failures: u32,
    number: u64,
    /// The number of the oldest call that waits for this: a repeated invalidation, and one of all
    /// keys, also stand for those that they have replaced in the queue.
    since: u64,
}

/// Result of [`record`](PendingInvalidations::record).
#[derive(Debug, Default)]
pub(super) struct Recorded {
    number: u64,
    /// The queue was full, and is one invalidation of all keys now.
    pub(super) is_overflow: bool,
}

/// A pending invalidation, for the caller that waits until it has reached the store.
#[derive(Clone)]
pub(crate) struct InvalidationWatch {
    pending: Arc<PendingInvalidations>,
    /// The retry task is one of these.
    tasks: TaskTracker,
    name: Arc<str>,
    is_pattern: bool,
    number: u64,
}

impl InvalidationWatch {
    pub(super) fn new(
        pending: Arc<PendingInvalidations>,
        tasks: TaskTracker,
        name: Arc<str>,
        is_pattern: bool,
        recorded: &Recorded,
    ) -> Self {
        Self { pending, tasks, name, is_pattern, number: recorded.number }
    }

    /// Waits until the invalidation has reached the store. Returns `false` if the cache was closed
    /// or dropped before.
    pub(crate) async fn wait_reached(&self) -> bool {
        let reached = async {
            loop {
                // Created before the check, so that no completion after the check is missed.
                let completed = self.pending.completed.notified();
                if self.has_reached() {
                    return;
                }
                completed.await;
            }
        };
        run_until(reached, self.tasks.wait_stopped()).await;
        self.has_reached()
    }

    /// Whether the invalidation has reached the store.
    pub(crate) fn has_reached(&self) -> bool {
        !self.pending.is_pending(&self.name, self.is_pattern, self.number)
    }
}

impl PendingInvalidations {
    pub(super) fn record(&self, name: &str, is_pattern: bool) -> Recorded {
        let state = &mut *self.state.lock();
        let replaced = state.remove(name, is_pattern);
        let failures = replaced.as_ref().map_or(0, |replaced| replaced.failures);
        let since = replaced.map(|replaced| replaced.since);
        let number = state.push(Arc::from(name), is_pattern, failures, since);
        let is_all = is_pattern && name == ALL;
        let is_overflow = state.keys.len() > MAX_KEYS || state.patterns.len() > MAX_PATTERNS;
        if is_all || is_overflow {
            let since = state.queue.values().map(|replaced| replaced.since).min();
            state.keys.clear();
            state.patterns.clear();
            state.queue.clear();
            state.push(Arc::from(ALL), true, 0, since);
        }
        self.len.store(state.queue.len(), Ordering::SeqCst);
        Recorded { number, is_overflow }
    }

    /// Whether the invalidation that was recorded under this number is in the queue, as itself or
    /// as part of another one.
    fn is_pending(&self, name: &str, is_pattern: bool, number: u64) -> bool {
        let state = self.state.lock();
        let itself = state.number_of(name, is_pattern);
        let queued = [itself, state.number_of(ALL, true)].into_iter().flatten();
        let mut queued = queued.filter_map(|number| state.queue.get(&number));
        queued.any(|queued| queued.since <= number)
    }

    /// Whether a pending invalidation covers this key, so that L2 may still hold an old value.
    pub(super) fn covers(&self, key: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let state = self.state.lock();
        state.keys.contains_key(key)
            || state.patterns.values().any(|(_, pattern)| pattern.matches(key))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    /// Makes the caller the retry worker: `true` if an invalidation is pending and there is no
    /// worker. The caller is the worker until [`next`](Self::next) returns `None`, or until it
    /// calls [`release`](Self::release).
    pub(super) fn try_claim(&self) -> bool {
        let state = &mut *self.state.lock();
        let is_claimed = !state.has_worker && !state.queue.is_empty();
        state.has_worker |= is_claimed;
        is_claimed
    }

    pub(super) fn release(&self) {
        self.state.lock().has_worker = false;
    }

    /// Returns the first of the queue, which stays in it. If the queue is empty, clears
    /// `has_worker` under the same lock, so that the next recorded invalidation starts a new
    /// worker.
    pub(super) fn next(&self) -> Option<PendingInvalidation> {
        let state = &mut *self.state.lock();
        let first = state.queue.values().next().cloned();
        state.has_worker &= first.is_some();
        first
    }

    /// Removes an invalidation that has reached the store, unless it was recorded again meanwhile.
    pub(super) fn complete(&self, done: &PendingInvalidation) {
        let state = &mut *self.state.lock();
        if state.queue.contains_key(&done.number) {
            state.remove(&done.name, done.is_pattern);
            self.len.store(state.queue.len(), Ordering::SeqCst);
            self.completed.notify_waiters();
        }
    }

    /// Moves an invalidation that failed again to the end of the queue.
    pub(super) fn requeue(&self, failed: &PendingInvalidation) {
        let state = &mut *self.state.lock();
        if state.queue.contains_key(&failed.number) {
            state.remove(&failed.name, failed.is_pattern);
            let failures = failed.failures.saturating_add(1);
            let since = Some(failed.since);
            state.push(Arc::clone(&failed.name), failed.is_pattern, failures, since);
        }
    }
}

impl State {
    /// Adds an invalidation at the end of the queue and returns its number.
    fn push(&mut self, name: Arc<str>, is_pattern: bool, failures: u32, since: Option<u64>) -> u64 {
        self.last_number += 1;
        let number = self.last_number;
        if is_pattern {
            self.patterns.insert(Arc::clone(&name), (number, Pattern::new(&name)));
        } else {
            self.keys.insert(Arc::clone(&name), number);
        }
        let since = since.unwrap_or(number);
        self.queue
            .insert(number, PendingInvalidation { name, is_pattern, failures, number, since });
        number
    }

    fn remove(&mut self, name: &str, is_pattern: bool) -> Option<PendingInvalidation> {
        let number = if is_pattern {
            self.patterns.remove(name).map(|(number, _)| number)
        } else {
            self.keys.remove(name)
        };
        number.and_then(|number| self.queue.remove(&number))
    }

    fn number_of(&self, name: &str, is_pattern: bool) -> Option<u64> {
        if is_pattern {
            self.patterns.get(name).map(|(number, _)| *number)
        } else {
            self.keys.get(name).copied()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_invalidation_covers_its_keys_until_it_is_complete() {
        let pending = PendingInvalidations::default();
        assert!(!pending.covers("a"));
        pending.record("a", false);
        pending.record("b:*", true);
        assert!(pending.covers("a") && pending.covers("b:1") && !pending.covers("c"));
        while let Some(next) = pending.next() {
            pending.complete(&next);
        }
        assert!(!pending.covers("a") && !pending.covers("b:1") && pending.is_empty());
    }

    #[test]
    fn an_invalidation_recorded_again_while_it_is_retried_stays_pending() {
        let pending = PendingInvalidations::default();
        for record in [
            |pending: &PendingInvalidations| pending.record("a", false),
            |pending: &PendingInvalidations| pending.record("a*", true),
        ] {
            record(&pending);
            let retried = pending.next().unwrap();
            record(&pending);
            pending.complete(&retried);
            assert!(pending.covers("a"));
            pending.complete(&pending.next().unwrap());
            assert!(pending.is_empty());
        }
    }

    #[test]
    fn a_failed_invalidation_goes_to_the_end_of_the_queue() {
        let pending = PendingInvalidations::default();
        pending.record("a*", true);
        pending.record("b", false);
        for _ in 0..2 {
            pending.requeue(&pending.next().unwrap());
        }
        assert_eq!((pending.len(), pending.covers("a"), pending.covers("b")), (2, true, true));
        pending.requeue(&pending.next().unwrap());
        let next = pending.next().unwrap();
        assert_eq!(&*next.name, "b");
        pending.complete(&next);
        assert_eq!(&*pending.next().unwrap().name, "a*");
        pending.complete(&pending.next().unwrap());
        assert!(pending.is_empty());
    }

    #[test]
    fn there_is_one_worker_and_none_once_the_queue_is_empty() {
        let pending = PendingInvalidations::default();
        assert!(!pending.try_claim());
        pending.record("a", false);
        assert!(pending.try_claim() && !pending.try_claim());
        pending.release();
        assert!(pending.try_claim());
        pending.complete(&pending.next().unwrap());
        // The worker has not asked for the next one yet, so it will find this one.
        pending.record("b", false);
        assert!(!pending.try_claim());
        pending.complete(&pending.next().unwrap());
        assert_eq!(pending.next(), None);
        pending.record("c", false);
        assert!(pending.try_claim());
    }

    #[test]
    fn a_call_waits_for_its_own_invalidation_also_as_a_part_of_a_wider_one() {
        let pending = PendingInvalidations::default();
        let key = pending.record("a", false).number;
        let pattern = pending.record("b*", true).number;
        pending.requeue(&pending.next().unwrap());
        assert!(pending.is_pending("a", false, key) && pending.is_pending("b*", true, pattern));
        pending.complete(&pending.next().unwrap());
        assert!(!pending.is_pending("b*", true, pattern) && pending.is_pending("a", false, key));
        let again = pending.record("b*", true).number;
        assert!(!pending.is_pending("b*", true, pattern), "that one has arrived");
        pending.record("*", true);
        assert!(pending.is_pending("a", false, key) && pending.is_pending("b*", true, again));
        pending.complete(&pending.next().unwrap());
        assert!(!pending.is_pending("a", false, key) && !pending.is_pending("b*", true, again));
        pending.record("*", true);
        assert!(!pending.is_pending("a", false, key), "recorded after it has arrived");
    }

    #[test]
    fn a_full_queue_becomes_one_invalidation_of_all_keys() {
        for pattern in [false, true] {
            let pending = PendingInvalidations::default();
            let first = pending.record("0:*", pattern).number;
            let more = 1..=MAX_KEYS;
            let overflows = more.filter(|i| pending.record(&format!("{i}:*"), pattern).is_overflow);
            assert_eq!(overflows.count(), if pattern { MAX_KEYS / MAX_PATTERNS } else { 1 });
            assert!(pending.len() <= MAX_PATTERNS && pending.covers("anything"));
            assert!(pending.is_pending("0:*", pattern, first));
        }
    }
}
