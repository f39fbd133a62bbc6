//! The contract of an L2 store, in bytes: the trait [`Store`] and its leases.

use std::{pin::Pin, time::Duration};

use crate::error::BoxError;

/// The future that a [`Store`] returns. It is boxed because the store is chosen at run time; the
/// box costs little beside a round trip.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send + 'a>>;

/// The store behind L2, which all instances share: Redis, or any store that keeps bytes under keys
/// with a ttl.
///
/// # The lease
///
/// A load that began before a delete must never be seen after it, whichever instances the load and
/// the delete ran on. So a load begins by taking a [`Lease`], and publishes its result under it. A
/// delete voids every outstanding lease of its key; so does
/// [`acquire_write_lease`](Self::acquire_write_lease), which begins a write. A store must
///
/// - give callers that begin a load at the same time the same lease or one each, but never a lease
///   that was voided before;
/// - refuse a publication whose lease it does not know *for any reason*: voided, expired, evicted,
///   lost in a restart. Absence refuses; it never permits;
/// - do each method in one step, as other callers see it; [`delete_all`](Self::delete_all) may
///   take one step per key.
///
/// # Cancel safety
///
/// The cache may drop a future at any time. The operation may then have happened or not, and may
/// still happen later. Both are safe: a late publication is refused if a delete has come before it,
/// and a late delete removes at most a value that will be loaded again.
///
/// # Deadlines
///
/// The cache bounds every call by [`L2Timeouts`](crate::L2Timeouts), and stops calling a store that
/// fails (`l2_circuit_breaker`). An implementation needs neither.
pub trait Store: Send + Sync + 'static {
    /// Reads a value, without a lease.
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<StoredValue>>;

    /// Reads a value; takes a lease if there is no fresh value, or if the request is a refresh.
    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        request: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse>;

    /// Writes the result of a load for `ttl` and consumes its lease. Returns `false`, and writes
    /// nothing, if the lease is not valid.
    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        value: Vec<u8>,
        ttl: Duration,
    ) -> StoreFuture<'a, bool>;

    /// Begins a write: removes the key, voids its leases, and returns a lease that no other caller
    /// gets. While that lease is outstanding, a load that begins gets no lease. Returns `None` if
    /// the store cannot give a lease now, as in [`LeaseResponse::Load`].
    ///
    /// A write takes two steps, this one and [`publish`](Self::publish), so that a write which
    /// arrives late (from a connection that hung, say) never undoes a later change.
    fn acquire_write_lease<'a>(
        &'a self,
        key: &'a str,
        lease_for: Duration,
    ) -> StoreFuture<'a, Option<Lease>>;

    /// Removes a key and voids its leases. A missing key is not an error.
    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()>;

    /// Removes several keys, each as [`delete`](Self::delete) does. The default removes one after
    /// the other.
    fn delete_all<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            for key in keys {
                self.delete(key).await?;
            }
            Ok(())
        })
    }

    /// Removes all keys that match a Redis glob, and voids their leases.
    fn delete_matching<'a>(&'a self, pattern: &'a str) -> StoreFuture<'a, ()>;

    /// Removes a key if its value equals `value`. The cache removes bytes this way that it could
    /// not decode.
    fn delete_if_equals<'a>(&'a self, key: &'a str, value: &'a [u8]) -> StoreFuture<'a, ()>;

    /// Returns the number of values.
    fn size(&self) -> StoreFuture<'_, u64>;

    /// Takes the key's lock for `ttl`. Returns `false` if another owner has it. An owner that has
    /// it already gets `true`, because it may not have received the first answer.
    ///
    /// The lock saves loads and protects nothing: leases do that.
    fn lock<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool>;

    /// Extends the lock to `ttl` from now. Returns `false` if this owner does not have it any more.
    fn extend<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool>;

    /// Releases the lock, if this owner still has it.
    fn unlock<'a>(&'a self, key: &'a str, owner: &'a str) -> StoreFuture<'a, ()>;

    /// Returns the reason if the store cannot hold this key, whatever the value: a name that the
    /// store reserves, say. The cache then keeps the key in L1 only. The default accepts all keys.
    fn reject_key(&self, key: &str) -> Option<BoxError> {
        let _ = key;
        None
    }

    /// Returns the reason if the store cannot hold a value of this many bytes. The cache asks
    /// before it publishes a value; a refusal does not count as a failure of the store. The default
    /// accepts all sizes.
    fn reject_value(&self, bytes: usize) -> Option<BoxError> {
        let _ = bytes;
        None
    }

    /// A number that changes when the store has a new connection, or when its connection answers
    /// again. The cache then calls the store again at once, before the circuit breaker's cooldown
    /// has ended. The default always returns the same number.
    fn connection_generation(&self) -> u64 {
        0
    }
}

/// The right to publish the result of one load.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease(String);

impl Lease {
    /// Creates a lease from the token by which the store knows it.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// Returns the store's token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.0
    }
}

/// A value in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredValue {
    /// The bytes, as they were written.
    pub value: Vec<u8>,
    /// The time from now for which the store keeps the value; `None`: it has no end.
    pub ttl: Option<Duration>,
}

/// The request of a load that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRequest {
    /// A value is fresh while its ttl is longer than this, and a stale copy after that. (So the
    /// clocks of two machines are never compared.)
    pub stale_for: Duration,
    /// The time for which the lease must be valid at least.
    pub lease_for: Duration,
    /// Take a lease even if there is a fresh value.
    pub refresh: bool,
}

/// The answer to a load that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseResponse {
    /// There is a fresh value: no load is needed.
    Fresh(StoredValue),
    /// There is no fresh value, or the request was a refresh.
    Load {
        /// The right to publish. `None` if the store cannot give a lease now (it is full, say): the
        /// load continues, and its result is not published.
        lease: Option<Lease>,
        /// The value that is not fresh, or that the refresh ignores.
        stale: Option<StoredValue>,
    },
}
