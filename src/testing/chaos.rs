//! A store that fails at random: wraps any store, and injects errors and delays.

use std::{future::pending, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    error::BoxError,
    l2::{Lease, LeaseRequest, LeaseResponse, Store, StoreFuture, StoredValue},
};

/// Probabilities of faults, from 0 (never) to 1 (always).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Chaos {
    /// The call fails, and does not happen.
    pub fails: f64,
    /// The call fails, but happens.
    pub fails_afterwards: f64,
    /// The call is never answered.
    pub hangs: f64,
    /// The call is delayed by a random part of [`longest_delay`](Self::longest_delay).
    pub delays: f64,
    /// The longest delay.
    pub longest_delay: Duration,
}

/// A [`Store`] around another, whose calls fail, hang and are delayed at random: in the same way
/// for the same seed and order of calls. Clones share the faults and the random numbers.
#[derive(Clone)]
pub struct ChaosStore<S>(Arc<Inner<S>>);

struct Inner<S> {
    store: S,
    state: Mutex<(Chaos, fastrand::Rng)>,
}

#[derive(Clone, Copy)]
enum Fate {
    Succeeds,
    Fails,
    FailsAfterwards,
    Hangs,
}

impl<S: Store> ChaosStore<S> {
    /// Wraps a store. There are no faults until [`set`](Self::set) is called.
    pub fn new(store: S, seed: u64) -> Self {
        let state = Mutex::new((Chaos::default(), fastrand::Rng::with_seed(seed)));
        Self(Arc::new(Inner { store, state }))
    }

    /// Sets the faults of all later calls.
    pub fn set(&self, chaos: Chaos) {
        self.0.state.lock().0 = chaos;
    }

    fn roll(&self) -> (Duration, Fate) {
        let (chaos, random) = &mut *self.0.state.lock();
        let is_delayed = random.f64() < chaos.delays;
        let delay =
            if is_delayed { chaos.longest_delay.mul_f64(random.f64()) } else { Duration::ZERO };
        let at = random.f64();
        let fate = if at < chaos.fails {
            Fate::Fails
        } else if at < chaos.fails + chaos.fails_afterwards {
            Fate::FailsAfterwards
        } else if at < chaos.fails + chaos.fails_afterwards + chaos.hangs {
            Fate::Hangs
        } else {
            Fate::Succeeds
        };
        (delay, fate)
    }

    fn disturb<'a, T: Send + 'a>(&'a self, call: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        let (delay, fate) = self.roll();
        Box::pin(async move {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            match fate {
                Fate::Succeeds => call.await,
                Fate::Fails => Err(BoxError::from("an injected fault")),
                Fate::FailsAfterwards => {
                    call.await?;
                    Err(BoxError::from("an injected fault, after the call has happened"))
                }
                Fate::Hangs => pending().await,
            }
        })
    }
}

impl<S: Store> Store for ChaosStore<S> {
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<StoredValue>> {
        self.disturb(self.0.store.get(key))
    }

    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        request: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse> {
        self.disturb(self.0.store.get_or_lease(key, request))
    }

    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        value: Vec<u8>,
        ttl: Duration,
    ) -> StoreFuture<'a, bool> {
        self.disturb(self.0.store.publish(key, lease, value, ttl))
    }

    fn acquire_write_lease<'a>(
        &'a self,
        key: &'a str,
        lease_for: Duration,
    ) -> StoreFuture<'a, Option<Lease>> {
        self.disturb(self.0.store.acquire_write_lease(key, lease_for))
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        self.disturb(self.0.store.delete(key))
    }

    fn delete_matching<'a>(&'a self, pattern: &'a str) -> StoreFuture<'a, ()> {
        self.disturb(self.0.store.delete_matching(pattern))
    }

    fn delete_if_equals<'a>(&'a self, key: &'a str, value: &'a [u8]) -> StoreFuture<'a, ()> {
        self.disturb(self.0.store.delete_if_equals(key, value))
    }

    fn size(&self) -> StoreFuture<'_, u64> {
        self.disturb(self.0.store.size())
    }

    fn lock<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        self.disturb(self.0.store.lock(key, owner, ttl))
    }

    fn extend<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        self.disturb(self.0.store.extend(key, owner, ttl))
    }

    fn unlock<'a>(&'a self, key: &'a str, owner: &'a str) -> StoreFuture<'a, ()> {
        self.disturb(self.0.store.unlock(key, owner))
    }

    fn reject_key(&self, key: &str) -> Option<BoxError> {
        self.0.store.reject_key(key)
    }

    fn connection_generation(&self) -> u64 {
        self.0.store.connection_generation()
    }
}

impl<S> std::fmt::Debug for ChaosStore<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChaosStore").field("chaos", &self.0.state.lock().0).finish_non_exhaustive()
    }
}
