//! An L2 store in memory: the plainest implementation of [`Store`], with faults on demand.

use std::{future::pending, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::store_state::{END_SHOWN, Lock, StaleCopy, State, StoreFault, TimedValue, until};
use crate::{
    error::BoxError,
    l2::{
        Lease, LeaseRequest, LeaseResponse, LoadEnd, LockResponse, PatternCursor, Publication,
        Store, StoreFuture, StoredValue,
    },
    time::Clock,
};

/// A [`Store`] in memory. Clones are the same store, so caches with clones of it share it as
/// instances share Redis.
///
/// Each operation yields once, as a network call would, and then happens in one step.
#[derive(Clone)]
pub struct SharedStore {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

/// The contents of a [`SharedStore`] at one time.
#[derive(Clone)]
pub struct StoreSnapshot(State);

impl std::fmt::Debug for StoreSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreSnapshot").finish_non_exhaustive()
    }
}

impl SharedStore {
    /// Creates an empty store that measures ttls with this clock.
    #[must_use]
    pub fn new(clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), state: Arc::default() }
    }

    /// Sets the fault of all later operations.
    pub fn set_fault(&self, fault: StoreFault) {
        self.state.lock().fault = fault;
    }

    /// Removes everything, leases included, as a server does that restarts empty.
    pub fn restart(&self) {
        let mut state = self.state.lock();
        let State { leases_given, fault, operations, connection, run_id, .. } = *state;
        let verified_run_id = state.verified_run_id;
        *state = State {
            leases_given,
            fault,
            operations,
            connection,
            run_id,
            verified_run_id,
            ..State::default()
        };
    }

    /// Returns a copy of the contents, leases and locks included, as a server saves it to disk.
    #[must_use]
    pub fn snapshot(&self) -> StoreSnapshot {
        StoreSnapshot(self.state.lock().clone())
    }

    /// Replaces the contents by a snapshot, as a server does that restarts from disk, or a replica
    /// that is promoted without the last writes that its master confirmed: values that were deleted
    /// after the snapshot are there again.
    ///
    /// The store then has another [`run_id`](Self::run_id). A client that uses the store across
    /// this must detect that, as `RedisStore` does, and send it no requests until the old values
    /// have been removed.
    pub fn restart_with(&self, old: &StoreSnapshot) {
        let mut state = self.state.lock();
        let State { leases_given, fault, operations, connection, .. } = *state;
        let run_id = state.run_id + 1;
        *state = State { leases_given, fault, operations, connection, run_id, ..old.0.clone() };
    }

    /// Returns the number of the run, which changes with each
    /// [`restart_with`](Self::restart_with).
    #[must_use]
    pub fn run_id(&self) -> u64 {
        self.state.lock().run_id
    }

    /// Whether the contents of this run were [marked as verified](Self::mark_verified). The mark is
    /// a part of the contents.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        let state = self.state.lock();
        // mutant restart-old: s/==/<=/
        state.verified_run_id == state.run_id
    }

    /// Marks the contents of this run as verified: they hold no old values.
    pub fn mark_verified(&self) {
        let mut state = self.state.lock();
        state.verified_run_id = state.run_id;
    }

    /// Changes the [connection generation](Store::connection_generation), as a new connection does.
    pub fn reconnect(&self) {
        self.state.lock().connection += 1;
    }

    /// Writes bytes under a key, without a lease and whatever the fault.
    pub fn insert_raw(&self, key: &str, value: impl Into<Vec<u8>>, ttl: Duration) {
        let value = TimedValue { value: value.into(), until: until(self.clock.now(), ttl) };
        self.state.lock().values.insert(key.to_owned(), value);
    }

    /// Returns the bytes under a key, whatever the fault.
    #[must_use]
    pub fn peek(&self, key: &str) -> Option<Vec<u8>> {
        let now = self.clock.now();
        self.state.lock().stored(key, now).map(|stored| stored.value)
    }

    /// Returns the bytes of the stale copy of a key, whatever the fault, while the value is fresh
    /// too.
    #[must_use]
    pub fn peek_copy(&self, key: &str) -> Option<Vec<u8>> {
        let now = self.clock.now();
        let state = self.state.lock();
        state.copies.get(key).filter(|copy| now < copy.until).map(|copy| copy.value.clone())
    }

    /// Returns the number of operations so far: round trips, if it were Redis.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    fn operate<'a, T: Send + 'a>(
        &'a self,
        operation: impl FnOnce(&mut State, u64) -> T + Send + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let answer = {
                let mut state = self.state.lock();
                state.operations += 1;
                match state.fault {
                    StoreFault::None => Some(operation(&mut state, self.clock.now())),
                    StoreFault::Fails => return Err(BoxError::from("the store is failing")),
                    StoreFault::Hangs => None,
                    StoreFault::HangsAfterwards => {
                        operation(&mut state, self.clock.now());
                        None
                    }
                }
            };
            match answer {
                Some(answer) => Ok(answer),
                None => pending().await,
            }
        })
    }
}

impl Store for SharedStore {
    fn get<'a>(&'a self, key: &'a str, _: bool) -> StoreFuture<'a, Option<StoredValue>> {
        self.operate(move |state, now| state.stored(key, now))
    }

    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        request: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse> {
        self.operate(move |state, now| {
            let stored = state.stored(key, now);
            if let Some(stored) = &stored {
                state.check_copy(key, stored);
            }
            if let Some(fresh) = stored.clone().filter(|_| !request.refresh) {
                return LeaseResponse::Fresh(fresh);
            }
            let missing = state.missing.get(key).filter(|until| now < **until);
            if let Some(until) = missing
                && request.with_missing
                && !request.refresh
            {
                return LeaseResponse::Missing(Duration::from_millis(until - now));
            }
            let until = until(now, request.lease_for);
            let lease = match state.leases.get_mut(key).filter(|out| now < out.until) {
                // mutant shared-write-lease: s/None/Some(out.lease.clone())/
                Some(out) if out.is_exclusive => None,
                Some(out) => {
                    out.until = out.until.max(until);
                    Some(out.lease.clone())
                }
                None => Some(state.give_lease(key, until, false)),
            };
            let stale = match stored {
                Some(ignored) => Some(ignored.into_stale()),
                None => state.stale(key, now),
            };
            LeaseResponse::Load { lease, stale }
        })
    }

    fn extend_lease<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        lease_for: Duration,
    ) -> StoreFuture<'a, bool> {
        self.operate(move |state, now| {
            let is_valid = state.has_lease(key, lease, now);
            if is_valid && let Some(out) = state.leases.get_mut(key) {
                out.until = out.until.max(until(now, lease_for));
            }
            is_valid
        })
    }

    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        result: Publication,
    ) -> StoreFuture<'a, bool> {
        self.operate(move |state, now| {
            if !state.has_lease(key, lease, now) {
                return false;
            }
            state.remove(key);
            match result {
                Publication::Missing { ttl } => {
                    state.missing.insert(key.to_owned(), until(now, ttl));
                }
                Publication::Value { value, ttl, stale_for } => {
                    let fresh_until = until(now, ttl);
                    if !stale_for.is_zero() {
                        let until = until(fresh_until, stale_for);
                        let copy = StaleCopy { value: value.clone(), fresh_until, until };
                        state.copies.insert(key.to_owned(), copy);
                    }
                    state.values.insert(key.to_owned(), TimedValue { value, until: fresh_until });
                }
            }
            true
        })
    }

    fn acquire_write_lease<'a>(
        &'a self,
        key: &'a str,
        lease_for: Duration,
    ) -> StoreFuture<'a, Option<Lease>> {
        self.operate(move |state, now| {
            state.remove(key);
            Some(state.give_lease(key, until(now, lease_for), true))
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        self.operate(move |state, _| state.remove(key))
    }

    fn delete_matching<'a>(&'a self, pattern: &'a str) -> StoreFuture<'a, ()> {
        self.operate(move |state, _| state.remove_matching(pattern, false))
    }

    fn delete_matching_from<'a>(
        &'a self,
        pattern: &'a str,
        sidecars_only: bool,
        _: &'a PatternCursor,
    ) -> StoreFuture<'a, ()> {
        self.operate(move |state, _| state.remove_matching(pattern, sidecars_only))
    }

    fn delete_sidecars<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        self.operate(move |state, _| keys.iter().for_each(|key| state.remove_sidecar(key)))
    }

    fn delete_if_equals<'a>(&'a self, key: &'a str, value: &'a [u8]) -> StoreFuture<'a, ()> {
        self.operate(move |state, _| {
            let in_value = state.values.get(key).is_some_and(|kept| kept.value == value);
            if in_value || state.copies.get(key).is_some_and(|copy| copy.value == value) {
                state.values.remove(key);
                state.copies.remove(key);
            }
        })
    }

    fn size(&self) -> StoreFuture<'_, u64> {
        self.operate(|state, now| {
            state.values.values().filter(|kept| now < kept.until).count() as u64
        })
    }

    fn lock<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        ttl: Duration,
        waited_for: Option<&'a str>,
    ) -> StoreFuture<'a, LockResponse> {
        self.operate(move |state, now| {
            let lock = state.locks.get(key).filter(|lock| now < lock.until && lock.owner != owner);
            match lock {
                Some(Lock { owner, end: None, .. }) => return LockResponse::HeldBy(owner.clone()),
                Some(Lock { owner, end: Some(end), .. }) if waited_for == Some(owner) => {
                    return LockResponse::Released(end.clone());
                }
                _ => {}
            }
            let lock = Lock { owner: owner.to_owned(), until: until(now, ttl), end: None };
            state.locks.insert(key.to_owned(), lock);
            LockResponse::Acquired
        })
    }

    fn extend<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        self.operate(move |state, now| {
            let is_held = |lock: &&mut Lock| lock.is_held_by(owner) && now < lock.until;
            let lock = state.locks.get_mut(key).filter(is_held);
            lock.map(|lock| lock.until = until(now, ttl)).is_some()
        })
    }

    fn unlock<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        end: Option<LoadEnd>,
    ) -> StoreFuture<'a, ()> {
        self.operate(move |state, now| {
            let Some(lock) = state.locks.get_mut(key).filter(|lock| lock.is_held_by(owner)) else {
                return;
            };
            lock.until = if end.is_some() { now + END_SHOWN } else { now };
            lock.end = end;
        })
    }

    fn connection_generation(&self) -> u64 {
        self.state.lock().connection
    }
}

impl std::fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedStore").finish_non_exhaustive()
    }
}
