//! L1 access: classifies the entry of a key, serves it, and fills L1 with values from L2.
//!
//! All readers but one use the classification [`L1State`]. The exception is the hit path
//! (`l1_hit`, `l1_answer`), which runs on every hit: it reads the coarse clock and asks L1 for a
//! fresh value only.

use std::sync::Arc;

use super::{
    flight_context::{Flight, Ticket},
    outcome::{ReadResult, Source},
    state::CacheState,
};
use crate::{
    entry::Entry,
    l2::FreshValue,
    observe::{Counter, Event, Level, StaleReason},
    options::CallOptions,
    time::resync,
};

/// After this many hits of a thread, the thread checks whether the coarse clock still runs.
const HITS_PER_CLOCK_CHECK: u64 = 16;

/// The state of one key in L1.
pub(super) enum L1State<V> {
    /// Within its ttl, and not untrusted.
    Fresh(Entry<V>),
    /// Stale, and its last load failed a moment ago: served without another load.
    Throttled(Entry<V>),
    /// Past its ttl or untrusted: served only if a load fails or is slow.
    Stale(Entry<V>),
    /// Never served: past its stale window, untrusted while fail-safe is off, or about to be
    /// removed by a pattern delete. The state carries the entry, so that the caller drops it where
    /// no lock is held: it may be the last owner of a user value.
    Unusable(Entry<V>),
    /// The key is known not to exist.
    Missing,
    /// L1 has neither an entry nor a negative entry.
    Empty,
}

impl<V> L1State<V> {
    /// Splits the entry into (servable, not servable).
    pub(super) fn split(self) -> (Option<Entry<V>>, Option<Entry<V>>) {
        match self {
            Self::Fresh(entry) | Self::Throttled(entry) | Self::Stale(entry) => (Some(entry), None),
            Self::Unusable(entry) => (None, Some(entry)),
            Self::Missing | Self::Empty => (None, None),
        }
    }
}

impl<V: Send + Sync + 'static> CacheState<V> {
    /// The hottest path: the value of a key, if L1 has a fresh one.
    #[inline]
    pub(super) fn l1_hit(&self, key: &str) -> Option<Arc<V>> {
        let now = self.coarse_now();
        let value = self.l1.fresh(key, now, self.min_stored_at(now))?;
        self.report_hit(key, Level::L1, false);
        Some(value)
    }

    /// The answer that L1 can give at once: a fresh value, or `Some(None)` for a key that is known
    /// not to exist, if the caller accepts that.
    #[inline]
    pub(super) fn l1_answer(&self, key: &str, accepts_none: bool) -> Option<Option<Arc<V>>> {
        if let Some(value) = self.l1_hit(key) {
            return Some(Some(value));
        }
        if accepts_none && self.l1.remembers_missing() && self.is_known_missing(key, self.now()) {
            self.report_hit(key, Level::L1, true);
            return Some(None);
        }
        None
    }

    /// The same answer with its age.
    pub(super) fn l1_result(&self, key: &Arc<str>, accepts_none: bool) -> Option<ReadResult<V>> {
        match self.l1_state(key, self.now(), self.l1.get(key)) {
            state @ L1State::Fresh(_) => self.serve_l1(key, state),
            L1State::Missing if accepts_none => self.serve_l1(key, L1State::Missing),
            _ => None,
        }
    }

    /// Classifies the `entry` that the caller has read from L1.
    pub(super) fn l1_state(&self, key: &str, now: u64, entry: Option<Entry<V>>) -> L1State<V> {
        let Some(entry) = entry else {
            let is_missing = self.is_known_missing(key, now);
            return if is_missing { L1State::Missing } else { L1State::Empty };
        };
        // Fail-safe serves an untrusted entry as a stale one.
        let may_serve = self.options.fail_safe.enabled || self.is_trusted(&entry, now);
        if self.is_served(&entry, now) {
            L1State::Fresh(entry)
        } else if !entry.is_usable(now) || !may_serve {
            L1State::Unusable(entry)
        } else if entry.is_throttled(now) {
            L1State::Throttled(entry)
        } else {
            L1State::Stale(entry)
        }
    }

    /// Whether an entry answers a read without a load or a look-up in L2.
    pub(super) fn is_served(&self, entry: &Entry<V>, now: u64) -> bool {
        entry.is_fresh(now) && self.is_trusted(entry, now)
    }

    fn is_trusted(&self, entry: &Entry<V>, now: u64) -> bool {
        entry.stored_at_or_after(self.min_stored_at(now))
    }

    /// Classifies the entry of a key for a load: an entry that a running pattern delete is about to
    /// remove is not usable, and the read does not count as a use.
    pub(super) fn recheck_l1(&self, key: &str, now: u64) -> L1State<V> {
        match self.l1.peek(key) {
            Some(entry) if self.active_patterns.covers(key) => L1State::Unusable(entry),
            entry => self.l1_state(key, now, entry),
        }
    }

    /// Reports and returns the answer of a state; `None` for a state that needs a load.
    pub(super) fn serve_l1(&self, key: &Arc<str>, state: L1State<V>) -> Option<ReadResult<V>> {
        match state {
            L1State::Fresh(entry) => {
                self.report_hit(key, Level::L1, false);
                Some(ReadResult::from_l1(Arc::clone(key), entry, self.now(), None))
            }
            L1State::Throttled(entry) => Some(self.serve_stale(key, entry, StaleReason::Throttled)),
            L1State::Missing => {
                self.report_hit(key, Level::L1, true);
                Some(ReadResult::from_flight(Arc::clone(key), None, Source::L1))
            }
            L1State::Stale(_) | L1State::Unusable(_) | L1State::Empty => None,
        }
    }

    pub(super) fn serve_stale(
        &self,
        key: &Arc<str>,
        entry: Entry<V>,
        reason: StaleReason,
    ) -> ReadResult<V> {
        let now = self.now();
        self.observer.count(Counter::StaleHits);
        self.observer.emit(|| Event::StaleHit { key, reason, age: entry.age(now) });
        ReadResult::from_l1(Arc::clone(key), entry, now, Some(reason))
    }

    /// The entry to serve while a flight is pending: from L1, or the stale entry of the flight,
    /// unless a value was published or deleted since the flight started.
    pub(super) fn stale_candidate(&self, key: &str, flight: &Flight<V>) -> Option<Entry<V>> {
        let now = self.now();
        let (held, _unusable) = self.recheck_l1(key, now).split();
        let stale = flight.context.stale().filter(|stale| stale.is_usable(now));
        let stale = stale.filter(|_| self.flights.is_stale_valid(key, flight));
        Entry::prefer_longer_usable(held, stale, now)
    }

    /// Fills L1 with a value of L2, for at most the time that it is fresh there.
    pub(super) fn promote(&self, ticket: &mut Ticket<V>, fresh: FreshValue<V>) {
        let FreshValue { value, fresh_for, elapsed } = fresh;
        let key = Arc::clone(ticket.key());
        self.report_hit(&key, Level::L2, false);
        let none = CallOptions::default();
        let mut lifetime = self.options.l1_lifetime(&none, None, fastrand::f64);
        lifetime.ttl = lifetime.ttl.saturating_sub(elapsed);
        lifetime.ttl = fresh_for.map_or(lifetime.ttl, |fresh_for| lifetime.ttl.min(fresh_for));
        let entry = self.entry(&key, &value, lifetime);
        let displaced = ticket.promote(|| match entry {
            Some(entry) => self.l1.insert(&key, entry),
            None => self.l1.remove(&key),
        });
        if let Some(displaced) = displaced {
            self.drop_displaced(displaced);
        }
    }

    fn is_known_missing(&self, key: &str, now: u64) -> bool {
        self.l1.is_known_missing(key, now, self.min_stored_at(now))
    }

    #[inline]
    fn report_hit(&self, key: &str, level: Level, negative: bool) {
        let before = self.observer.count(match (level, negative) {
            (_, true) => Counter::NegativeHits,
            (Level::L1, false) => Counter::L1Hits,
            (Level::L2, false) => Counter::L2Hits,
        });
        if before.is_multiple_of(HITS_PER_CLOCK_CHECK) {
            resync();
        }
        self.observer.emit(|| Event::Hit { key, level, negative });
    }

    pub(super) fn report_miss(&self, key: &str) {
        self.observer.count(Counter::Misses);
        self.observer.emit(|| Event::Miss { key });
    }
}
