//! A store that fails at random: wraps any store, and injects errors and delays.

use std::{future::pending, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    error::BoxError,
    l2::{
        Lease, LeaseRequest, LeaseResponse, LoadEnd, LockResponse, Publication, Store, StoreFuture,
        StoredValue,
    },
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

    fn disturb<'a, T: Send + 'a>(&'a self, call: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        let (chaos, random) = &mut *self.0.state.lock();
        let is_delayed = random.f64() < chaos.delays;
        let delay =
            if is_delayed { chaos.longest_delay.mul_f64(random.f64()) } else { Duration::ZERO };
        let (chaos, roll) = (*chaos, random.f64());
        Box::pin(async move {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            if roll < chaos.fails {
                Err(BoxError::from("an injected fault"))
            } else if roll < chaos.fails + chaos.fails_afterwards {
                call.await?;
                Err(BoxError::from("an injected fault, after the call has happened"))
            } else if roll < chaos.fails + chaos.fails_afterwards + chaos.hangs {
                pending().await
            } else {
                call.await
            }
        })
    }
}

/// Forwards methods to the wrapped store, each through [`ChaosStore::disturb`].
macro_rules! disturb {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {$(
        fn $name<'a>(&'a self, $($argument: $type),*) -> StoreFuture<'a, $output> {
            self.disturb(self.0.store.$name($($argument),*))
        }
    )*};
}

impl<S: Store> Store for ChaosStore<S> {
    disturb! {
        fn get(key: &'a str, with_window: bool) -> Option<StoredValue>;
        fn get_or_lease(key: &'a str, request: LeaseRequest) -> LeaseResponse;
        fn extend_lease(key: &'a str, lease: &'a Lease, lease_for: Duration) -> bool;
        fn publish(key: &'a str, lease: &'a Lease, result: Publication) -> bool;
        fn acquire_write_lease(key: &'a str, lease_for: Duration) -> Option<Lease>;
        fn delete(key: &'a str) -> ();
        fn delete_matching(pattern: &'a str) -> ();
        fn delete_sidecars(name: &'a str, is_pattern: bool) -> ();
        fn delete_if_equals(key: &'a str, value: &'a [u8]) -> ();
        fn size() -> u64;
        fn lock(
            key: &'a str,
            owner: &'a str,
            ttl: Duration,
            waited_for: Option<&'a str>
        ) -> LockResponse;
        fn extend(key: &'a str, owner: &'a str, ttl: Duration) -> bool;
        fn unlock(key: &'a str, owner: &'a str, end: Option<LoadEnd>) -> ();
    }

    fn reject_key(&self, key: &str) -> Option<BoxError> {
        self.0.store.reject_key(key)
    }

    fn reject_value(&self, bytes: usize) -> Option<BoxError> {
        self.0.store.reject_value(bytes)
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
