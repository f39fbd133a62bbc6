//! An L2 store in memory: the plainest implementation of [`Store`], with faults on demand.

use std::{collections::HashMap, future::pending, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    error::BoxError,
    glob::Pattern,
    l2::{Lease, LeaseRequest, LeaseResponse, Store, StoreFuture, StoredValue},
    time::{Clock, millis},
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

#[derive(Default, Clone)]
struct State {
    values: HashMap<String, TimedValue>,
    /// The outstanding lease of each key. Loads that begin while it is outstanding share it: it is
    /// valid because no delete has come since it was first given.
    leases: HashMap<String, TimedLease>,
    /// The owner of each lock, and the end of the lock's ttl.
    locks: HashMap<String, (String, u64)>,
    leases_given: u64,
    fault: StoreFault,
    operations: u64,
    connection: u64,
    run_id: u64,
    /// The run whose data was last marked as verified.
    verified_run_id: u64,
}

#[derive(Clone)]
struct TimedLease {
    lease: Lease,
    until: u64,
    /// The lease of a write, which loads do not share.
    is_exclusive: bool,
}

#[derive(Clone)]
struct TimedValue {
    value: Vec<u8>,
    until: u64,
}

/// The contents of a [`SharedStore`] at one time.
#[derive(Clone)]
pub struct StoreSnapshot(State);

impl std::fmt::Debug for StoreSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreSnapshot").finish_non_exhaustive()
    }
}

/// The fault of every operation of a [`SharedStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StoreFault {
    /// Every operation works.
    #[default]
    None,
    /// Every operation fails at once, and does not happen.
    Fails,
    /// No operation ever answers, and none happens.
    Hangs,
    /// No operation ever answers, but each happens.
    HangsAfterwards,
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
        state.values.clear();
        state.leases.clear();
        state.locks.clear();
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

impl State {
    fn stored(&self, key: &str, now: u64) -> Option<StoredValue> {
        let kept = self.values.get(key).filter(|kept| now < kept.until)?;
        let ttl = Some(Duration::from_millis(kept.until - now));
        Some(StoredValue { value: kept.value.clone(), ttl })
    }

    fn give_lease(&mut self, key: &str, until: u64, is_exclusive: bool) -> Lease {
        self.leases_given += 1;
        let lease = Lease::new(self.leases_given.to_string());
        let given = TimedLease { lease: lease.clone(), until, is_exclusive };
        self.leases.insert(key.to_owned(), given);
        lease
    }
}

fn until(now: u64, ttl: Duration) -> u64 {
    now.saturating_add(millis(ttl))
}

impl Store for SharedStore {
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<StoredValue>> {
        self.operate(move |state, now| state.stored(key, now))
    }

    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        request: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse> {
        self.operate(move |state, now| {
            let stored = state.stored(key, now);
            let is_fresh =
                |stored: &StoredValue| stored.ttl.is_none_or(|ttl| ttl > request.stale_for);
            if let Some(fresh) = stored.clone().filter(|it| is_fresh(it) && !request.refresh) {
                return LeaseResponse::Fresh(fresh);
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
            LeaseResponse::Load { lease, stale: stored }
        })
    }

    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        value: Vec<u8>,
        ttl: Duration,
    ) -> StoreFuture<'a, bool> {
        self.operate(move |state, now| {
            // mutant absent-lease: s/is_some_and/is_none_or/
            let is_valid =
                state.leases.get(key).is_some_and(|out| out.lease == *lease && now < out.until);
            if is_valid {
                state.leases.remove(key);
                let value = TimedValue { value, until: until(now, ttl) };
                state.values.insert(key.to_owned(), value);
            }
            is_valid
        })
    }

    fn acquire_write_lease<'a>(
        &'a self,
        key: &'a str,
        lease_for: Duration,
    ) -> StoreFuture<'a, Option<Lease>> {
        self.operate(move |state, now| {
            state.values.remove(key);
            Some(state.give_lease(key, until(now, lease_for), true))
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        self.operate(move |state, _| {
            state.leases.remove(key);
            state.values.remove(key);
        })
    }

    fn delete_matching<'a>(&'a self, pattern: &'a str) -> StoreFuture<'a, ()> {
        self.operate(move |state, _| {
            let pattern = Pattern::new(pattern);
            state.leases.retain(|key, _| !pattern.matches(key));
            state.values.retain(|key, _| !pattern.matches(key));
        })
    }

    fn delete_if_equals<'a>(&'a self, key: &'a str, value: &'a [u8]) -> StoreFuture<'a, ()> {
        self.operate(move |state, _| {
            if state.values.get(key).is_some_and(|kept| kept.value == value) {
                state.values.remove(key);
            }
        })
    }

    fn size(&self) -> StoreFuture<'_, u64> {
        self.operate(|state, now| {
            state.values.values().filter(|kept| now < kept.until).count() as u64
        })
    }

    fn lock<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        self.operate(move |state, now| {
            let held_elsewhere =
                state.locks.get(key).is_some_and(|(by, until)| by != owner && now < *until);
            if !held_elsewhere {
                state.locks.insert(key.to_owned(), (owner.to_owned(), until(now, ttl)));
            }
            !held_elsewhere
        })
    }

    fn extend<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        self.operate(move |state, now| {
            let lock = state.locks.get_mut(key).filter(|(by, until)| by == owner && now < *until);
            lock.map(|(_, end)| *end = until(now, ttl)).is_some()
        })
    }

    fn unlock<'a>(&'a self, key: &'a str, owner: &'a str) -> StoreFuture<'a, ()> {
        self.operate(move |state, _| {
            if state.locks.get(key).is_some_and(|(by, _)| by == owner) {
                state.locks.remove(key);
            }
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
