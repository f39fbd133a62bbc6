//! The ends of a load that has nothing to publish: L2 has the answer, or the load has failed.
//!
//! A caller that joined late, after its flight had begun, must learn whether the key was changed
//! meanwhile. Every end of a load says so to its followers; a load that publishes its result hears
//! it from L2 then.

use std::{sync::Arc, time::Duration};

use super::{
    flight_context::{Lead, LoadErr, LoadOk},
    state::CacheState,
};
use crate::{
    contain::Held,
    entry::Entry,
    error::{Error, ErrorKind},
    l2::NamedLease,
    observe::{Counter, Event},
};

impl<V: Send + Sync + 'static> CacheState<V> {
    /// Completes the flight with what L2 has. Late followers take it only where L1 may serve as old
    /// a value: the request may have been sent before the call of such a follower began.
    pub(super) fn complete_from_l2(&self, mut lead: Lead<V>, value: Option<Held<V>>) {
        let validity = lead.ticket.end_load();
        // mutant store-followers: => let is_superseded = false;
        let is_superseded = validity.is_superseded || !self.options.l1.enabled;
        lead.complete(Ok(LoadOk { value, from_l2: true, is_superseded }));
    }

    /// Ends a load that has no result to publish, and returns whether its late followers need a
    /// newer one. L2 knows that, if the load got a lease. It is asked only if there are such
    /// followers; if it does not answer, they take the result.
    pub(super) async fn is_superseded(
        &self,
        lead: &mut Lead<V>,
        lease: Option<&NamedLease>,
    ) -> bool {
        let validity = lead.ticket.end_load();
        // mutant ask-lease: => return false;
        let (Some(l2), Some(lease)) = (&self.l2, lease) else { return validity.is_superseded };
        if validity.is_superseded || !lead.flight().has_late_followers() {
            return validity.is_superseded;
        }
        !validity.may_write || l2.is_lease_lost(lead.ticket.key(), lease).await
    }

    /// Completes the flight with an error, and with a stale entry to serve instead if there is one.
    pub(super) async fn complete_err(
        &self,
        mut lead: Lead<V>,
        error: Error,
        hard: Option<Duration>,
        lease: Option<&NamedLease>,
    ) {
        let key = Arc::clone(lead.ticket.key());
        self.observer.count(Counter::LoadFailures);
        if error.kind() == ErrorKind::HardTimeout {
            let limit = hard.unwrap_or_default();
            self.observer.emit(|| Event::LoaderTimeout { key: &key, limit, hard: true });
        } else {
            self.observer.emit(|| Event::LoaderError { key: &key, error: &error });
        }
        let is_superseded = self.is_superseded(&mut lead, lease).await;
        let fallback = self.throttle_stale(&mut lead, is_superseded);
        let is_superseded = is_superseded || lead.ticket.end_load().is_superseded;
        lead.complete(Err(LoadErr { error, fallback, is_superseded }));
    }

    /// Finds the entry to serve after a failed load. If the entry is stale and the ticket is still
    /// valid, throttles the key: no load starts until the throttle pause is over.
    ///
    /// An entry of L1 is served whatever happened meanwhile, because its writer had the right to
    /// write it. The stale entry of the flight is served only if no value was published or deleted
    /// since the flight started.
    fn throttle_stale(&self, lead: &mut Lead<V>, is_superseded: bool) -> Option<Entry<V>> {
        let key = Arc::clone(lead.ticket.key());
        let now = self.now();
        let stale = lead.flight().context.stale().filter(|stale| stale.is_usable(now));
        let mut unusable = None;
        // Each entry may be the last owner of a user value: all leave the lock before one is
        // dropped.
        let (held, served, displaced) = lead.ticket.with_validity(|validity| {
            let held = self.usable(&key, now, &mut unusable);
            let stale = stale.as_ref().filter(|_| validity.stale_valid);
            let is_better = stale.is_some_and(|it| {
                held.as_ref().is_none_or(|held| it.usable_longer_than(held, now))
            });
            let served = if is_better { stale.cloned() } else { held.clone() };
            let may_throttle = validity.may_write && !is_superseded;
            let to_throttle =
                served.as_ref().filter(|entry| may_throttle && !self.is_served(entry, now));
            let pause = self.options.fail_safe.throttle;
            let displaced =
                to_throttle.map(|entry| self.l1.insert(&key, entry.throttled(now, pause)));
            (held, served, displaced)
        });
        drop((held, unusable));
        self.drop_displaced(displaced);
        served
    }
}
