//! L1 access: the answers of L1 that need no load, the stale entries that a load may serve, and
//! values of L2 that fill L1.

use std::{sync::Arc, time::Duration};

use super::{
    flight_context::{Flight, Ticket},
    outcome::{ReadResult, Source},
    state::CacheState,
};
use crate::{
    entry::Entry,
    l2::FreshValue,
    observe::{Counter, Event, Level, StaleReason},
    time::millis,
};

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

    /// The same answer with its source and its age.
    pub(super) fn l1_result(&self, key: &Arc<str>, accepts_none: bool) -> Option<ReadResult<V>> {
        let now = self.now();
        if let Some(entry) = self.l1.get(key).filter(|entry| self.is_served(entry, now)) {
            self.report_hit(key, Level::L1, false);
            return Some(ReadResult::from_l1(Arc::clone(key), entry, now, None));
        }
        if accepts_none && self.l1.remembers_missing() && self.is_known_missing(key, now) {
            self.report_hit(key, Level::L1, true);
            return Some(ReadResult::from_flight(Arc::clone(key), None, Source::L1));
        }
        None
    }

    /// Whether an entry answers a read without a load or a look-up in L2.
    pub(super) fn is_served(&self, entry: &Entry<V>, now: u64) -> bool {
        entry.is_fresh(now) && entry.stored_at_or_after(self.min_stored_at(now))
    }

    /// Returns the entry of a key, fresh or stale, if it may be served when a load fails. The read
    /// does not count as a use.
    ///
    /// An untrusted entry is served only as a stale one, so with fail-safe; an entry that a running
    /// pattern delete is about to remove is never served. An entry that may not be served goes to
    /// `unusable`, to be dropped where no lock is held: it may be the last owner of a user value.
    pub(super) fn usable(
        &self,
        key: &str,
        now: u64,
        unusable: &mut Option<Entry<V>>,
    ) -> Option<Entry<V>> {
        let entry = self.l1.peek(key)?;
        let may_serve =
            self.options.fail_safe.enabled || entry.stored_at_or_after(self.min_stored_at(now));
        if entry.is_usable(now) && may_serve && !self.active_patterns.covers(key) {
            return Some(entry);
        }
        *unusable = Some(entry);
        None
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
        let held = self.usable(key, now, &mut None);
        let stale = flight.context.stale().filter(|stale| stale.is_usable(now));
        let stale = stale.filter(|_| self.flights.is_stale_valid(key, flight));
        Entry::prefer_longer_usable(held, stale, now)
    }

    /// Fills L1 with a value of L2, for at most the time that it is fresh there.
    pub(super) fn promote(&self, ticket: &mut Ticket<V>, fresh: FreshValue<V>) {
        let FreshValue { value, fresh_for, stale_for, elapsed } = fresh;
        let key = Arc::clone(ticket.key());
        self.report_hit(&key, Level::L2, false);
        let when_asked = fresh_for.map(|fresh_for| fresh_for.saturating_add(elapsed));
        let mut lifetime = self.options.received_lifetime(when_asked, stale_for, fastrand::f64);
        lifetime.ttl = lifetime.ttl.saturating_sub(elapsed);
        let entry = self.entry(&key, &value, lifetime);
        // Its answer may have waited while the process was frozen.
        let asked_at = self.now().saturating_sub(millis(elapsed));
        // mutant as-of: remove
        let entry = entry.map(|entry| entry.known_at(asked_at));
        self.drop_displaced(ticket.promote(|| self.store_l1(&key, entry)));
    }

    /// Fills L1 with a negative entry of L2, for at most the time that it holds there. `asked_at`:
    /// when the load began.
    pub(super) fn promote_missing(&self, ticket: &mut Ticket<V>, ttl: Duration, asked_at: u64) {
        let key = Arc::clone(ticket.key());
        self.report_hit(&key, Level::L2, true);
        let now = self.now();
        let (bound, _) = self.options.missing_ttls(None);
        let until = now.saturating_add(millis(ttl.min(bound)));
        self.drop_displaced(ticket.promote(|| self.l1.insert_missing(&key, asked_at, until)));
    }

    pub(super) fn is_known_missing(&self, key: &str, now: u64) -> bool {
        self.l1.is_known_missing(key, now, self.min_stored_at(now))
    }

    #[inline]
    pub(super) fn report_hit(&self, key: &str, level: Level, negative: bool) {
        self.observer.count(match (level, negative) {
            (_, true) => Counter::NegativeHits,
            (Level::L1, false) => Counter::L1Hits,
            (Level::L2, false) => Counter::L2Hits,
        });
        self.observer.emit(|| Event::Hit { key, level, negative });
    }

    pub(super) fn report_miss(&self, key: &str) {
        self.observer.count(Counter::Misses);
        self.observer.emit(|| Event::Miss { key });
    }
}
