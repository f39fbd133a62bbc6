//! The flights of this cache: what they know from their start, and what they land with.

use std::sync::{Arc, atomic::AtomicBool};

use parking_lot::Mutex;

use crate::{
    entry::Entry,
    error::Error,
    flight::{self, FlightTable, Node},
};

pub(super) type Flights<V> = FlightTable<About<V>, Landing<V>>;
pub(super) type Flight<V> = flight::Flight<About<V>, Landing<V>>;
pub(super) type Ticket<V> = flight::Ticket<About<V>, Landing<V>>;

/// What a flight knows from its start.
pub(super) struct About<V> {
    pub(super) node: Node,
    /// When it began, by the cache's clock.
    pub(super) began: u64,
    /// The copy that may serve if the load fails or is slow: from memory, or found in the shared
    /// level before the loader was called.
    copy: Mutex<Option<Entry<V>>>,
    /// Whether the soft timeout was reported. Set by the first caller to run into it.
    pub(super) reported_slow: AtomicBool,
}

impl<V> About<V> {
    pub(super) fn new(node: Node, began: u64, copy: Option<Entry<V>>) -> Self {
        Self { node, began, copy: Mutex::new(copy), reported_slow: AtomicBool::new(false) }
    }

    pub(super) fn copy(&self) -> Option<Entry<V>> {
        self.copy.lock().clone()
    }

    /// Takes a copy along, unless there is one that may serve for longer.
    pub(super) fn take_along(&self, entry: Entry<V>, now: u64) {
        let mut copy = self.copy.lock();
        let better = Entry::longer_usable(copy.clone(), Some(entry), now);
        let old = std::mem::replace(&mut *copy, better);
        drop(copy);
        drop(old);
    }

    /// Of a ticket for a write or a promotion: nobody joins it.
    pub(super) fn of_a_write() -> Self {
        Self::new(Node::new(), 0, None)
    }
}

/// What a flight lands with.
pub(super) type Landing<V> = Result<Arrival<V>, Failure<V>>;

pub(super) struct Arrival<V> {
    pub(super) value: Option<Arc<V>>,
    /// Whether it was found in the shared level, so that nothing was loaded.
    pub(super) from_l2: bool,
    /// Whether the shared level refused it: somebody has deleted the key meanwhile, and callers
    /// may have joined after that.
    pub(super) refused: bool,
}

impl<V> Clone for Arrival<V> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), ..*self }
    }
}

pub(super) struct Failure<V> {
    pub(super) error: Error,
    /// What to serve instead, if there is anything.
    pub(super) instead: Option<Entry<V>>,
}

impl<V> Clone for Failure<V> {
    fn clone(&self) -> Self {
        Self { error: self.error.clone(), instead: self.instead.clone() }
    }
}
