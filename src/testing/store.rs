//! An L2 store in memory, and how a test looks into it and makes it fail.

use std::{
    future::pending,
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;

use super::store_state::{State, StoreFault, TimedValue, until};
use crate::{error::BoxError, l2::StoreFuture, time::Clock};

/// A [`Store`](crate::Store) in memory. Clones are the same store, so caches with clones of it
/// share it as instances share Redis. It has no prefixes: give caches with different names a store
/// each.
///
/// Each operation yields once, as a network call would, and then happens in one step.
///
/// ```
/// use lazy_layers_cache::{LazyLayersCache, SystemClock, WireCodec, testing::SharedStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let store = SharedStore::new(SystemClock);
/// let instance = || {
///     LazyLayersCache::<u64, String>::builder().l2(store.clone(), WireCodec::new()).build()
/// };
/// let (one, other) = (instance()?, instance()?);
/// one.set(&7, "Ada".to_owned()).await?;
/// assert_eq!(other.get(&7).await.unwrap().as_str(), "Ada");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SharedStore {
    clock: Arc<dyn Clock>,
    pub(super) state: Arc<Mutex<State>>,
    /// The name of the cache to which the keys belong.
    pub(super) cache: Arc<OnceLock<String>>,
}

/// The contents of a [`SharedStore`] at one time.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{SystemClock, testing::{SharedStore, StoreSnapshot}};
///
/// let store = SharedStore::new(SystemClock);
/// store.insert_raw("user:7", "Ada", Duration::from_secs(60));
/// let saved: StoreSnapshot = store.snapshot();
/// store.restart();
/// assert_eq!(store.peek("user:7"), None);
/// store.restart_with(&saved);
/// assert_eq!(store.peek("user:7").as_deref(), Some(&b"Ada"[..]));
/// ```
#[derive(Clone)]
pub struct StoreSnapshot(State);

impl std::fmt::Debug for StoreSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreSnapshot").finish_non_exhaustive()
    }
}

impl SharedStore {
    /// Creates an empty store that measures ttls with this clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::testing::{ManualClock, SharedStore};
    ///
    /// let clock = ManualClock::new();
    /// let store = SharedStore::new(clock.clone());
    /// store.insert_raw("user:7", "Ada", Duration::from_secs(60));
    /// clock.advance(Duration::from_secs(60));
    /// assert_eq!(store.peek("user:7"), None);
    /// ```
    #[must_use]
    pub fn new(clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), state: Arc::default(), cache: Arc::default() }
    }

    /// Sets the fault of all later operations.
    ///
    /// ```
    /// use lazy_layers_cache::{Store, SystemClock, testing::{SharedStore, StoreFault}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let store = SharedStore::new(SystemClock);
    /// store.set_fault(StoreFault::Fails);
    /// assert!(store.size().await.is_err());
    /// store.set_fault(StoreFault::None);
    /// assert!(store.size().await.is_ok());
    /// # Ok(()) }
    /// ```
    pub fn set_fault(&self, fault: StoreFault) {
        self.state.lock().fault = fault;
    }

    /// Removes everything, leases included, as a server does that restarts empty.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{SystemClock, testing::SharedStore};
    ///
    /// let store = SharedStore::new(SystemClock);
    /// store.insert_raw("user:7", "Ada", Duration::from_secs(60));
    /// store.restart();
    /// assert_eq!(store.peek("user:7"), None);
    /// ```
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
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{Store, SystemClock, testing::SharedStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let store = SharedStore::new(SystemClock);
    /// store.insert_raw("user:7", "Ada", Duration::from_secs(60));
    /// let before = store.snapshot();
    /// store.delete("user:7").await?;
    /// // A replica is promoted that has not received the delete.
    /// store.restart_with(&before);
    /// assert!(store.peek("user:7").is_some());
    /// # Ok(()) }
    /// ```
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
    ///
    /// ```
    /// use lazy_layers_cache::{SystemClock, testing::SharedStore};
    ///
    /// let store = SharedStore::new(SystemClock);
    /// let (before, run_id) = (store.snapshot(), store.run_id());
    /// store.restart_with(&before);
    /// assert_ne!(store.run_id(), run_id);
    /// ```
    pub fn restart_with(&self, old: &StoreSnapshot) {
        let mut state = self.state.lock();
        let State { leases_given, fault, operations, connection, .. } = *state;
        let run_id = state.run_id + 1;
        *state = State { leases_given, fault, operations, connection, run_id, ..old.0.clone() };
    }

    /// Returns the number of the run, which changes with each
    /// [`restart_with`](Self::restart_with).
    ///
    /// ```
    /// use lazy_layers_cache::{SystemClock, testing::SharedStore};
    ///
    /// let store = SharedStore::new(SystemClock);
    /// let run_id = store.run_id();
    /// store.reconnect();
    /// assert_eq!(store.run_id(), run_id, "another connection, the same run");
    /// ```
    #[must_use]
    pub fn run_id(&self) -> u64 {
        self.state.lock().run_id
    }

    /// Whether the contents of this run were [marked as verified](Self::mark_verified). The mark is
    /// a part of the contents.
    ///
    /// ```
    /// use lazy_layers_cache::{SystemClock, testing::SharedStore};
    ///
    /// let store = SharedStore::new(SystemClock);
    /// assert!(store.is_verified(), "an empty store holds no old values");
    /// let before = store.snapshot();
    /// store.restart_with(&before);
    /// assert!(!store.is_verified());
    /// ```
    #[must_use]
    pub fn is_verified(&self) -> bool {
        let state = self.state.lock();
        // mutant restart-old: s/==/<=/
        state.verified_run_id == state.run_id
    }

    /// Marks the contents of this run as verified: they hold no old values.
    ///
    /// ```
    /// use lazy_layers_cache::{SystemClock, testing::SharedStore};
    ///
    /// let store = SharedStore::new(SystemClock);
    /// let before = store.snapshot();
    /// store.restart_with(&before);
    /// // Here a client removes the old values.
    /// store.mark_verified();
    /// assert!(store.is_verified());
    /// ```
    pub fn mark_verified(&self) {
        let mut state = self.state.lock();
        state.verified_run_id = state.run_id;
    }

    /// Changes the [connection generation](crate::Store::connection_generation), as a new
    /// connection does.
    ///
    /// ```
    /// use lazy_layers_cache::{Store, SystemClock, testing::SharedStore};
    ///
    /// let store = SharedStore::new(SystemClock);
    /// let generation = store.connection_generation();
    /// store.reconnect();
    /// assert_ne!(store.connection_generation(), generation);
    /// ```
    pub fn reconnect(&self) {
        self.state.lock().connection += 1;
    }

    /// Writes bytes under a key, without a lease and whatever the fault.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{LazyLayersCache, SystemClock, WireCodec, testing::SharedStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let store = SharedStore::new(SystemClock);
    /// store.insert_raw("7", "not what the codec writes", Duration::from_secs(60));
    /// let names = LazyLayersCache::<u64, u32>::builder()
    ///     .l2(store.clone(), WireCodec::new())
    ///     .build()?;
    /// assert!(names.get(&7).await.is_none());
    /// assert_eq!(names.stats().l2_errors, 1);
    /// # Ok(()) }
    /// ```
    pub fn insert_raw(&self, key: &str, value: impl Into<Vec<u8>>, ttl: Duration) {
        let value = TimedValue { value: value.into(), until: until(self.clock.now(), ttl) };
        self.state.lock().values.insert(key.to_owned(), value);
    }

    /// Returns the bytes under a key, whatever the fault.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, SystemClock, WireCodec, testing::SharedStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let store = SharedStore::new(SystemClock);
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .l2(store.clone(), WireCodec::new())
    ///     .build()?;
    /// names.set(&7, "Ada".to_owned()).await?;
    /// assert_eq!(store.peek("7").as_deref(), Some(&b"HC1M\xa3Ada"[..]));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn peek(&self, key: &str) -> Option<Vec<u8>> {
        let now = self.clock.now();
        self.state.lock().stored(key, now).map(|stored| stored.value)
    }

    /// Returns the bytes of the stale copy of a key, whatever the fault, while the value is fresh
    /// too.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{LazyLayersCache, SystemClock, WireCodec, testing::SharedStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let store = SharedStore::new(SystemClock);
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .l2(store.clone(), WireCodec::new())
    ///     .build()?;
    /// names.set(&7, "Ada".to_owned()).await?;
    /// assert!(store.peek_copy("7").is_none(), "without a stale window there is no copy");
    /// names.set(&7, "Ada".to_owned()).stale_for(Duration::from_secs(60)).await?;
    /// assert!(store.peek_copy("7").is_some());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn peek_copy(&self, key: &str) -> Option<Vec<u8>> {
        let now = self.clock.now();
        let state = self.state.lock();
        state.copies.get(key).filter(|copy| now < copy.until).map(|copy| copy.value.clone())
    }

    /// Returns the number of operations so far: round trips, if it were Redis.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, SystemClock, WireCodec, testing::SharedStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let store = SharedStore::new(SystemClock);
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .l2(store.clone(), WireCodec::new())
    ///     .build()?;
    /// names.delete(&7).await?;
    /// assert_eq!(store.operations(), 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Runs one operation, with the fault that is set.
    pub(super) fn operate<'a, T: Send + 'a>(
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

impl std::fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedStore").finish_non_exhaustive()
    }
}
