//! An L2 store in memory: the plainest implementation of [`Store`], with faults on demand.

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

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
pub struct SharedStore(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    next_lease: AtomicU64,
    connection: AtomicU64,
}

#[derive(Default, Clone)]
struct State {
    values: HashMap<String, TimedValue>,
    /// The outstanding lease of each key. Loads that begin while it is outstanding share it: it is
    /// valid because no delete has come since it was first given.
    leases: HashMap<String, TimedLease>,
    /// The owner of each lock, and the end of the lock's ttl.
    locks: HashMap<String, (String, u64)>,
    fault: StoreFault,
    operations: u64,
    run_id: u64,
    /// The run whose data was last marked as verified.
    verified_run_id: u64,
}

#[derive(Clone)]
struct TimedLease {
    lease: Lease,
    until: u64,
    /// The lease of a write, which loads do not share.
    exclusive: bool,
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
        Self(Arc::new(Inner {
            clock: Arc::new(clock),
            state: Mutex::default(),
            next_lease: AtomicU64::new(0),
            connection: AtomicU64::new(0),
        }))
    }

    /// Sets the fault of all later operations.
    pub fn set_fault(&self, fault: StoreFault) {
        self.0.state.lock().fault = fault;
    }

    /// Removes everything, leases included, as a server does that restarts empty.
    pub fn restart(&self) {
        let mut state = self.0.state.lock();
        state.values.clear();
        state.leases.clear();
        state.locks.clear();
    }

    /// Returns a copy of the contents, leases and locks included, as a server saves it to disk.
    #[must_use]
    pub fn snapshot(&self) -> StoreSnapshot {
        StoreSnapshot(self.0.state.lock().clone())
    }

    /// Replaces the contents by a snapshot, as a server does that restarts from disk, or a replica
    /// that is promoted without the last writes that its master confirmed: values that were deleted
    /// after the snapshot are there again.
    ///
    /// The store then has another [`run_id`](Self::run_id). A client that uses the store across
    /// this must detect that, as `RedisStore` does, and send it no requests until the old values
    /// have been removed.
    pub fn restart_with(&self, old: &StoreSnapshot) {
        let mut state = self.0.state.lock();
        let State { fault, operations, run_id, .. } = *state;
        *state = State { fault, operations, run_id: run_id + 1, ..old.0.clone() };
    }

    /// Returns the number of the run, which changes with each
    /// [`restart_with`](Self::restart_with).
    #[must_use]
    pub fn run_id(&self) -> u64 {
        self.0.state.lock().run_id
    }

    /// Whether the contents of this run were [marked as verified](Self::mark_verified). The mark is
    /// a part of the contents.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        let state = self.0.state.lock();
        // mutant restart-old: s/==/<=/
        state.verified_run_id == state.run_id
    }

    /// Marks the contents of this run as verified: they hold no old values.
    pub fn mark_verified(&self) {
        let mut state = self.0.state.lock();
        state.verified_run_id = state.run_id;
    }

    /// Changes the [connection generation](Store::connection_generation), as a new connection does.
    pub fn reconnect(&self) {
        self.0.connection.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes bytes under a key, without a lease and whatever the fault.
    pub fn insert_raw(&self, key: &str, value: impl Into<Vec<u8>>, ttl: Duration) {
        let until = self.until(ttl);
        self.0
            .state
            .lock()
            .values
            .insert(key.to_owned(), TimedValue { value: value.into(), until });
    }

    /// Returns the bytes under a key, whatever the fault.
    #[must_use]
    pub fn peek(&self, key: &str) -> Option<Vec<u8>> {
        let now = self.0.clock.now();
        self.0.state.lock().stored(key, now).map(|stored| stored.value)
    }

    /// Returns the number of operations so far: round trips, if it were Redis.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.state.lock().operations
    }

    fn new_lease(&self) -> Lease {
        Lease::new(self.0.next_lease.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn until(&self, ttl: Duration) -> u64 {
        self.0.clock.now().saturating_add(millis(ttl))
    }

    fn operate<'a, T: Send + 'a>(
        &'a self,
        operation: impl FnOnce(&mut State, u64) -> T + Send + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let answer = {
                let mut state = self.0.state.lock();
                state.operations += 1;
                match state.fault {
                    StoreFault::None => Some(operation(&mut state, self.0.clock.now())),
                    StoreFault::Fails => return Err(BoxError::from("the store is failing")),
                    StoreFault::Hangs => None,
                    StoreFault::HangsAfterwards => {
                        operation(&mut state, self.0.clock.now());
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
        let new = self.new_lease();
        self.operate(move |state, now| {
            let stored = state.stored(key, now);
            let is_fresh =
                |stored: &StoredValue| stored.ttl.is_none_or(|ttl| ttl > request.stale_for);
            if let Some(fresh) = stored.clone().filter(|it| is_fresh(it) && !request.refresh) {
                return LeaseResponse::Fresh(fresh);
            }
            let until = now.saturating_add(millis(request.lease_for));
            let out = state.leases.entry(key.to_owned()).or_insert_with(|| TimedLease {
                lease: new.clone(),
                until,
                exclusive: false,
            });
            if now >= out.until {
                *out = TimedLease { lease: new, until, exclusive: false };
            } else if !out.exclusive {
                out.until = out.until.max(until);
            }
            // mutant shared-write-lease: => let lease = Some(out.lease.clone());
            let lease = (!out.exclusive).then(|| out.lease.clone());
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
            let good =
                state.leases.get(key).is_some_and(|out| out.lease == *lease && now < out.until);
            if good {
                state.leases.remove(key);
                let until = now.saturating_add(millis(ttl));
                state.values.insert(key.to_owned(), TimedValue { value, until });
            }
            good
        })
    }

    fn acquire_write_lease<'a>(
        &'a self,
        key: &'a str,
        lease_for: Duration,
    ) -> StoreFuture<'a, Option<Lease>> {
        let lease = self.new_lease();
        self.operate(move |state, now| {
            state.values.remove(key);
            let until = now.saturating_add(millis(lease_for));
            let out = TimedLease { lease: lease.clone(), until, exclusive: true };
            state.leases.insert(key.to_owned(), out);
            Some(lease)
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
                let until = now.saturating_add(millis(ttl));
                state.locks.insert(key.to_owned(), (owner.to_owned(), until));
            }
            !held_elsewhere
        })
    }

    fn extend<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        self.operate(move |state, now| {
            let own = state.locks.get_mut(key).filter(|(by, until)| by == owner && now < *until);
            own.map(|(_, until)| *until = now.saturating_add(millis(ttl))).is_some()
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
        self.0.connection.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedStore").finish_non_exhaustive()
    }
}
