//! Pending invalidations: deletes that have not reached L2 yet. Until they have, the cache does not
//! read the keys that they cover from L2. Some are invalidations of peers that could not bring them
//! to L2.
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

use super::store_types::PatternCursor;
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
    pub(crate) rebroadcast: Rebroadcast,
    /// A further version of the key to remove.
    pub(super) version: Option<u64>,
    /// Only sidecars are removed: a program that knows nothing of them has changed the values.
    pub(super) keeps_values: bool,
    /// How often its retry has failed since it last got further.
    pub(super) failures: u32,
    /// How far the delete of the keys that match a glob has got in the store.
    pub(super) cursor: PatternCursor,
    number: u64,
    /// The number of the oldest call that waits for this: a repeated invalidation, and one of all
    /// keys, also stand for those that they have replaced in the queue.
    since: u64,
}

/// Whether the cache broadcasts an invalidation again once it has reached L2. One that replaces
/// others does what the highest of them would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rebroadcast {
    /// A peer has done so.
    Never,
    /// Unless a peer does: it is an invalidation of a peer, which may have been killed.
    UnlessPeerDoes,
    /// At once: it is an invalidation of this instance.
    AtOnce,
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
        self.add(PendingInvalidation::new(name, is_pattern, Rebroadcast::AtOnce))
    }

    /// Records a delete of the keys that match a glob, which has got as far as the cursor.
    pub(super) fn record_from(&self, glob: &str, cursor: &PatternCursor) -> Recorded {
        let new = PendingInvalidation::new(glob, true, Rebroadcast::AtOnce);
        self.add(PendingInvalidation { cursor: cursor.clone(), ..new })
    }

    /// Records an invalidation of a peer. `version` is a further version of the key to remove.
    pub(super) fn record_for_peer(
        &self,
        name: &str,
        is_pattern: bool,
        version: Option<u64>,
    ) -> Recorded {
        let new = PendingInvalidation::new(name, is_pattern, Rebroadcast::UnlessPeerDoes);
        self.add(PendingInvalidation { version, ..new })
    }

    /// Records that the sidecar of a key, or of all keys that match a glob, must go.
    pub(super) fn record_sidecars(&self, name: &str, is_pattern: bool) -> Recorded {
        let new = PendingInvalidation::new(name, is_pattern, Rebroadcast::Never);
        self.add(PendingInvalidation { keeps_values: true, ..new })
    }

    fn add(&self, new: PendingInvalidation) -> Recorded {
        let state = &mut *self.state.lock();
        let is_all = new.is_pattern && &*new.name == ALL;
        let pending = match state.remove(&new.name, new.is_pattern) {
            None => new,
            Some(known) => PendingInvalidation {
                rebroadcast: known.rebroadcast.max(new.rebroadcast),
                version: new.version.or(known.version),
                keeps_values: known.keeps_values && new.keeps_values,
                // mutant resumed-too-far: s/PatternCursor::new()/known.cursor.clone()/
                cursor: PatternCursor::new(),
                ..known
            },
        };
        let number = state.push(pending);
        let is_overflow = state.keys.len() > MAX_KEYS || state.patterns.len() > MAX_PATTERNS;
        if is_all && state.queue.len() > 1 || is_overflow {
            let none = PendingInvalidation::new(ALL, true, Rebroadcast::Never);
            let none = PendingInvalidation { keeps_values: true, ..none };
            let all = state.queue.values().fold(none, |all, it| PendingInvalidation {
                rebroadcast: all.rebroadcast.max(it.rebroadcast),
                since: all.since.min(it.since),
                keeps_values: all.keeps_values && it.keeps_values,
                ..all
            });
            state.keys.clear();
            state.patterns.clear();
            state.queue.clear();
            state.push(all);
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

    /// A peer has brought this invalidation to the store. Returns whether one that covers it is
    /// pending here.
    pub(super) fn on_peer_retried(&self, name: &str, is_pattern: bool) -> bool {
        if self.is_empty() {
            return false;
        }
        let state = &mut *self.state.lock();
        let number = state.number_of(name, is_pattern);
        if let Some(pending) = number.and_then(|number| state.queue.get_mut(&number))
            && pending.rebroadcast == Rebroadcast::UnlessPeerDoes
        {
            pending.rebroadcast = Rebroadcast::Never;
        }
        number.is_some() || state.patterns.contains_key(ALL)
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

    /// Returns the first of the queue, which stay in it: one, or at most `max` deletes of keys. If
    /// the queue is empty, clears `has_worker` under the same lock, so that the next recorded
    /// invalidation starts a new worker.
    pub(super) fn next(&self, max: usize) -> Vec<PendingInvalidation> {
        let state = &mut *self.state.lock();
        let mut queue = state.queue.values();
        let mut first: Vec<_> = queue.next().cloned().into_iter().collect();
        if first.iter().all(PendingInvalidation::is_delete_of_key) {
            let more = queue.take_while(|it| it.is_delete_of_key()).take(max.saturating_sub(1));
            first.extend(more.cloned());
        }
        state.has_worker &= !first.is_empty();
        first
    }

    /// Returns an invalidation as it is now, unless it was recorded again meanwhile.
    pub(super) fn current(&self, known: &PendingInvalidation) -> Option<PendingInvalidation> {
        self.state.lock().queue.get(&known.number).cloned()
    }

    /// Removes an invalidation that has reached the store, unless it was recorded again meanwhile.
    pub(super) fn complete(&self, done: &PendingInvalidation) {
        let mut state = self.state.lock();
        if !state.queue.contains_key(&done.number) {
            return;
        }
        state.remove(&done.name, done.is_pattern);
        self.len.store(state.queue.len(), Ordering::SeqCst);
        // A waker runs foreign code.
        // mutant locked-waker: remove
        drop(state);
        self.completed.notify_waiters();
    }

    /// Moves an invalidation that failed again to the end of the queue. `has_advanced`: it has got
    /// further than before.
    pub(super) fn requeue(&self, failed: &PendingInvalidation, has_advanced: bool) {
        let state = &mut *self.state.lock();
        if state.queue.contains_key(&failed.number)
            && let Some(failed) = state.remove(&failed.name, failed.is_pattern)
        {
            let failures = if has_advanced { 0 } else { failed.failures.saturating_add(1) };
            state.push(PendingInvalidation { failures, ..failed });
        }
    }
}

impl PendingInvalidation {
    fn is_delete_of_key(&self) -> bool {
        !self.is_pattern && !self.keeps_values
    }

    fn new(name: &str, is_pattern: bool, rebroadcast: Rebroadcast) -> Self {
        let (name, number, since) = (Arc::from(name), 0, u64::MAX);
        let (version, keeps_values, failures) = (None, false, 0);
        let cursor = PatternCursor::new();
        Self {
            name,
            is_pattern,
            rebroadcast,
            version,
            keeps_values,
            failures,
            cursor,
            number,
            since,
        }
    }
}

impl State {
    /// Adds an invalidation at the end of the queue, under a new number, and returns that.
    fn push(&mut self, pending: PendingInvalidation) -> u64 {
        self.last_number += 1;
        let (number, name) = (self.last_number, Arc::clone(&pending.name));
        if pending.is_pattern {
            let pattern = Pattern::new(&name);
            self.patterns.insert(name, (number, pattern));
        } else {
            self.keys.insert(name, number);
        }
        let since = pending.since.min(number);
        self.queue.insert(number, PendingInvalidation { number, since, ..pending });
        number
    }

    fn remove(&mut self, name: &str, is_pattern: bool) -> Option<PendingInvalidation> {
        let number = self.number_of(name, is_pattern)?;
        if is_pattern {
            self.patterns.remove(name);
        } else {
            self.keys.remove(name);
        }
        self.queue.remove(&number)
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
mod tests;
