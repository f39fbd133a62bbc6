//! The contents of a [`SharedStore`](super::store::SharedStore), and how they change.

use std::{collections::HashMap, time::Duration};

use crate::{
    glob::Pattern,
    l2::{HeldLock, Inspection, Lease, LoadEnd, OutstandingLease, StaleValue, StoredValue},
    time::millis,
};

/// The fault of every operation of a [`SharedStore`](super::store::SharedStore).
///
/// ```
/// use lazy_layers_cache::{
///     LazyLayersCache, SystemClock, WireCodec,
///     testing::{SharedStore, StoreFault},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let store = SharedStore::new(SystemClock);
/// let names = LazyLayersCache::<u64, String>::builder()
///     .l2(store.clone(), WireCodec::new())
///     .build()?;
/// store.set_fault(StoreFault::Fails);
/// let load = || async { Ok::<_, std::io::Error>("Ada".to_owned()) };
/// assert_eq!(names.get_or_set(&7, load).await?.as_str(), "Ada");
/// assert_eq!(names.stats().l2_hits, 0);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StoreFault {
    /// Every operation works.
    #[default]
    None,
    /// Every operation fails at once, and does not happen.
    Fails,
    /// No operation ever answers, and none happens.
    Hangs,
    /// No operation ever answers, but each happens.
    HangsAfterwards,
}

#[derive(Default, Clone)]
pub(super) struct State {
    pub(super) values: HashMap<String, TimedValue>,
    /// The outstanding lease of each key. Loads that begin while it is outstanding share it: it is
    /// valid because no delete has come since it was first given.
    pub(super) leases: HashMap<String, TimedLease>,
    pub(super) copies: HashMap<String, StaleCopy>,
    /// The end of each negative entry.
    pub(super) missing: HashMap<String, u64>,
    pub(super) locks: HashMap<String, Lock>,
    pub(super) leases_given: u64,
    pub(super) fault: StoreFault,
    pub(super) operations: u64,
    pub(super) connection: u64,
    pub(super) run_id: u64,
    /// The run whose data was last marked as verified.
    pub(super) verified_run_id: u64,
}

#[derive(Clone)]
pub(super) struct TimedLease {
    pub(super) lease: Lease,
    pub(super) until: u64,
    /// The lease of a write, which loads do not share.
    pub(super) is_exclusive: bool,
}

#[derive(Clone)]
pub(super) struct TimedValue {
    pub(super) value: Vec<u8>,
    pub(super) until: u64,
}

#[derive(Clone)]
pub(super) struct StaleCopy {
    pub(super) value: Vec<u8>,
    /// The end of the value's own ttl.
    pub(super) fresh_until: u64,
    pub(super) until: u64,
}

#[derive(Clone)]
pub(super) struct Lock {
    pub(super) owner: String,
    pub(super) until: u64,
    /// The owner has released the lock, and its load ended so.
    pub(super) end: Option<LoadEnd>,
}

impl Lock {
    pub(super) fn is_held_by(&self, owner: &str) -> bool {
        self.owner == owner && self.end.is_none()
    }
}

/// How long a released lock shows its [`LoadEnd`], in milliseconds.
pub(super) const END_SHOWN: u64 = 1_000;

impl State {
    pub(super) fn stored(&self, key: &str, now: u64) -> Option<StoredValue> {
        let kept = self.values.get(key).filter(|kept| now < kept.until)?;
        let ttl = Some(Duration::from_millis(kept.until - now));
        let is_its_copy =
            |copy: &&StaleCopy| copy.fresh_until == kept.until && copy.value == kept.value;
        let copy = self.copies.get(key).filter(is_its_copy);
        let stale_for = copy.map_or(0, |copy| copy.until - copy.fresh_until);
        let stale_for = Duration::from_millis(stale_for);
        Some(StoredValue { value: kept.value.clone(), ttl, stale_for })
    }

    /// The stale copy of a key that has no value. A copy whose value went before its time is
    /// removed.
    pub(super) fn stale(&mut self, key: &str, now: u64) -> Option<StaleValue> {
        let copy = self.copies.get(key)?;
        // mutant copy-of-replaced: s/copy.fresh_until/0/
        if copy.fresh_until <= now && now < copy.until {
            let usable_for = Duration::from_millis(copy.until - now);
            return Some(StaleValue { value: copy.value.clone(), usable_for });
        }
        self.copies.remove(key);
        None
    }

    pub(super) fn inspect(&self, key: &str, lock: &str, now: u64) -> Inspection {
        let left = |until: u64| (now < until).then(|| Duration::from_millis(until - now));
        let stale = self.copies.get(key).filter(|copy| copy.fresh_until <= now);
        let held = self.locks.get(lock).filter(|lock| lock.end.is_none());
        Inspection {
            missing_for: self.missing.get(key).and_then(|until| left(*until)),
            stale_for: stale.and_then(|copy| left(copy.until)),
            lease: self.leases.get(key).and_then(|out| {
                let is_write = out.is_exclusive;
                left(out.until).map(|valid_for| OutstandingLease { is_write, valid_for })
            }),
            lock: held.and_then(|lock| {
                let owner = lock.owner.clone();
                left(lock.until).map(|valid_for| HeldLock { owner, valid_for })
            }),
        }
    }

    /// Removes the copy of another value than the present one.
    pub(super) fn check_copy(&mut self, key: &str, stored: &StoredValue) {
        if stored.stale_for.is_zero() {
            self.copies.remove(key);
        }
    }

    pub(super) fn give_lease(&mut self, key: &str, until: u64, is_exclusive: bool) -> Lease {
        self.leases_given += 1;
        let lease = Lease::new(self.leases_given.to_string());
        let given = TimedLease { lease: lease.clone(), until, is_exclusive };
        self.missing.remove(key);
        self.leases.insert(key.to_owned(), given);
        lease
    }

    /// Removes the value and everything else that the store keeps about the key, but its lock.
    pub(super) fn remove(&mut self, key: &str) {
        self.values.remove(key);
        self.remove_sidecar(key);
    }

    pub(super) fn remove_sidecar(&mut self, key: &str) {
        self.leases.remove(key);
        self.missing.remove(key);
        // mutant copy-stays: remove
        self.copies.remove(key);
    }

    pub(super) fn remove_matching(&mut self, pattern: &str, sidecars_only: bool) {
        let pattern = Pattern::new(pattern);
        if !sidecars_only {
            self.values.retain(|key, _| !pattern.matches(key));
        }
        self.leases.retain(|key, _| !pattern.matches(key));
        self.copies.retain(|key, _| !pattern.matches(key));
        self.missing.retain(|key, _| !pattern.matches(key));
    }

    pub(super) fn has_lease(&self, key: &str, lease: &Lease, now: u64) -> bool {
        // mutant absent-lease: s/is_some_and/is_none_or/
        self.leases.get(key).is_some_and(|out| out.lease == *lease && now < out.until)
    }
}

pub(super) fn until(now: u64, ttl: Duration) -> u64 {
    now.saturating_add(millis(ttl))
}
