//! What all handles of one cache, and its loads, share.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    active_patterns::ActivePatterns, bus_client::BusClient, flight_context::Flights,
    lock_waiters::LockWaiters,
};
use crate::resilience::task_tracker::TaskTracker;
use crate::{
    entry::{Entry, Lifetime},
    error::Error,
    l1::{Displaced, L1},
    l2::L2,
    observe::{Counter, Event, Health, L2Health, Observer, Stats},
    options::CacheOptions,
    time::{Clock, SystemClock, coarse_now},
};

pub(super) type Weigher<V> = dyn Fn(&str, &V) -> u64 + Send + Sync;

pub(super) struct CacheState<V> {
    pub(super) options: CacheOptions,
    /// `None`: the system's, which is then read without a detour.
    pub(super) clock: Option<Arc<dyn Clock>>,
    pub(super) weigher: Option<Box<Weigher<V>>>,
    pub(super) l1: L1<V>,
    pub(super) l2: Option<L2<V>>,
    pub(super) bus: Option<BusClient<V>>,
    pub(super) flights: Arc<Flights<V>>,
    pub(super) active_patterns: ActivePatterns,
    pub(super) lock_waiters: LockWaiters,
    pub(super) observer: Arc<Observer>,
    /// The loads that are running. LeaseResponse by reads, awaited by `close`; stopped by `close` at its
    /// deadline and by the last handle's drop.
    pub(super) running: TaskTracker,
    /// Set by `close`, read by whatever would load or write.
    pub(super) closed: AtomicBool,
}

/// Held by the handles and not by the loads, so that it knows when the last handle goes.
pub(super) struct ShutdownOnDrop {
    pub(super) running: TaskTracker,
    /// The tasks of the bus.
    pub(super) bus: TaskTracker,
}

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        self.running.stop();
        self.bus.stop();
    }
}

impl<V: 'static> CacheState<V> {
    #[inline]
    pub(super) fn now(&self) -> u64 {
        match &self.clock {
            None => SystemClock.now(),
            Some(clock) => clock.now(),
        }
    }

    /// The time as a hit reads it, a few milliseconds old.
    #[inline]
    pub(super) fn coarse_now(&self) -> u64 {
        match &self.clock {
            None => coarse_now(),
            Some(clock) => clock.now(),
        }
    }

    /// When an entry must have been stored, at least, to be believed.
    #[inline]
    pub(super) fn min_stored_at(&self, now: u64) -> u64 {
        self.bus.as_ref().map_or(0, |bus| bus.trust.min_stored_at(now))
    }

    /// Whether an entry answers without a further question.
    pub(super) fn is_served(&self, entry: &Entry<V>, now: u64) -> bool {
        entry.is_fresh(now) && entry.is_since(self.min_stored_at(now))
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    /// An entry as it will be stored; `None` if keeping it would serve nobody, or it is too heavy
    /// to be kept. The user's weigher runs here, never under a lock; if it panics, the entry
    /// counts as too heavy.
    pub(super) fn entry(&self, key: &str, value: &Arc<V>, lifetime: Lifetime) -> Option<Entry<V>> {
        let weight = self.weigher.as_ref().map_or(1, |weigh| {
            catch_unwind(AssertUnwindSafe(|| weigh(key, value))).unwrap_or(u64::MAX)
        });
        let entry =
            Entry::new(Arc::clone(value), self.now(), lifetime, self.l1.counted_weight(weight));
        if !self.l1.has_room_for(entry.weight()) {
            self.observer.emit(|| Event::SetSkipped { key, weight });
            return None;
        }
        entry.is_worth_keeping().then_some(entry)
    }

    /// Counts what an insert pushed out, and lets go of it, where no lock is held. A value whose
    /// `Drop` panics harms nobody but itself.
    pub(super) fn drop_displaced(&self, displaced: Displaced<V>) {
        let evictions = displaced.evictions();
        if evictions > 0 {
            self.observer.count_many(Counter::L1Evictions, evictions);
        }
        let _ = catch_unwind(AssertUnwindSafe(|| drop(displaced)));
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            l1_entries: self.l1.len() as u64,
            l1_weight: self.l1.weight(),
            loads_in_flight: self.flights.running() as u64,
            ..self.observer.stats()
        }
    }

    pub(super) fn health(&self) -> Health {
        Health {
            origin: self.observer.origin_health(self.now()),
            l2: self
                .l2
                .as_ref()
                .map(|l2| if l2.is_skipped() { L2Health::Skipped } else { L2Health::Answering }),
            event_bus: self.bus.as_ref().map(|bus| bus.health(self.now())),
            loads_in_flight: self.flights.running(),
            closed: self.closed.load(Ordering::Acquire),
        }
    }
}
