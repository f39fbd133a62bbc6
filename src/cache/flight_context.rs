//! The single flights of a cache: the context that a flight starts with, and its result.

use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::runtime;

use crate::{
    contain::Held,
    entry::Entry,
    error::Error,
    flight::{self, FlightId, FlightTable},
};

pub(super) type Flights<V> = FlightTable<FlightContext<V>, FlightResult<V>>;
pub(super) type Flight<V> = flight::Flight<FlightContext<V>, FlightResult<V>>;
pub(super) type Follower<V> = flight::Follower<FlightContext<V>, FlightResult<V>>;
pub(super) type Waiter<V> = flight::Waiter<FlightContext<V>, FlightResult<V>>;
pub(super) type Lead<V> = flight::Lead<FlightContext<V>, FlightResult<V>>;
pub(super) type Ticket<V> = flight::Ticket<FlightContext<V>, FlightResult<V>>;

/// The results that a caller can use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// A loaded value only, no value of L1 or L2.
    pub(super) refresh: bool,
    /// The caller's output type can express that the key does not exist.
    pub(super) accepts_none: bool,
}

/// The leader creates it at the start of a flight; all callers of the flight read it.
pub(super) struct FlightContext<V> {
    pub(super) id: FlightId,
    /// What the leader wants: it tells which results the flight can have.
    wanted: Wanted,
    /// The stale entry, of L1 or L2, that callers get if the load fails or is slow.
    stale: Mutex<Option<Entry<V>>>,
    /// Whether a caller has reported the soft timeout. The first caller to reach it sets this.
    pub(super) reported_slow: AtomicBool,
    /// The runtimes that have a watch (`flight_watch.rs`).
    watched_on: Mutex<Vec<runtime::Id>>,
}

impl<V> FlightContext<V> {
    pub(super) fn new(id: FlightId, wanted: Wanted, stale: Option<Entry<V>>) -> Self {
        Self {
            id,
            wanted,
            stale: Mutex::new(stale),
            reported_slow: AtomicBool::new(false),
            watched_on: Mutex::new(Vec::new()),
        }
    }

    /// Whether every result of the flight is one that this caller can use.
    pub(super) fn suits(&self, caller: Wanted) -> bool {
        (caller.accepts_none || !self.wanted.accepts_none)
            && (!caller.refresh || self.wanted.refresh)
    }

    /// Returns whether the runtime had no watch.
    pub(super) fn add_watch(&self, runtime: runtime::Id) -> bool {
        let mut watched_on = self.watched_on.lock();
        // mutant watch-runtime: s/!watched_on.contains(&runtime)/watched_on.is_empty()/
        let is_new = !watched_on.contains(&runtime);
        if is_new {
            watched_on.push(runtime);
        }
        is_new
    }

    pub(super) fn stale(&self) -> Option<Entry<V>> {
        self.stale.lock().clone()
    }

    /// Attaches a stale entry, unless the attached one can be served for longer.
    pub(super) fn attach_stale(&self, entry: Entry<V>, now: u64) {
        // Each entry may be the last owner of a user value: none is dropped under the lock.
        let (attached, mut stale) = (self.stale(), self.stale.lock());
        let is_better = attached.as_ref().is_none_or(|it| entry.usable_longer_than(it, now));
        let old = if is_better { stale.replace(entry) } else { Some(entry) };
        drop(stale);
        drop((old, attached));
    }
}

pub(super) type FlightResult<V> = Result<LoadOk<V>, LoadErr<V>>;

pub(super) struct LoadOk<V> {
    pub(super) value: Option<Held<V>>,
    /// The leader found the value in L2, so the loader did not run.
    pub(super) from_l2: bool,
    /// The key was changed during the load, and a caller that joined after that change must not get
    /// this result.
    pub(super) is_superseded: bool,
}

impl<V> Clone for LoadOk<V> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), ..*self }
    }
}

pub(super) struct LoadErr<V> {
    pub(super) error: Error,
    /// The stale entry to serve instead of the error.
    pub(super) fallback: Option<Entry<V>>,
    /// As in [`LoadOk`].
    pub(super) is_superseded: bool,
}

impl<V> Clone for LoadErr<V> {
    fn clone(&self) -> Self {
        Self { error: self.error.clone(), fallback: self.fallback.clone(), ..*self }
    }
}
