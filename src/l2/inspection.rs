//! The types of the answer of a store that is asked what it keeps of a key.

use std::time::Duration;

/// What a store keeps of a key beside its value: the answer of
/// [`Store::inspect`](crate::Store::inspect).
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{Publication, Store, SystemClock, testing::SharedStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let store = SharedStore::new(SystemClock);
/// let lease = store.acquire_write_lease("user:7", Duration::from_secs(5)).await?.unwrap();
/// store.publish("user:7", &lease, Publication::Missing { ttl: Duration::from_secs(2) }).await?;
///
/// let inspection = store.inspect("user:7", "user:7").await?.unwrap();
/// assert!(inspection.missing_for.is_some() && inspection.stale_for.is_none());
/// assert_eq!((inspection.lease, inspection.lock), (None, None));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// How long the negative entry is valid; `None`: there is none.
    pub missing_for: Option<Duration>,
    /// How long the stale copy of the value may be served; `None`: there is none, or the value has
    /// not expired.
    pub stale_for: Option<Duration>,
    /// The outstanding lease of the key.
    pub lease: Option<OutstandingLease>,
    /// The distributed lock of the key, while an owner has it.
    pub lock: Option<HeldLock>,
}

/// A lease that some instance has taken for a key, and has not used yet. If that instance died, the
/// lease expires.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{Store, SystemClock, testing::SharedStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let store = SharedStore::new(SystemClock);
/// store.acquire_write_lease("user:7", Duration::from_secs(5)).await?;
/// let lease = store.inspect("user:7", "user:7").await?.unwrap().lease.unwrap();
/// assert!(lease.is_write && lease.valid_for <= Duration::from_secs(5));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct OutstandingLease {
    /// Whether it is the lease of a `set`. Otherwise it is that of a load.
    pub is_write: bool,
    /// The rest of its time.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub valid_for: Duration,
}

/// A distributed lock that an owner has.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{Store, SystemClock, testing::SharedStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let store = SharedStore::new(SystemClock);
/// store.lock("user:7", "one", Duration::from_secs(10), None).await?;
/// let lock = store.inspect("user:7", "user:7").await?.unwrap().lock.unwrap();
/// assert_eq!(lock.owner, "one");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct HeldLock {
    /// The owner, as it has named itself: for a cache of this library 32 hexadecimal digits, of
    /// which the first 16 are the same for all loads of one cache in one instance.
    pub owner: String,
    /// The time after which the lock ends, unless its owner extends it.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub valid_for: Duration,
}
