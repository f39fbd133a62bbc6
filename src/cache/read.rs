//! The main path, top to bottom: memory, a flight to join or to lead, and the wait for it.
//! (`lead.rs` is what the leader's load does, `wait.rs` what its callers do meanwhile.)

use std::sync::Arc;

use tokio::{runtime::Handle, time::Instant};

use super::{
    flight_context::{About, Ticket},
    load::Grant,
    outcome::{Found, Source},
    state::CacheState,
};
use crate::{
    entry::Entry,
    error::Error,
    flight::{Join, Link},
    l2::FreshValue,
    load::{IntoLoaded, Loader},
    observe::{Counter, Event, Level, StaleReason},
    options::CallOptions,
    time::resync,
};

/// An answer found by the last look before a load.
enum Look<V> {
    Fresh(Entry<V>),
    Throttled(Entry<V>),
    Missing,
    /// Nothing is begun any more. Asked under the lock, so that a load either sees this or is
    /// seen by `close`.
    Closed,
}

/// How often a caller joins the loads of others that come to nothing for it (they were dropped, or
/// found nothing, which its own loader cannot say) before it loads unseen by others.
const MOST_JOINS: usize = 3;

/// How many hits of a thread may believe the last tick before it is checked.
const HITS_A_CHECK: u64 = 16;

impl<V: Send + Sync + 'static> CacheState<V> {
    /// The hottest path: a fresh value from memory.
    #[inline]
    pub(super) fn hit(&self, key: &str) -> Option<Arc<V>> {
        let now = self.coarse_now();
        let value = self.l1.fresh(key, now, self.min_stored_at(now))?;
        self.report_hit(key, Level::L1, false);
        Some(value)
    }

    /// What memory can say at once: a fresh value, or `Some(None)`, that the key does not exist,
    /// where the caller can be told so.
    #[inline]
    pub(super) fn answer(&self, key: &str, accepts_none: bool) -> Option<Option<Arc<V>>> {
        if let Some(value) = self.hit(key) {
            return Some(Some(value));
        }
        if accepts_none && self.l1.remembers_missing() && self.is_known_missing(key, self.now()) {
            self.report_hit(key, Level::L1, true);
            return Some(None);
        }
        None
    }

    /// The same, with all that is known about it.
    pub(super) fn look<L: Loader<V>>(&self, key: &Arc<str>) -> Option<Found<V>> {
        let now = self.now();
        if let Some(entry) = self.l1.get(key).filter(|entry| self.is_served(entry, now)) {
            self.report_hit(key, Level::L1, false);
            return Some(Found::in_l1(Arc::clone(key), entry, now, None));
        }
        let missing = self.answer(key, L::Loaded::output(None).is_some())?;
        Some(Found::arrived(Arc::clone(key), missing, Source::L1))
    }

    /// A value that the shared level has, which memory then has too.
    pub(super) async fn get_beyond_l1(self: &Arc<Self>, key: Arc<str>) -> Option<Arc<V>> {
        self.ensure_bus_tasks();
        let found = self.get_l2(&key).await;
        if found.is_none() {
            self.report_miss(&key);
        }
        found
    }

    async fn get_l2(self: &Arc<Self>, key: &Arc<str>) -> Option<Arc<V>> {
        let l2 = self.l2.as_ref()?;
        // Taken before the read: what is deleted from now on must not come back. And before the
        // question whether the cache is open, so that `close` takes it back.
        let mut ticket = self.flights.ticket(key, About::of_a_write());
        self.check_open().ok()?;
        let fresh = l2.get(key).await?;
        let value = Arc::clone(&fresh.value);
        self.promote(&mut ticket, fresh);
        Some(value)
    }

    pub(super) async fn has(self: &Arc<Self>, key: &str) -> bool {
        let now = self.now();
        if self.l1.peek(key).is_some_and(|entry| self.is_served(&entry, now)) {
            return true;
        }
        match &self.l2 {
            Some(l2) if !self.is_known_missing(key, now) && self.check_open().is_ok() => {
                l2.get(key).await.is_some()
            }
            _ => false,
        }
    }

    /// Fills memory with a value of the shared level, for no longer than it is fresh there.
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

    /// Gets a value that memory does not have, or not fresh.
    pub(super) async fn fetch<L: Loader<V>>(
        self: Arc<Self>,
        key: Arc<str>,
        loader: L,
        call: Option<Box<CallOptions>>,
    ) -> Result<Found<V>, Error> {
        let refresh = call.as_ref().is_some_and(|call| call.refresh);
        let accepts_none = L::Loaded::output(None).is_some();
        let mut timeouts = self.options.timeouts(call.as_deref()).clone();
        let deadline = timeouts.hard.and_then(|hard| Instant::now().checked_add(hard));
        // What a loader would have to wait for: itself.
        let Some(link) = Link::to(self.flights.id(), &key) else {
            return Err(Error::recursion(&key));
        };
        self.ensure_bus_tasks();
        let mut running = None;
        let mut joins = 0;
        let ticket = loop {
            let mut rejected = None;
            let look = || {
                let about = self.last_look(&key, &link, refresh, accepts_none, &mut rejected)?;
                // Under the lock too: `close` waits for whatever has begun.
                running = Some(self.running.token());
                Ok(about)
            };
            match self.flights.join(&key, self.now(), joins < MOST_JOINS, look) {
                Join::Found(look) => return self.found(key, look),
                Join::Lead(ticket) => break ticket,
                Join::Bypass(ticket) => {
                    self.observer.count(Counter::Bypassed);
                    self.observer.emit(|| Event::InflightBypass { key: &key });
                    break ticket;
                }
                Join::Follow(follower) => {
                    joins += 1;
                    self.observer.count(Counter::Joined);
                    self.observer.emit(|| Event::InflightReuse { key: &key });
                    match self.wait(&key, &follower.flight, &timeouts, Source::Joined).await? {
                        // Nothing, which this call cannot be told.
                        Some(Found { value: None, .. }) if !accepts_none => {}
                        // What the shared level had, and this call wants it loaded.
                        Some(Found { source: Source::L2, .. }) if refresh => {}
                        // Perhaps from before a delete that came before this call.
                        // mutant refused-followers: remove
                        Some(Found { refused: true, .. }) => {}
                        Some(found) => return Ok(found),
                        // The load was dropped, with its runtime say.
                        None => {}
                    }
                    // What was waited in vain counts as well.
                    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
                    // mutant hard-timeout: remove
                    timeouts.hard = left.or(timeouts.hard);
                }
            }
        };
        let flight = Arc::clone(ticket.flight());
        let (own, its) = (Arc::clone(&self), Arc::clone(&link));
        let is_under_way = if self.l2.is_some() {
            self.begin(own.load_shared(ticket, loader, call, its), running, &link)
        } else {
            self.report_miss(&key);
            self.begin(own.load(ticket, loader, call, its, Grant::none()), running, &link)
        };
        if !is_under_way {
            return Err(Error::no_runtime(&key));
        }
        // The loader keeps to the hard timeout itself; what is before and after it does not.
        let is_bounded = self.l2.is_none() && joins == 0;
        let timeouts = if is_bounded { timeouts.without_hard() } else { timeouts };
        let found = self.wait(&key, &flight, &timeouts, Source::Loader).await?;
        found.ok_or_else(|| match Handle::try_current() {
            Ok(_) => Error::abandoned(&key),
            Err(_) => Error::no_runtime(&key),
        })
    }

    /// Under the lock under which fills are made. Reads the clock itself: an entry filled just
    /// now must not look as if it came from the future.
    fn last_look(
        &self,
        key: &str,
        link: &Arc<Link>,
        refresh: bool,
        accepts_none: bool,
        rejected: &mut Option<Entry<V>>,
    ) -> Result<About<V>, Look<V>> {
        if self.check_open().is_err() {
            return Err(Look::Closed);
        }
        let now = self.now();
        let held = self.usable(key, now, rejected);
        if let Some(entry) = held.clone().filter(|_| !refresh) {
            if self.is_served(&entry, now) {
                return Err(Look::Fresh(entry));
            }
            if entry.is_throttled(now) {
                return Err(Look::Throttled(entry));
            }
        } else if !refresh && accepts_none && self.is_known_missing(key, now) {
            return Err(Look::Missing);
        }
        Ok(About::new(link.node, now, held))
    }

    /// What memory holds for the key and may be served, fresh or stale. Not what a pattern delete
    /// that is on its way is about to remove. What is held and may not be served is `rejected`: to
    /// be dropped where no lock is held, for the clone may have become the last.
    pub(super) fn usable(
        &self,
        key: &str,
        now: u64,
        rejected: &mut Option<Entry<V>>,
    ) -> Option<Entry<V>> {
        let entry = self.l1.peek(key)?;
        // What is suspect is at most a stale copy.
        let may_serve = self.options.fail_safe.enabled || entry.is_since(self.min_stored_at(now));
        if entry.is_usable(now) && may_serve && !self.active_patterns.covers(key) {
            return Some(entry);
        }
        *rejected = Some(entry);
        None
    }

    fn is_known_missing(&self, key: &str, now: u64) -> bool {
        self.l1.is_known_missing(key, now, self.min_stored_at(now))
    }

    fn found(&self, key: Arc<str>, look: Look<V>) -> Result<Found<V>, Error> {
        Ok(match look {
            Look::Fresh(entry) => {
                self.report_hit(&key, Level::L1, false);
                Found::in_l1(key, entry, self.now(), None)
            }
            Look::Throttled(entry) => self.serve_copy(key, entry, StaleReason::Throttled),
            Look::Missing => {
                self.report_hit(&key, Level::L1, true);
                Found::arrived(key, None, Source::L1)
            }
            Look::Closed => return Err(Error::closed()),
        })
    }

    #[inline]
    fn report_hit(&self, key: &str, level: Level, negative: bool) {
        let before = self.observer.count(match (level, negative) {
            (_, true) => Counter::NegativeHits,
            (Level::L1, false) => Counter::L1Hits,
            (Level::L2, false) => Counter::L2Hits,
        });
        if before.is_multiple_of(HITS_A_CHECK) {
            resync();
        }
        self.observer.emit(|| Event::Hit { key, level, negative });
    }

    pub(super) fn report_miss(&self, key: &str) {
        self.observer.count(Counter::Misses);
        self.observer.emit(|| Event::Miss { key });
    }

    pub(super) fn report_superseded(&self, key: &str) {
        self.observer.count(Counter::Superseded);
        self.observer.emit(|| Event::LoadSuperseded { key });
    }
}
