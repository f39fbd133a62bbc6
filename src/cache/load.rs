//! The leader's load: L2, the loader, publication in L2 and L1; after a failure the stale entry.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use tokio::runtime::Handle;

use super::{
    distributed_lock::LockOutcome,
    flight_context::{Lead, LoadErr, LoadOk, Ticket},
    state::CacheState,
};
use crate::{
    codec::offloading::Plain,
    contain::{Held, QuietDrop},
    entry::Lifetime,
    error::{Cause, Error, ErrorKind},
    flight::{LoadChain, TicketValidity, scope},
    l1::Displaced,
    l2::{L2, LoadEnd, LoadRequest, LoadStart, NamedLease, PublishOutcome},
    load::{IntoLoaded, Loaded, Loader, run_contained},
    observe::{Counter, Event, Level, RequestSpan, Timed},
    options::CallOptions,
    resilience::{run_alongside, task_tracker::TaskToken},
    time::millis,
};

/// Maximum depth of loads, started by loaders of loads, that are polled on the caller's stack.
const MAX_INLINE_DEPTH: usize = 16;

/// One load, from the start of its flight to its result.
pub(super) struct Load<V: Send + Sync + 'static, L> {
    pub(super) lead: Lead<V>,
    pub(super) loader: QuietDrop<L>,
    pub(super) call: Option<Box<CallOptions>>,
    pub(super) chain: Arc<LoadChain>,
}

/// The rights that a load got from L2, which had no fresh value.
pub(super) struct L2Rights<V: Send + Sync + 'static> {
    pub(super) lease: Option<NamedLease>,
    /// Whether the store holds a value of the key, usable or not.
    pub(super) has_value: bool,
    pub(super) lock: Option<LockOutcome<V>>,
}

/// Starts a load: polls it once in place, and spawns it if it is not ready. So a loader that is
/// ready at once costs no task. The first poll needs no waker, because a spawned task is polled in
/// any case.
///
/// Returns `false` if the load is not ready and there is no runtime to spawn it on: then the load
/// is dropped.
///
/// Alternatives considered: the leader polls the read of L2 itself, which saves a task per hit in
/// L2 (20 us where threads sleep). But a caller inside `buffer_unordered` may not be polled for a
/// while, and would meanwhile hold a decode permit, a connection of the store's pool and the
/// close of the cache.
pub(super) fn start_load(
    load: impl Future<Output = ()> + Send + 'static,
    token: Option<TaskToken>,
    depth: usize,
) -> bool {
    let mut load = Box::pin(load);
    let runtime = Handle::try_current();
    let in_place = depth < MAX_INLINE_DEPTH || runtime.is_err();
    if in_place && load.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
        return true;
    }
    let (Ok(runtime), Some(token)) = (runtime, token) else { return false };
    runtime.spawn(token.run(load));
    true
}

impl<V: Send + Sync + 'static> CacheState<V> {
    /// Reads L2 and completes the flight with a fresh value from there, or runs the loader.
    ///
    /// Nearly all loads find a fresh value in L2. The rest is boxed, so that the future that is
    /// moved to the heap at the start stays small.
    pub(super) async fn load_via_l2<L: Loader<V>>(self: Arc<Self>, mut load: Load<V, L>) {
        let Some(l2) = &self.l2 else { return };
        let key = Arc::clone(load.lead.ticket.key());
        let request = LoadRequest {
            refresh: load.call.as_ref().is_some_and(|call| call.refresh),
            accepts_none: L::Loaded::output(None).is_some(),
            hard: self.options.load_timeouts(load.call.as_deref()).hard,
        };
        let mut start = Box::pin(l2.begin(&key, request)).await;
        let mut lock = None;
        // A forced refresh loads even if a peer has just loaded.
        if self.options.distributed_lock.enabled && !request.refresh {
            (start, lock) = Box::pin(self.acquire_lock(&load.lead, start, request)).await;
        }
        let rights = match start {
            LoadStart::Fresh(fresh) => {
                let value = Some(fresh.value.clone());
                self.promote(&mut load.lead.ticket, fresh);
                return self.complete_from_l2(load.lead, value);
            }
            LoadStart::Missing(ttl) => {
                let began = load.lead.flight().began;
                self.promote_missing(&mut load.lead.ticket, ttl, began);
                return self.complete_from_l2(load.lead, None);
            }
            LoadStart::Load { lease, stale, held } => {
                self.attach_stale(&load.lead, stale);
                L2Rights { lease, has_value: held, lock }
            }
        };
        match rights.lock {
            Some(LockOutcome::PeerFoundNone) if request.accepts_none => {
                self.report_hit(&key, Level::L2, true);
                // A follower may have joined after an invalidation that came after the peer's load.
                let ok = LoadOk { value: None, from_l2: true, is_superseded: true };
                return load.lead.complete(Ok(ok));
            }
            Some(LockOutcome::TimedOut | LockOutcome::PeerFailed)
                if let Some(entry) = self.stale_candidate(&key, load.lead.flight()) =>
            {
                let waited = self.options.distributed_lock.wait_timeout;
                let error = Error::of_key(&key, Cause::LockTimeout(waited));
                let is_superseded =
                    Box::pin(self.is_superseded(&mut load.lead, rights.lease.as_ref())).await;
                let fallback = Some(entry);
                return load.lead.complete(Err(LoadErr { error, fallback, is_superseded }));
            }
            _ => {}
        }
        self.report_miss(&key);
        Box::pin(Arc::clone(&self).run_loader(load, rights)).await;
    }

    /// Runs the loader and publishes its result.
    pub(super) async fn run_loader<L: Loader<V>>(
        self: Arc<Self>,
        Load { lead, loader, call, chain }: Load<V, L>,
        L2Rights { lease, has_value, lock }: L2Rights<V>,
    ) {
        let key = Arc::clone(lead.ticket.key());
        let hard = self.options.load_timeouts(call.as_deref()).hard;
        self.observer.count(Counter::Loads);
        self.observer.emit(|| Event::LoaderStart { key: &key });
        let (began, timer) = (self.now(), self.observer.start_timer());
        // In a block: the future of this function needs no space for the loader while it publishes.
        let result = {
            // Pinned here: each future that owned another one would need its space twice.
            let loading = pin!(run_contained(&key, loader, hard));
            let loading = pin!(scope(chain, loading));
            let span = RequestSpan::of_load(self.observer.cache(), &key);
            let loading = pin!(span.run(loading));
            match &self.l2 {
                None => loading.await,
                Some(l2) => {
                    let keep_lease = async {
                        if let Some(lease) = &lease {
                            l2.keep_lease(&key, lease).await;
                        }
                    };
                    let keep_lock = async {
                        if let Some(LockOutcome::Acquired(guard)) = &lock {
                            guard.renew().await;
                        }
                    };
                    let loading = run_alongside(Box::pin(keep_lease), loading);
                    run_alongside(Box::pin(keep_lock), loading).await
                }
            }
        };
        let now = self.now();
        self.observer.record(Timed::Load, timer);
        self.observer.on_load_end(&key, result.as_ref().err(), now);
        let token = lease.as_ref().map(NamedLease::lease);
        let end = match result {
            Ok(loaded) => {
                let took = Duration::from_millis(now.saturating_sub(began));
                self.observer.emit(|| Event::LoaderSuccess { key: &key, took });
                let is_none = loaded.value.is_none();
                let published =
                    self.publish(&key, lead, loaded, call.as_deref(), lease, has_value).await;
                let is_stored = published == PublishOutcome::Stored;
                token.filter(|_| is_none && is_stored).map(LoadEnd::Missing)
            }
            // Only this caller lacks a runtime: followers that have one load for themselves.
            Err(error) if error.kind() == ErrorKind::NoRuntime => {
                drop(lead);
                None
            }
            Err(error) => {
                Box::pin(self.complete_err(lead, error, hard, lease.as_ref())).await;
                Some(LoadEnd::Failed)
            }
        };
        if let Some(LockOutcome::Acquired(guard)) = lock {
            Box::pin(guard.release(end)).await;
        }
    }

    /// Attaches a stale value of L2 to the flight, unless L1 had a better one.
    fn attach_stale(&self, lead: &Lead<V>, stale: Option<(Held<V>, Duration)>) {
        let Some((value, remaining)) = stale else { return };
        let lifetime = Lifetime { ttl: Duration::ZERO, stale_for: remaining };
        if let Some(entry) = self.entry(lead.ticket.key(), &value, lifetime) {
            lead.flight().context.attach_stale(entry, self.now());
            // A caller past its soft timeout takes the stale value now.
            lead.flight().wake_waiters();
        }
    }

    /// Publishes the result of a load, in L2 under the lease and then in L1, and completes the
    /// flight. `has_value`: L2 held a value of the key.
    async fn publish(
        self: &Arc<Self>,
        key: &Arc<str>,
        mut lead: Lead<V>,
        loaded: Loaded<V>,
        call: Option<&CallOptions>,
        lease: Option<NamedLease>,
        has_value: bool,
    ) -> PublishOutcome {
        let Loaded { value, ttl, stale_for } = loaded;
        let own = CallOptions { ttl, stale_for, ..CallOptions::default() };
        let lifetimes = self.options.lifetimes(&own, call, fastrand::f64);
        let (missing_in_l1, missing_in_l2) = self.options.missing_ttls(own.ttl);
        // Read before the ticket is checked, so that it covers no delete after that check.
        let bus = self.bus.as_ref();
        let will_send = value.is_some() && !lifetimes.l2.ttl.is_zero();
        let context = bus.filter(|_| will_send);
        let context = context.and_then(|bus| bus.client.causal_context());
        // One encoding serves L2 and the peers. Boxed, so that a load without a bus stays small.
        let mut plain = None;
        if let (Some(value), Some(bus), Some(Ok(_))) = (&value, bus, &context)
            && self.l2.is_some()
        {
            plain = Box::pin(bus.codec.encode_plain(value)).await.ok();
        }
        let in_l2 = value.as_ref().map(|value| (value, plain.as_ref(), lifetimes.l2));
        let has_lease = lease.is_some();
        let published = match &self.l2 {
            None => PublishOutcome::Unknown,
            Some(l2) => {
                let ticket = &mut lead.ticket;
                Box::pin(self.publish_l2(l2, ticket, in_l2, missing_in_l2, lease, has_value)).await
            }
        };
        let is_refused = published == PublishOutcome::Refused;
        // L2 has just confirmed that the key was not changed since the load began; or this
        // instance knows it. Otherwise nobody does, for example after a freeze.
        let now = self.now();
        let is_confirmed = published == PublishOutcome::Stored || self.is_current(now);
        // mutant as-of: => let since = now;
        let since = if is_confirmed { now } else { lead.flight().began };
        // mutant refused-fill: if false
        let filled = if is_refused {
            Err(lead.ticket.end_load())
        } else if let Some(value) = &value {
            self.fill(key, &mut lead.ticket, value, lifetimes.l1, since)
        } else {
            self.fill_missing(key, &mut lead.ticket, missing_in_l1, since)
        };
        // A lease that is gone does not say whose change removed it.
        let is_superseded = is_refused && has_lease
            || filled.as_ref().is_err_and(|validity| validity.is_superseded);
        let displaced = filled.ok();
        if displaced.is_none() {
            self.observer.count(Counter::Superseded);
            self.observer.emit(|| Event::LoadSuperseded { key });
        }
        lead.complete(Ok(LoadOk { value: value.clone(), from_l2: false, is_superseded }));
        if let Some(displaced) = displaced {
            self.drop_displaced(displaced);
            if let (Some(value), Some(bus), Some(context)) = (value, bus, context) {
                if self.l2.is_none() && context.is_ok() {
                    plain = Box::pin(bus.codec.encode_plain(&value)).await.ok();
                }
                let payload = plain.as_ref().map(|plain| plain.bytes.as_slice());
                let lifetime = Lifetime { ttl: lifetimes.l2.ttl, ..lifetimes.l1 };
                bus.client.broadcast_value(key, lifetime, context, payload);
            }
        }
        published
    }

    /// Publishes a value, or that the key does not exist, in L2. A result that must not be cached
    /// is published as a removal: so L2 has no older value, and refuses if an invalidation came
    /// during the load.
    async fn publish_l2(
        &self,
        l2: &Arc<L2<V>>,
        ticket: &mut Ticket<V>,
        value: Option<(&Held<V>, Option<&Plain>, Lifetime)>,
        missing_ttl: Duration,
        lease: Option<NamedLease>,
        has_value: bool,
    ) -> PublishOutcome {
        // mutant seal: remove
        if !ticket.end_load().may_write {
            return PublishOutcome::Refused;
        }
        let is_removal = value.is_none_or(|(_, _, lifetime)| lifetime.ttl.is_zero());
        let Some(lease) = lease else {
            if is_removal && has_value {
                // A failure is reported by L2, and retried.
                let _ = Box::pin(l2.remove(ticket.key())).await;
            }
            return PublishOutcome::Unknown;
        };
        let published = match value.filter(|_| !is_removal) {
            Some((value, plain, lifetime)) => {
                Box::pin(l2.publish(ticket.key(), &lease, value, plain, lifetime)).await
            }
            None => {
                let is_cached = value.is_none() && self.options.negative_cache.enabled;
                let ttl = if is_cached { missing_ttl } else { Duration::ZERO };
                Box::pin(l2.publish_missing(ticket.key(), &lease, ttl)).await
            }
        };
        if published == PublishOutcome::Unknown && is_removal && has_value {
            let _ = Box::pin(l2.remove(ticket.key())).await;
        }
        published
    }

    /// Fills L1 with a value that was current at `since`. An error if a delete, a `set` or a later
    /// load revoked the ticket.
    fn fill(
        &self,
        key: &Arc<str>,
        ticket: &mut Ticket<V>,
        value: &Arc<V>,
        lifetime: Lifetime,
        since: u64,
    ) -> Result<Displaced<V>, TicketValidity> {
        let entry = self.entry(key, value, lifetime).map(|entry| entry.known_at(since));
        let kept = entry.is_some();
        let displaced = ticket.publish(|| self.store_l1(key, entry))?;
        if kept {
            self.observer.emit(|| Event::Set { key, ttl: lifetime.ttl });
        }
        Ok(displaced)
    }

    /// Fills L1 with a negative entry. An error if a delete, a `set` or a later load revoked the
    /// ticket.
    fn fill_missing(
        &self,
        key: &Arc<str>,
        ticket: &mut Ticket<V>,
        ttl: Duration,
        since: u64,
    ) -> Result<Displaced<V>, TicketValidity> {
        let until = self.now().saturating_add(millis(ttl));
        let displaced = ticket.publish(|| self.l1.insert_missing(key, since, until))?;
        if self.l1.remembers_missing() && !ttl.is_zero() {
            self.observer.emit(|| Event::NegativeSet { key, ttl });
        }
        Ok(displaced)
    }
}
