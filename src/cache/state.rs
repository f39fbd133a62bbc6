//! The state that all handles of one cache, and its loads, share.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::{
    flight_context::Flights,
    registry::{ActivePatterns, LockWaiters},
};
use crate::{
    bus::{BusClient, Trust},
    codec::offloading::OffloadingCodec,
    contain::contain,
    entry::{Entry, Lifetime},
    error::{Cause, Error},
    l1::{Displaced, L1},
    l2::L2,
    observe::{Counter, Event, Observer},
    options::CacheOptions,
    resilience::task_tracker::TaskTracker,
    time::{Clock, SystemClock, clock_now, coarse_now},
};

pub(super) type Weigher<V> = dyn Fn(&str, &V) -> u64 + Send + Sync;

pub(super) struct CacheState<V> {
    pub(super) options: CacheOptions,
    /// `None`: the clock of the system, which hits then read without a virtual call.
    pub(super) clock: Option<Arc<dyn Clock>>,
    pub(super) weigher: Option<Box<Weigher<V>>>,
    pub(super) l1: L1<V>,
    pub(super) l2: Option<Arc<L2<V>>>,
    pub(super) bus: Option<CacheBus<V>>,
    pub(super) flights: Arc<Flights<V>>,
    pub(super) active_patterns: ActivePatterns,
    pub(super) lock_waiters: LockWaiters,
    /// With it begins the name of each owner of a distributed lock in this instance.
    pub(super) lock_id: u64,
    pub(super) observer: Arc<Observer>,
    /// The loads and the writes that run. `close` waits for them, and stops the loads at its
    /// deadline; dropping the last handle stops them at once.
    pub(super) running: TaskTracker,
    /// Set by `close`; loads and writes check it before they change anything.
    pub(super) closed: AtomicBool,
    /// The number of invalidations that were reported as lost to L2.
    pub(super) lost_in_l2: AtomicUsize,
}

/// The bus client of a cache, and the codec of the values that it sends and receives.
pub(super) struct CacheBus<V> {
    pub(super) client: Arc<BusClient>,
    /// The trust of the client, which each hit reads.
    pub(super) trust: Arc<Trust>,
    pub(super) codec: OffloadingCodec<V>,
}

/// Ends a cache when its last handle is dropped. Handles own it, tasks do not.
pub(super) struct ShutdownOnDrop(pub(super) Box<dyn Fn() + Send + Sync>);

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        self.0();
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

    /// Returns the time for the hit path, see [`SystemClock`]. With a bus it is no tick: a tick
    /// from before a freeze must not vouch for trust.
    #[inline]
    pub(super) fn coarse_now(&self) -> u64 {
        // mutant stale-tick: => let may_be_tick = true;
        let may_be_tick = self.bus.is_none();
        match &self.clock {
            None if may_be_tick => coarse_now(),
            None => clock_now(),
            Some(clock) if may_be_tick => clock.now_for_hits(),
            Some(clock) => clock.now(),
        }
    }

    /// Entries that were stored before this time are looked up in L2 before they are served.
    #[inline]
    pub(super) fn min_stored_at(&self, now: u64) -> u64 {
        self.bus.as_ref().map_or(0, |bus| bus.trust.min_stored_at(now))
    }

    /// Whether this instance has applied all messages that were published up to a moment within the
    /// last `trust_timeout`.
    pub(super) fn is_current(&self, now: u64) -> bool {
        self.bus.as_ref().is_none_or(|bus| bus.trust.is_valid(now))
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        let is_closed = self.closed.load(Ordering::SeqCst);
        if is_closed { Err(Error::without_key(Cause::Closed)) } else { Ok(()) }
    }

    /// Builds the entry to be stored; `None` if it would never be served, or is heavier than L1
    /// allows. The user's weigher runs here, never under a lock; if it panics, the entry counts
    /// as too heavy.
    pub(super) fn entry(&self, key: &str, value: &Arc<V>, lifetime: Lifetime) -> Option<Entry<V>> {
        let weight = self
            .weigher
            .as_ref()
            .map_or(1, |weigh| contain(|| weigh(key, value)).unwrap_or(u64::MAX));
        let entry =
            Entry::new(Arc::clone(value), self.now(), lifetime, self.l1.counted_weight(weight));
        if !self.l1.has_room_for(entry.weight()) {
            self.observer.emit(|| Event::SetSkipped { key, weight });
            return None;
        }
        entry.is_worth_keeping().then_some(entry)
    }

    /// Writes an [entry](Self::entry) to L1; `None` removes the key.
    pub(super) fn store_l1(&self, key: &Arc<str>, entry: Option<Entry<V>>) -> Displaced<V> {
        match entry {
            Some(entry) => self.l1.insert(key, entry),
            None => self.l1.remove(key),
        }
    }

    /// Counts the entries that an insert evicted or replaced, and drops them. To be called where no
    /// lock is held: the `Drop` of a value is user code.
    pub(super) fn drop_displaced(&self, displaced: impl Into<Option<Displaced<V>>>) {
        let Some(displaced) = displaced.into() else { return };
        let evictions = displaced.evictions();
        if evictions > 0 {
            self.observer.count_many(Counter::L1Evictions, evictions);
        }
        drop(displaced);
    }
}
