//! A shared level in memory: the contract of [`Store`] at its plainest, and its failures on demand.

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

/// A [`Store`] that lives in memory. Clones are the same store, so caches that are given clones
/// share it as instances share Redis.
///
/// Each operation yields once, as one on a network would, and then happens in one step.
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
    values: HashMap<String, Kept>,
    /// The lease of each key that is being loaded. Those who begin while it is out share it: it
    /// says that no delete has come since it was first given.
    leases: HashMap<String, Out>,
    /// Who has each lock, until when.
    locks: HashMap<String, (String, u64)>,
    weather: StoreFault,
    operations: u64,
    /// Which run of the server it is, and the one whose data was last found good.
    run: u64,
    noted: u64,
}

#[derive(Clone)]
struct Out {
    lease: Lease,
    until: u64,
    /// Of a write: not to be shared with loads.
    exclusive: bool,
}

#[derive(Clone)]
struct Kept {
    value: Vec<u8>,
    until: u64,
}

/// What a [`SharedStore`] held at a time.
#[derive(Clone)]
pub struct StoreSnapshot(State);

impl std::fmt::Debug for StoreSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreSnapshot").finish_non_exhaustive()
    }
}

/// How a [`SharedStore`] is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StoreFault {
    /// Every operation works.
    #[default]
    Fine,
    /// Every operation fails at once.
    Failing,
    /// No operation ever answers. What was asked does not happen.
    Silent,
    /// No operation ever answers, but what was asked has happened.
    Deaf,
}

impl SharedStore {
    /// An empty store whose values live by this clock.
    #[must_use]
    pub fn new(clock: impl Clock) -> Self {
        Self(Arc::new(Inner {
            clock: Arc::new(clock),
            state: Mutex::default(),
            next_lease: AtomicU64::new(0),
            connection: AtomicU64::new(0),
        }))
    }

    /// From now on operations fare like this.
    pub fn set_weather(&self, weather: StoreFault) {
        self.0.state.lock().weather = weather;
    }

    /// Forgets everything, leases included, as a server does that is restarted empty.
    pub fn restart(&self) {
        let mut state = self.0.state.lock();
        state.values.clear();
        state.leases.clear();
        state.locks.clear();
    }

    /// All that it holds now, leases and locks included, as a server saves it to disk.
    #[must_use]
    pub fn snapshot(&self) -> StoreSnapshot {
        StoreSnapshot(self.0.state.lock().clone())
    }

    /// Forgets everything and is back with what it held then, as a server does that loads its last
    /// snapshot, or a replica that had not got all that its master confirmed: what was deleted in
    /// between is there again.
    ///
    /// It is another [`run`](Self::run) of the server. Whoever uses one across that must look, as
    /// `RedisStore` does, and not ask it for anything until what is old has been removed.
    pub fn restart_with(&self, old: &StoreSnapshot) {
        let mut state = self.0.state.lock();
        let State { weather, operations, run, .. } = *state;
        *state = State { weather, operations, run: run + 1, ..old.0.clone() };
    }

    /// Another number after each [`restart_with`](Self::restart_with).
    #[must_use]
    pub fn run(&self) -> u64 {
        self.0.state.lock().run
    }

    /// Whether somebody has [noted](Self::note_run) that what this run holds is good. The note is
    /// among what it holds.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        let state = self.0.state.lock();
        // mutant restart-old: s/==/<=/
        state.noted == state.run
    }

    /// Notes that what this run holds is good, for whoever comes next.
    pub fn mark_verified(&self) {
        let mut state = self.0.state.lock();
        state.noted = state.run;
    }

    /// As if there were a new connection.
    pub fn reconnect(&self) {
        self.0.connection.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts bytes under a key, past all rules.
    pub fn insert_raw(&self, key: &str, value: impl Into<Vec<u8>>, lives: Duration) {
        let until = self.until(lives);
        self.0.state.lock().values.insert(key.to_owned(), Kept { value: value.into(), until });
    }

    /// The bytes under a key.
    #[must_use]
    pub fn peek(&self, key: &str) -> Option<Vec<u8>> {
        let now = self.0.clock.now();
        self.0.state.lock().stored(key, now).map(|stored| stored.value)
    }

    /// How many operations it was asked for: round trips, if it were Redis.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.state.lock().operations
    }

    fn new_lease(&self) -> Lease {
        Lease::new(self.0.next_lease.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn until(&self, lives: Duration) -> u64 {
        self.0.clock.now().saturating_add(millis(lives))
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
                match state.weather {
                    StoreFault::Fine => Some(operation(&mut state, self.0.clock.now())),
                    StoreFault::Failing => return Err(BoxError::from("the store is failing")),
                    StoreFault::Silent => None,
                    StoreFault::Deaf => {
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
        let remaining = Some(Duration::from_millis(kept.until - now));
        Some(StoredValue { value: kept.value.clone(), remaining })
    }
}

impl Store for SharedStore {
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<StoredValue>> {
        self.operate(move |state, now| state.stored(key, now))
    }

    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        begin: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse> {
        let new = self.new_lease();
        self.operate(move |state, now| {
            let stored = state.stored(key, now);
            let is_fresh = |stored: &StoredValue| {
                stored.remaining.is_none_or(|remaining| remaining > begin.stale_for)
            };
            if let Some(fresh) = stored.clone().filter(|it| is_fresh(it) && !begin.refresh) {
                return LeaseResponse::Fresh(fresh);
            }
            let until = now.saturating_add(millis(begin.lease_for));
            let out = state.leases.entry(key.to_owned()).or_insert_with(|| Out {
                lease: new.clone(),
                until,
                exclusive: false,
            });
            if now >= out.until {
                *out = Out { lease: new, until, exclusive: false };
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
        lives: Duration,
    ) -> StoreFuture<'a, bool> {
        self.operate(move |state, now| {
            // mutant absent-lease: s/is_some_and/is_none_or/
            let good =
                state.leases.get(key).is_some_and(|out| out.lease == *lease && now < out.until);
            if good {
                state.leases.remove(key);
                let until = now.saturating_add(millis(lives));
                state.values.insert(key.to_owned(), Kept { value, until });
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
            let out = Out { lease: lease.clone(), until, exclusive: true };
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
            let by_another =
                state.locks.get(key).is_some_and(|(by, until)| by != owner && now < *until);
            if !by_another {
                let until = now.saturating_add(millis(ttl));
                state.locks.insert(key.to_owned(), (owner.to_owned(), until));
            }
            !by_another
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
