//! What the leader of a flight does: the shared level, the loader, the publication; or the copy
//! that serves instead.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use tokio::runtime::Handle;

use super::{
    distributed_lock::Lock,
    flight_context::{Arrival, Failure, Ticket},
    state::CacheState,
};
use crate::resilience::task_tracker::TaskToken;
use crate::{
    entry::{Entry, Lifetime},
    error::{Error, ErrorKind},
    flight::{Link, within},
    l1::Displaced,
    l2::{LoadStart, NamedLease, PublishOutcome},
    load::{Loaded, Loader, contained},
    observe::{Counter, Event, in_span},
    options::CallOptions,
    resilience::run_alongside,
    time::millis,
};

/// Loads begun by loaders begun by loaders: deeper than this they get a stack of their own.
const DEEPEST_IN_PLACE: usize = 16;

/// What the shared level gave a load that it has no value for.
pub(super) struct Grant<V: Send + Sync + 'static> {
    lease: Option<NamedLease>,
    /// Whether there is something in the store, of use or not.
    l2_holds: bool,
    lock: Option<Lock<V>>,
}

impl<V: Send + Sync + 'static> Grant<V> {
    /// Of no shared level.
    pub(super) fn none() -> Self {
        Self { lease: None, l2_holds: false, lock: None }
    }
}

impl<V: Send + Sync + 'static> CacheState<V> {
    /// Starts a load: polled once here, and if it has to wait, on in a task of its own.
    ///
    /// So a loader that is ready at once costs no task. The waker of this first poll is never
    /// used: a spawned task is polled in any case.
    ///
    /// Refused: that the leader polls the look at the shared level itself, which saves the task that
    /// a hit there costs (20 us where threads sleep). A caller in a `buffer_unordered` is not polled
    /// while its loop does something else, and holds meanwhile what others wait for: a place to
    /// decode, the end of the cache, a connection of a store's pool.
    ///
    /// `false` if it has to wait and there is no runtime to let it: then it is dropped.
    pub(super) fn begin(
        &self,
        load: impl Future<Output = ()> + Send + 'static,
        running: Option<TaskToken>,
        link: &Link,
    ) -> bool {
        let mut load = Box::pin(load);
        let runtime = Handle::try_current();
        let in_place = link.depth < DEEPEST_IN_PLACE || runtime.is_err();
        if in_place && load.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return true;
        }
        let (Ok(runtime), Some(running)) = (runtime, running) else { return false };
        runtime.spawn(running.run(load));
        true
    }

    /// One load, from the look at the shared level to the landing of its flight.
    ///
    /// Nearly all find a fresh value there. So what comes after that is in a box of its own: what
    /// is moved to the heap at the start is small, and has no room for it.
    pub(super) async fn load_shared<L: Loader<V>>(
        self: Arc<Self>,
        mut ticket: Ticket<V>,
        loader: L,
        call: Option<Box<CallOptions>>,
        link: Arc<Link>,
    ) {
        let Some(l2) = &self.l2 else { return };
        let key = Arc::clone(ticket.key());
        let refresh = call.as_ref().is_some_and(|call| call.refresh);
        let hard = self.options.timeouts(call.as_deref()).hard;
        let mut start = Box::pin(l2.begin(&key, refresh, hard)).await;
        let mut lock = None;
        // A forced refresh loads whatever others have just found.
        if self.options.distributed_lock.enabled && !refresh {
            (start, lock) = Box::pin(self.lock(&ticket, start, hard)).await;
        }
        let grant = match start {
            LoadStart::Fresh(fresh) => {
                let value = Some(Arc::clone(&fresh.value));
                self.promote(&mut ticket, fresh);
                return ticket.land(Ok(Arrival { value, from_l2: true, refused: false }));
            }
            LoadStart::Load { lease, stale, held } => {
                self.take_along(&ticket, stale);
                Grant { lease, l2_holds: held, lock }
            }
        };
        if let Some(Lock::TimedOut) = grant.lock
            && let Some(copy) = self.at_hand(&key, ticket.flight())
        {
            let error = Error::lock_timeout(&key, self.options.distributed_lock.wait_timeout);
            return ticket.land(Err(Failure { error, instead: Some(copy) }));
        }
        self.report_miss(&key);
        Box::pin(Arc::clone(&self).load(ticket, loader, call, link, grant)).await;
    }

    /// A load of what the shared level does not have, or where there is none.
    pub(super) async fn load<L: Loader<V>>(
        self: Arc<Self>,
        mut ticket: Ticket<V>,
        loader: L,
        call: Option<Box<CallOptions>>,
        link: Arc<Link>,
        Grant { lease, l2_holds, lock }: Grant<V>,
    ) {
        let key = Arc::clone(ticket.key());
        let hard = self.options.timeouts(call.as_deref()).hard;
        self.observer.count(Counter::Loads);
        self.observer.emit(|| Event::LoaderStart { key: &key });
        let began = self.now();
        // Pinned where it is: moved into each arm, it would take its room three times.
        let loading = pin!(in_span(&key, within(link, contained(&key, loader, hard))));
        let result = match &lock {
            Some(Lock::Held(held)) => run_alongside(Box::pin(held.renew()), loading).await,
            _ => loading.await,
        };
        let now = self.now();
        self.observer.origin_answered(&key, result.as_ref().err(), now);
        match result {
            Ok(loaded) => {
                let took = Duration::from_millis(now.saturating_sub(began));
                self.observer.emit(|| Event::LoaderSuccess { key: &key, took });
                if loaded.value.is_none() && l2_holds {
                    self.delete_l2(&mut ticket).await;
                }
                self.publish(ticket, loaded, call.as_deref(), lease).await;
            }
            // Nobody else's fault: those who have a runtime load for themselves.
            Err(error) if error.kind() == ErrorKind::NoRuntime => drop(ticket),
            Err(error) => self.fail(ticket, error, hard),
        }
        if let Some(Lock::Held(held)) = lock {
            Box::pin(held.give_back()).await;
        }
    }

    /// Takes a stale copy of the shared level along, if memory had none.
    fn take_along(&self, ticket: &Ticket<V>, stale: Option<(Arc<V>, Duration)>) {
        let Some((value, remaining)) = stale else { return };
        let lifetime = Lifetime { ttl: Duration::ZERO, stale_for: remaining };
        if let Some(entry) = self.entry(ticket.key(), &value, lifetime) {
            ticket.flight().about.take_along(entry, self.now());
            // Some may have waited for longer than they wanted to, with nothing to take instead.
            ticket.flight().nudge();
        }
    }

    /// The key does not exist: what the shared level has of it goes.
    async fn delete_l2(&self, ticket: &mut Ticket<V>) {
        if let Some(l2) = &self.l2
            && ticket.seal()
        {
            // If it does not get through, it was reported; the copy there ends with its time.
            let _ = Box::pin(l2.remove(ticket.key())).await;
        }
    }

    /// Publishes what was loaded, in the shared level under its lease and then in memory, and
    /// lands.
    async fn publish(
        self: &Arc<Self>,
        mut ticket: Ticket<V>,
        loaded: Loaded<V>,
        call: Option<&CallOptions>,
        lease: Option<NamedLease>,
    ) {
        let key = Arc::clone(ticket.key());
        let Loaded { value, ttl, stale_for } = loaded;
        let own = CallOptions { ttl, stale_for, ..CallOptions::default() };
        let mut refused = false;
        let ttl = self.options.l2_ttl(&own, call);
        // Before the right to publish is checked, so that it says no more than is true.
        let seen = self.causal_context();
        let displaced = if let Some(value) = &value {
            let published = self.publish_l2(&mut ticket, value, ttl, lease).await;
            refused = published == PublishOutcome::Refused;
            // mutant refused-fill: if false
            if refused { None } else { self.fill(&mut ticket, value, &own, call) }
        } else {
            self.fill_missing(&mut ticket, own.ttl)
        };
        if displaced.is_none() {
            self.report_superseded(&key);
        }
        ticket.land(Ok(Arrival { value: value.clone(), from_l2: false, refused }));
        if let Some(displaced) = displaced {
            self.drop_displaced(displaced);
            if let Some(value) = value {
                self.broadcast_value(&key, &value, ttl, seen);
            }
        }
    }

    async fn publish_l2(
        &self,
        ticket: &mut Ticket<V>,
        value: &Arc<V>,
        ttl: Duration,
        lease: Option<NamedLease>,
    ) -> PublishOutcome {
        let Some((l2, lease)) = self.l2.as_ref().zip(lease) else { return PublishOutcome::Unknown };
        if ttl.is_zero() {
            // Not to be cached, and what there is is older.
            self.delete_l2(ticket).await;
            return PublishOutcome::Unknown;
        }
        // mutant seal: remove
        if !ticket.seal() {
            return PublishOutcome::Unknown;
        }
        Box::pin(l2.publish(ticket.key(), &lease, value, ttl)).await
    }

    /// Fills memory. `None` if a delete came first.
    fn fill(
        &self,
        ticket: &mut Ticket<V>,
        value: &Arc<V>,
        own: &CallOptions,
        call: Option<&CallOptions>,
    ) -> Option<Displaced<V>> {
        let key = Arc::clone(ticket.key());
        let lifetime = self.options.l1_lifetime(own, call, fastrand::f64);
        let entry = self.entry(&key, value, lifetime);
        let kept = entry.is_some();
        let displaced = ticket.publish(|| match entry {
            Some(entry) => self.l1.insert(&key, entry),
            None => self.l1.remove(&key),
        })?;
        if kept {
            self.observer.emit(|| Event::Set { key: &key, ttl: lifetime.ttl });
        }
        Some(displaced)
    }

    /// Remembers that the key does not exist. `None` if a delete came first.
    fn fill_missing(
        &self,
        ticket: &mut Ticket<V>,
        own_ttl: Option<Duration>,
    ) -> Option<Displaced<V>> {
        let key = Arc::clone(ticket.key());
        let ttl = own_ttl.unwrap_or(self.options.negative_cache.ttl);
        let now = self.now();
        let until = now.saturating_add(millis(ttl));
        let displaced = ticket.publish(|| self.l1.insert_missing(&key, now, until))?;
        if self.l1.remembers_missing() && !ttl.is_zero() {
            self.observer.emit(|| Event::NegativeSet { key: &key, ttl });
        }
        Some(displaced)
    }

    /// Lands with an error, and with what may be served instead.
    fn fail(&self, mut ticket: Ticket<V>, error: Error, hard: Option<Duration>) {
        let key = Arc::clone(ticket.key());
        self.observer.count(Counter::LoadFailures);
        if error.kind() == ErrorKind::HardTimeout {
            let limit = hard.unwrap_or_default();
            self.observer.emit(|| Event::LoaderTimeout { key: &key, limit, hard: true });
        } else {
            self.observer.emit(|| Event::LoaderError { key: &key, error: &error });
        }
        let (instead, displaced) = self.throttle(&mut ticket);
        ticket.land(Err(Failure { error, instead }));
        if let Some(displaced) = displaced {
            self.drop_displaced(displaced);
        }
    }

    /// Finds what may be served though the load failed, and if it is stale leaves the key alone
    /// for a while.
    ///
    /// What memory holds is served whatever happened meanwhile: who put it there had the right to.
    /// The copy taken along serves only if nothing newer was published and nothing deleted since.
    fn throttle(&self, ticket: &mut Ticket<V>) -> (Option<Entry<V>>, Option<Displaced<V>>) {
        let key = Arc::clone(ticket.key());
        let now = self.now();
        let copy = ticket.flight().about.copy().filter(|copy| copy.is_usable(now));
        let mut rejected = None;
        ticket.amend(|standing| {
            let held = self.usable(&key, now, &mut rejected);
            let copy = copy.clone().filter(|_| standing.copy_is_good);
            let Some(entry) = Entry::longer_usable(held, copy, now) else {
                return (None, None);
            };
            let displaced = (standing.may_write && !self.is_served(&entry, now)).then(|| {
                self.l1.insert(&key, entry.throttled(now, self.options.fail_safe.throttle))
            });
            (Some(entry), displaced)
        })
    }
}
