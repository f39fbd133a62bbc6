//! The single flights of a cache: the context that a flight starts with, and its result.

use std::sync::{Arc, atomic::AtomicBool};

use parking_lot::Mutex;

use crate::{
    entry::Entry,
    error::Error,
    flight::{self, FlightId, FlightTable},
};

pub(super) type Flights<V> = FlightTable<FlightContext<V>, FlightResult<V>>;
pub(super) type Flight<V> = flight::Flight<FlightContext<V>, FlightResult<V>>;
pub(super) type Lead<V> = flight::Lead<FlightContext<V>, FlightResult<V>>;
pub(super) type Ticket<V> = flight::Ticket<FlightContext<V>, FlightResult<V>>;

/// The leader creates it at the start of a flight; all callers of the flight read it.
pub(super) struct FlightContext<V> {
    pub(super) id: FlightId,
    /// The stale entry, of L1 or L2, that callers get if the load fails or is slow.
    stale: Mutex<Option<Entry<V>>>,
    /// Whether a caller has reported the soft timeout. The first caller to reach it sets this.
    pub(super) reported_slow: AtomicBool,
}

impl<V> FlightContext<V> {
    pub(super) fn new(id: FlightId, stale: Option<Entry<V>>) -> Self {
        Self { id, stale: Mutex::new(stale), reported_slow: AtomicBool::new(false) }
    }

    pub(super) fn stale(&self) -> Option<Entry<V>> {
        self.stale.lock().clone()
    }

    /// Attaches a stale entry, unless the attached one can be served for longer.
    pub(super) fn attach_stale(&self, entry: Entry<V>, now: u64) {
        let mut stale = self.stale.lock();
        let better = Entry::prefer_longer_usable(stale.clone(), Some(entry), now);
        let old = std::mem::replace(&mut *stale, better);
        drop(stale);
        drop(old);
    }
}

pub(super) type FlightResult<V> = Result<LoadOk<V>, LoadErr<V>>;

pub(super) struct LoadOk<V> {
    pub(super) value: Option<Arc<V>>,
    /// The leader found the value in L2, so the loader did not run.
    pub(super) from_l2: bool,
    /// L2 refused the value, because the key was deleted during the load. A caller may have joined
    /// after that delete, and must not get the value.
    pub(super) refused: bool,
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
}

impl<V> Clone for LoadErr<V> {
    fn clone(&self) -> Self {
        Self { error: self.error.clone(), fallback: self.fallback.clone() }
    }
}
