//! A store that fails at random: wraps any store, and injects errors and delays.

use std::{future::pending, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::sleep;

use super::forward::ForwardStore;
use crate::{
    error::BoxError,
    l2::{Store, StoreFuture},
};

/// Probabilities of faults, from 0 (never) to 1 (always).
///
/// ```
/// use lazy_layers_cache::testing::Chaos;
///
/// // One call in ten fails, half of them after they have happened.
/// let chaos = Chaos { fails: 0.05, fails_afterwards: 0.05, ..Chaos::default() };
/// ```
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
///
/// ```
/// use lazy_layers_cache::{
///     LazyLayersCache, SystemClock, WireCodec,
///     testing::{Chaos, ChaosStore, SharedStore},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let store = ChaosStore::new(SharedStore::new(SystemClock), 42);
/// store.set(Chaos { fails: 0.5, ..Chaos::default() });
/// let names = LazyLayersCache::<u64, String>::builder().l2(store, WireCodec::new()).build()?;
/// for id in 0..20_u64 {
///     names.set(&id, "Ada".to_owned()).await?;
///     assert!(names.get(&id).await.is_some(), "L1 serves it, whatever L2 does");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ChaosStore<S>(Arc<Inner<S>>);

struct Inner<S> {
    store: Arc<S>,
    state: Mutex<(Chaos, fastrand::Rng)>,
}

impl<S: Store> ChaosStore<S> {
    /// Wraps a store. There are no faults until [`set`](Self::set) is called.
    ///
    /// ```
    /// use lazy_layers_cache::{Store, SystemClock, testing::{ChaosStore, SharedStore}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let store = ChaosStore::new(SharedStore::new(SystemClock), 42);
    /// assert_eq!(store.size().await?, 0);
    /// # Ok(()) }
    /// ```
    pub fn new(store: S, seed: u64) -> Self {
        let state = Mutex::new((Chaos::default(), fastrand::Rng::with_seed(seed)));
        Self(Arc::new(Inner { store: Arc::new(store), state }))
    }

    /// Sets the faults of all later calls.
    ///
    /// ```
    /// use lazy_layers_cache::{Store, SystemClock, testing::{Chaos, ChaosStore, SharedStore}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let store = ChaosStore::new(SharedStore::new(SystemClock), 42);
    /// store.set(Chaos { fails: 1.0, ..Chaos::default() });
    /// assert!(store.size().await.is_err());
    /// store.set(Chaos::default());
    /// assert!(store.size().await.is_ok());
    /// # Ok(()) }
    /// ```
    pub fn set(&self, chaos: Chaos) {
        self.0.state.lock().0 = chaos;
    }
}

impl<S: Store> ForwardStore for ChaosStore<S> {
    fn inner(&self) -> Arc<dyn Store> {
        Arc::<S>::clone(&self.0.store)
    }

    fn forward<T: Send + 'static>(
        &self,
        call: impl FnOnce(Arc<dyn Store>) -> StoreFuture<'static, T> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        let (chaos, random) = &mut *self.0.state.lock();
        let is_delayed = random.f64() < chaos.delays;
        let delay =
            if is_delayed { chaos.longest_delay.mul_f64(random.f64()) } else { Duration::ZERO };
        let (chaos, roll) = (*chaos, random.f64());
        let call = call(self.inner());
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

impl<S> std::fmt::Debug for ChaosStore<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChaosStore").field("chaos", &self.0.state.lock().0).finish_non_exhaustive()
    }
}
