//! The types of the arguments and of the answers of a store: values, leases, publications.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

/// The position of one delete by pattern, which takes several calls if the store fails or is slow:
/// see [`Store::delete_matching_from`](crate::Store::delete_matching_from).
///
/// The store writes the position, and only the store knows what it means. Clones are the same
/// cursor. It is valid in this process only.
///
/// ```
/// use lazy_layers_cache::{PatternCursor, Store, SystemClock, testing::SharedStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let store = SharedStore::new(SystemClock);
/// let cursor = PatternCursor::new();
/// // Again with the same cursor after an error or a timeout: it continues there.
/// store.delete_matching_from("user:*", false, &cursor).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct PatternCursor(Arc<Mutex<Option<String>>>);

impl PatternCursor {
    /// Creates a cursor at the beginning.
    ///
    /// ```
    /// use lazy_layers_cache::PatternCursor;
    ///
    /// assert_eq!(PatternCursor::new().position(), None);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the position; `None`: the beginning.
    ///
    /// ```
    /// use lazy_layers_cache::PatternCursor;
    ///
    /// let cursor = PatternCursor::new();
    /// cursor.advance("page 3");
    /// // A clone is the same cursor.
    /// assert_eq!(cursor.clone().position().as_deref(), Some("page 3"));
    /// ```
    #[must_use]
    pub fn position(&self) -> Option<String> {
        self.0.lock().clone()
    }

    /// Sets the position. Everything before it is done.
    ///
    /// ```
    /// use lazy_layers_cache::PatternCursor;
    ///
    /// /// Deletes page by page, and continues with the page after the last position.
    /// async fn delete_pages(cursor: &PatternCursor) {
    ///     let first = cursor.position().and_then(|page| page.parse().ok()).unwrap_or(0);
    ///     for page in first..10_u32 {
    ///         // The store deletes the keys of this page.
    ///         cursor.advance((page + 1).to_string());
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let cursor = PatternCursor::new();
    /// delete_pages(&cursor).await;
    /// assert_eq!(cursor.position().as_deref(), Some("10"));
    /// # Ok(()) }
    /// ```
    pub fn advance(&self, position: impl Into<String>) {
        *self.0.lock() = Some(position.into());
    }
}

/// Two cursors are equal if their positions are.
impl PartialEq for PatternCursor {
    fn eq(&self, other: &Self) -> bool {
        self.position() == other.position()
    }
}

impl Eq for PatternCursor {}

/// The right to publish the result of one load.
///
/// ```
/// use lazy_layers_cache::Lease;
///
/// // A store that numbers its leases.
/// let lease = Lease::new("42");
/// assert_eq!(lease.token().parse(), Ok(42_u64));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease(String);

impl Lease {
    /// Creates a lease from the token by which the store knows it.
    ///
    /// ```
    /// use lazy_layers_cache::Lease;
    ///
    /// assert_eq!(Lease::new("42"), Lease::new("42".to_owned()));
    /// ```
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// Returns the store's token.
    ///
    /// ```
    /// use lazy_layers_cache::Lease;
    ///
    /// /// Whether the store may publish under this lease.
    /// fn is_valid(outstanding: Option<&str>, lease: &Lease) -> bool {
    ///     outstanding == Some(lease.token())
    /// }
    ///
    /// assert!(is_valid(Some("42"), &Lease::new("42")));
    /// assert!(!is_valid(None, &Lease::new("42")), "absence refuses");
    /// ```
    #[must_use]
    pub fn token(&self) -> &str {
        &self.0
    }
}

/// A value in a store.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{Store, SystemClock, testing::SharedStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let store = SharedStore::new(SystemClock);
/// store.insert_raw("user:7", "Ada", Duration::from_secs(60));
/// let stored = store.get("user:7", true).await?.unwrap();
/// assert_eq!(stored.value, b"Ada");
/// assert!(stored.ttl <= Some(Duration::from_secs(60)) && stored.stale_for.is_zero());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredValue {
    /// The bytes, as they were written.
    pub value: Vec<u8>,
    /// The time from now for which the value is fresh; `None`: it has no end.
    pub ttl: Option<Duration>,
    /// The stale window after that; zero if the store does not know one.
    pub stale_for: Duration,
}

impl StoredValue {
    /// Returns the value as one that a refresh ignores: it may be served for its whole time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::StoredValue;
    ///
    /// let value = b"Ada".to_vec();
    /// let (ttl, stale_for) = (Some(Duration::from_secs(10)), Duration::from_secs(300));
    /// let stale = StoredValue { value, ttl, stale_for }.into_stale();
    /// assert_eq!(stale.usable_for, Duration::from_secs(310));
    /// ```
    #[must_use]
    pub fn into_stale(self) -> StaleValue {
        let Self { value, ttl, stale_for } = self;
        StaleValue { value, usable_for: ttl.unwrap_or(Duration::MAX).saturating_add(stale_for) }
    }
}

/// A value that may be served when a load fails or is slow.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::StaleValue;
///
/// let stale = StaleValue { value: b"Ada".to_vec(), usable_for: Duration::from_secs(300) };
/// assert_eq!(stale.value, b"Ada");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleValue {
    /// The bytes, as they were written.
    pub value: Vec<u8>,
    /// The time from now until which the value may be served.
    pub usable_for: Duration,
}

/// The result of a load, as a store writes it.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{Publication, Store, SystemClock, testing::SharedStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let store = SharedStore::new(SystemClock);
/// let lease = store.acquire_write_lease("user:7", Duration::from_secs(5)).await?.unwrap();
/// let (ttl, stale_for) = (Duration::from_secs(60), Duration::from_secs(300));
/// let result = Publication::Value { value: b"Ada".to_vec(), ttl, stale_for };
/// assert!(store.publish("user:7", &lease, result.clone()).await?);
/// assert!(!store.publish("user:7", &lease, result).await?, "a lease publishes once");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publication {
    /// A value.
    Value {
        /// The bytes.
        value: Vec<u8>,
        /// How long the value is fresh.
        ttl: Duration,
        /// How long the store keeps a stale copy after that; zero: it keeps none.
        stale_for: Duration,
    },
    /// A negative entry: the key does not exist.
    Missing {
        /// How long the entry is valid.
        ttl: Duration,
    },
}

/// The request of a load that begins.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::LeaseRequest;
///
/// // A load that may take 5 s, of a cache with neither fail-safe nor negative entries.
/// let request = LeaseRequest {
///     lease_for: Duration::from_secs(5),
///     refresh: false,
///     with_window: false,
///     with_missing: false,
/// };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRequest {
    /// The time for which the lease must be valid at least.
    pub lease_for: Duration,
    /// Take a lease even if there is a value or a negative entry.
    pub refresh: bool,
    /// The caller uses stale copies and stale windows. Otherwise the store may leave them out, to
    /// read less.
    pub with_window: bool,
    /// The caller accepts negative entries. Otherwise the store gives a lease in place of one.
    pub with_missing: bool,
}

/// The answer to a load that begins.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{LeaseRequest, LeaseResponse, Store, SystemClock, testing::SharedStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let store = SharedStore::new(SystemClock);
/// let lease_for = Duration::from_secs(5);
/// let request = LeaseRequest { lease_for, refresh: false, with_window: true, with_missing: true };
/// match store.get_or_lease("user:7", request).await? {
///     LeaseResponse::Fresh(stored) => println!("{} bytes", stored.value.len()),
///     LeaseResponse::Missing(left) => println!("the key does not exist, for {left:?}"),
///     LeaseResponse::Load { lease, stale } => assert!(lease.is_some() && stale.is_none()),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseResponse {
    /// There is a value: no load is needed.
    Fresh(StoredValue),
    /// There is a negative entry, for this long: no load is needed.
    Missing(Duration),
    /// There is neither, or the request was a refresh.
    Load {
        /// The right to publish. `None` if the store cannot give a lease now (it is full, say): the
        /// load continues, and its result is not published.
        lease: Option<Lease>,
        /// The stale copy, or the value that the refresh ignores.
        stale: Option<StaleValue>,
    },
}

/// The answer to an attempt to take a lock.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{LockResponse, Store, SystemClock, testing::SharedStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let store = SharedStore::new(SystemClock);
/// let ttl = Duration::from_secs(10);
/// assert_eq!(store.lock("user:7", "one", ttl, None).await?, LockResponse::Acquired);
/// let held = LockResponse::HeldBy("one".to_owned());
/// assert_eq!(store.lock("user:7", "other", ttl, None).await?, held);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockResponse {
    /// The caller has the lock.
    Acquired,
    /// This owner has it.
    HeldBy(String),
    /// The owner for which the caller waited has released it, and its load ended so.
    Released(LoadEnd),
}

/// How a load ended that leaves no value in the store.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{LoadEnd, LockResponse, Store, SystemClock, testing::SharedStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let store = SharedStore::new(SystemClock);
/// let ttl = Duration::from_secs(10);
/// store.lock("user:7", "one", ttl, None).await?;
/// store.unlock("user:7", "one", Some(LoadEnd::Failed)).await?;
/// // A caller that waited for this owner learns of the failure, and does not wait for the lock.
/// let answer = store.lock("user:7", "other", ttl, Some("one")).await?;
/// assert_eq!(answer, LockResponse::Released(LoadEnd::Failed));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadEnd {
    /// The key does not exist. The load had this lease: for a caller that got the same lease when
    /// it began, no invalidation came between the two.
    Missing(Lease),
    /// The load failed.
    Failed,
}
