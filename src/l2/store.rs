//! What a second level must be able to do, in bytes.

use std::{pin::Pin, time::Duration};

use crate::error::BoxError;

/// A future as a store returns it: boxed, because stores are chosen at run time, and a box is
/// nothing beside a round trip.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send + 'a>>;

/// A level that instances share: Redis, or whatever keeps bytes under keys for a time.
///
/// # The lease
///
/// What makes a shared level safe is that a load which began before a delete can never be seen
/// after it, whichever instance each of them was on. So a load begins by taking a [`Lease`] and
/// publishes under it, and a delete (or [`acquire_write_lease`](Self::acquire_write_lease), which begins a write) voids every
/// lease of its key that is out. A store
/// must
///
/// - give callers that begin at once the same lease or each their own, but never one that was
///   voided before;
/// - refuse a publication whose lease it does not know *for any reason*: voided, expired, evicted,
///   lost in a restart. Absence refuses; it never permits;
/// - do each method in one step, as others see it.
///
/// # Cancel safety
///
/// A future may be dropped at any time. The operation may then have happened or not, and may
/// still happen later: a publication is refused by then if a delete has come, and a delete that
/// comes late does no harm.
///
/// # Deadlines
///
/// The cache bounds every call by [`L2Timeouts`](crate::L2Timeouts) and stops calling a store that fails
/// (`l2_circuit_breaker`): an implementation needs neither.
pub trait Store: Send + Sync + 'static {
    /// Reads a value, without the intention to load it.
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<StoredValue>>;

    /// Reads a value, and takes a lease if what there is does not do.
    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        begin: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse>;

    /// Writes the result of a load if its lease is still good, which it uses up. `false`: refused.
    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        value: Vec<u8>,
        lives: Duration,
    ) -> StoreFuture<'a, bool>;

    /// Removes a key, voids its leases and gives one that nobody else is given, for the value that
    /// is to be written: who begins a load meanwhile gets none. `None` as in [`LeaseResponse::Load`].
    ///
    /// A value is written in these two steps, and not in one, so that a write which arrives late
    /// (from a connection that hung, say) never undoes what came after it.
    fn acquire_write_lease<'a>(
        &'a self,
        key: &'a str,
        lease_for: Duration,
    ) -> StoreFuture<'a, Option<Lease>>;

    /// Removes a key and voids its leases. A key that is not there is not an error.
    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()>;

    /// Removes several keys, each as [`delete`](Self::delete) does. The default takes one after the
    /// other.
    fn delete_all<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            for key in keys {
                self.delete(key).await?;
            }
            Ok(())
        })
    }

    /// Removes all keys that match a glob of Redis, and voids their leases.
    fn delete_matching<'a>(&'a self, pattern: &'a str) -> StoreFuture<'a, ()>;

    /// Removes a value if it still is this one: bytes that nobody can read.
    fn delete_if_equals<'a>(&'a self, key: &'a str, value: &'a [u8]) -> StoreFuture<'a, ()>;

    /// How many values there are.
    fn size(&self) -> StoreFuture<'_, u64>;

    /// Takes the key's lock for `ttl` unless another has it; who has it already keeps it, for it
    /// may have had no answer. It saves loads and protects nothing: that is what leases are for.
    fn lock<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool>;

    /// Keeps the lock for `ttl` from now on. `false` if it is not this owner's any more.
    fn extend<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool>;

    /// Gives the lock back, if it still is this owner's.
    fn unlock<'a>(&'a self, key: &'a str, owner: &'a str) -> StoreFuture<'a, ()>;

    /// Why the store has no place for this key, whatever the value: a name that it keeps for
    /// itself, say. The cache then keeps the key in memory only. `None`, the default: it has.
    fn reject_key(&self, key: &str) -> Option<BoxError> {
        let _ = key;
        None
    }

    /// A number that changes when there is a new connection, or the one there is answers again. A cache that has stopped calling the
    /// store tries again at once then, and not only after the circuit breaker's cooldown. The
    /// default is always the same number.
    fn connection_generation(&self) -> u64 {
        0
    }
}

/// The right to publish the result of one load.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease(String);

impl Lease {
    /// A lease with the token that the store knows it by.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// The store's token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.0
    }
}

/// Bytes in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredValue {
    /// As they were written.
    pub value: Vec<u8>,
    /// How long they will be kept from now on; `None` for ever.
    pub remaining: Option<Duration>,
}

/// How a load begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRequest {
    /// A value is fresh while it has more than this to live: the rest of its life it is a stale
    /// copy. (So no clocks of two machines are compared.)
    pub stale_for: Duration,
    /// How long the lease must be good at least.
    pub lease_for: Duration,
    /// Take a lease even if there is a fresh value.
    pub refresh: bool,
}

/// What a load begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseResponse {
    /// There is a fresh value: nothing to load.
    Fresh(StoredValue),
    /// There is none.
    Load {
        /// The right to publish. `None` if the store cannot give one now (it is full, say): the
        /// load goes on and its result stays out of this level.
        lease: Option<Lease>,
        /// What there is that is not fresh, or was passed over.
        stale: Option<StoredValue>,
    },
}
