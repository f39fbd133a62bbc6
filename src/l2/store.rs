//! The contract of an L2 store, in bytes: the trait [`Store`].

use std::{pin::Pin, sync::Arc, time::Duration};

use super::{
    inspection::Inspection,
    store_types::{
        Lease, LeaseRequest, LeaseResponse, LoadEnd, LockResponse, PatternCursor, Publication,
        StoredValue,
    },
};
use crate::error::BoxError;

/// The future that a [`Store`] returns. It is boxed because the store is chosen at run time; the
/// box costs little beside a round trip.
///
/// ```
/// use lazy_layers_cache::StoreFuture;
///
/// fn size() -> StoreFuture<'static, u64> {
///     Box::pin(async { Err("the server does not answer".into()) })
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// assert!(size().await.is_err());
/// # Ok(()) }
/// ```
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
/// # The sidecar
///
/// A store keeps the value of a key for exactly its ttl, so that all readers agree whether it is
/// fresh. Everything else about the key is its sidecar: the lease, a negative entry ("this key does
/// not exist"), and a stale copy of the value, which the store keeps for the stale window longer
/// than the value. A store must
///
/// - remove value and sidecar together in each delete, write and publication; a publication then
///   stores the sidecar of its own value, or none;
/// - serve a stale copy only of a value that expired: if the value was removed or replaced before
///   its ttl ended, by a program that knows nothing of sidecars say, the copy is of no use.
///
/// # Example
///
/// A store that adds a prefix to the keys of another one. (`src/testing/store_contract.rs` in the
/// repository is a whole store, in memory.)
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{Lease, Publication, Store, StoreFuture, StoredValue};
/// # use lazy_layers_cache::{
/// #     Inspection, LeaseRequest, LeaseResponse, LoadEnd, LockResponse, SystemClock,
/// # };
///
/// struct Prefixed<S>(&'static str, S);
///
/// impl<S: Store> Store for Prefixed<S> {
///     fn get<'a>(&'a self, key: &'a str, window: bool) -> StoreFuture<'a, Option<StoredValue>> {
///         let name = format!("{}{key}", self.0);
///         Box::pin(async move { self.1.get(&name, window).await })
///     }
///
///     fn publish<'a>(
///         &'a self,
///         key: &'a str,
///         lease: &'a Lease,
///         result: Publication,
///     ) -> StoreFuture<'a, bool> {
///         let name = format!("{}{key}", self.0);
///         Box::pin(async move { self.1.publish(&name, lease, result).await })
///     }
///
///     // The other methods in the same way.
/// #   fn get_or_lease<'a>(
/// #       &'a self, key: &'a str, request: LeaseRequest,
/// #   ) -> StoreFuture<'a, LeaseResponse> {
/// #       let name = format!("{}{key}", self.0);
/// #       Box::pin(async move { self.1.get_or_lease(&name, request).await })
/// #   }
/// #   fn extend_lease<'a>(
/// #       &'a self, key: &'a str, lease: &'a Lease, lease_for: Duration,
/// #   ) -> StoreFuture<'a, bool> {
/// #       let name = format!("{}{key}", self.0);
/// #       Box::pin(async move { self.1.extend_lease(&name, lease, lease_for).await })
/// #   }
/// #   fn acquire_write_lease<'a>(
/// #       &'a self, key: &'a str, lease_for: Duration,
/// #   ) -> StoreFuture<'a, Option<Lease>> {
/// #       let name = format!("{}{key}", self.0);
/// #       Box::pin(async move { self.1.acquire_write_lease(&name, lease_for).await })
/// #   }
/// #   fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
/// #       let name = format!("{}{key}", self.0);
/// #       Box::pin(async move { self.1.delete(&name).await })
/// #   }
/// #   fn delete_matching<'a>(&'a self, pattern: &'a str) -> StoreFuture<'a, ()> {
/// #       let name = format!("{}{pattern}", self.0);
/// #       Box::pin(async move { self.1.delete_matching(&name).await })
/// #   }
/// #   fn delete_if_equals<'a>(&'a self, key: &'a str, value: &'a [u8]) -> StoreFuture<'a, ()> {
/// #       let name = format!("{}{key}", self.0);
/// #       Box::pin(async move { self.1.delete_if_equals(&name, value).await })
/// #   }
/// #   fn size(&self) -> StoreFuture<'_, u64> { self.1.size() }
/// #   fn lock<'a>(
/// #       &'a self, key: &'a str, owner: &'a str, ttl: Duration, waited_for: Option<&'a str>,
/// #   ) -> StoreFuture<'a, LockResponse> {
/// #       let name = format!("{}{key}", self.0);
/// #       Box::pin(async move { self.1.lock(&name, owner, ttl, waited_for).await })
/// #   }
/// #   fn extend<'a>(
/// #       &'a self, key: &'a str, owner: &'a str, ttl: Duration,
/// #   ) -> StoreFuture<'a, bool> {
/// #       let name = format!("{}{key}", self.0);
/// #       Box::pin(async move { self.1.extend(&name, owner, ttl).await })
/// #   }
/// #   fn unlock<'a>(
/// #       &'a self, key: &'a str, owner: &'a str, end: Option<LoadEnd>,
/// #   ) -> StoreFuture<'a, ()> {
/// #       let name = format!("{}{key}", self.0);
/// #       Box::pin(async move { self.1.unlock(&name, owner, end).await })
/// #   }
/// #   fn inspect<'a>(
/// #       &'a self, key: &'a str, lock: &'a str,
/// #   ) -> StoreFuture<'a, Option<Inspection>> {
/// #       let (name, lock) = (format!("{}{key}", self.0), format!("{}{lock}", self.0));
/// #       Box::pin(async move { self.1.inspect(&name, &lock).await })
/// #   }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// # use lazy_layers_cache::testing::SharedStore;
/// # let shared = SharedStore::new(SystemClock);
/// # let store = Prefixed("shop:", shared.clone());
/// # let lease = store.acquire_write_lease("7", Duration::from_secs(5)).await?.unwrap();
/// # let (value, ttl) = (b"Ada".to_vec(), Duration::from_secs(60));
/// # let result = Publication::Value { value, ttl, stale_for: Duration::ZERO };
/// # assert!(store.publish("7", &lease, result).await?);
/// # assert!(shared.peek("shop:7").is_some() && store.get("7", true).await?.is_some());
/// # Ok(()) }
/// ```
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
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a store for L2",
    label = "expected a store, such as `RedisStore`",
    note = "the builder of a store is none yet: call `build()?` on it"
)]
pub trait Store: Send + Sync + 'static {
    /// Reads a value, without a lease. `with_window`: the caller uses the value's stale window;
    /// otherwise the store may leave it out, as zero, to read less.
    fn get<'a>(&'a self, key: &'a str, with_window: bool) -> StoreFuture<'a, Option<StoredValue>>;

    /// Reads a value; takes a lease if there is neither a value nor a negative entry, or if the
    /// request is a refresh.
    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        request: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse>;

    /// Extends a lease to `lease_for` from now, while the loader runs. Returns `false` if the lease
    /// is not valid any more.
    fn extend_lease<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        lease_for: Duration,
    ) -> StoreFuture<'a, bool>;

    /// Writes the result of a load and consumes its lease. Returns `false`, and writes nothing, if
    /// the lease is not valid.
    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        result: Publication,
    ) -> StoreFuture<'a, bool>;

    /// Begins a write: removes the key with its sidecar, so also voids its leases, and returns a
    /// lease that no other caller gets. While that lease is outstanding, a load that begins gets no
    /// lease. Returns `None` if the store cannot give a lease now, as in [`LeaseResponse::Load`].
    ///
    /// A write takes two steps, this one and [`publish`](Self::publish), so that a write which
    /// arrives late (from a connection that hung, say) never undoes a later change.
    fn acquire_write_lease<'a>(
        &'a self,
        key: &'a str,
        lease_for: Duration,
    ) -> StoreFuture<'a, Option<Lease>>;

    /// Removes a key with its sidecar, so also voids its leases. A missing key is not an error.
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

    /// Removes all keys that match a Redis glob, each as [`delete`](Self::delete) does, also those
    /// of which only a sidecar is left.
    fn delete_matching<'a>(&'a self, pattern: &'a str) -> StoreFuture<'a, ()>;

    /// Does what [`delete_matching`](Self::delete_matching) does, or removes only the sidecars of
    /// the keys, and continues where the last call with this cursor ended. The cache calls it with
    /// one cursor, one pattern and one `sidecars_only` until a call succeeds. By then every key
    /// that there was at the time of the first call must be removed; keys that were written since
    /// may be left.
    ///
    /// The store saves in the cursor how far it has got, as often as it can, because the cache may
    /// drop each of the futures. A position is void if the store has restarted, has lost data or
    /// is another one than it was: then the store begins anew. So does the default in each call,
    /// and it deletes the values too.
    fn delete_matching_from<'a>(
        &'a self,
        pattern: &'a str,
        sidecars_only: bool,
        cursor: &'a PatternCursor,
    ) -> StoreFuture<'a, ()> {
        let _ = (sidecars_only, cursor);
        self.delete_matching(pattern)
    }

    /// Removes the sidecars of several keys, and keeps the values: a program that knows nothing of
    /// sidecars has changed the values itself. The default deletes the values too.
    fn delete_sidecars<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        self.delete_all(keys)
    }

    /// Removes value and stale copy of a key if one of them equals `value`; its leases stay. The
    /// cache removes bytes this way that it could not decode.
    fn delete_if_equals<'a>(&'a self, key: &'a str, value: &'a [u8]) -> StoreFuture<'a, ()>;

    /// Returns the number of values, without stale copies and negative entries.
    fn size(&self) -> StoreFuture<'_, u64>;

    /// Takes the key's lock for `ttl`, if no other owner has it. An owner that has it already keeps
    /// it, because it may not have received the first answer.
    ///
    /// `waited_for` is the owner that this caller has found before. If that owner has released the
    /// lock less than one second ago, with a [`LoadEnd`], the answer is that end, and the lock is
    /// not taken. For all other callers a released lock is free.
    ///
    /// The lock saves loads and protects nothing: leases do that.
    fn lock<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        ttl: Duration,
        waited_for: Option<&'a str>,
    ) -> StoreFuture<'a, LockResponse>;

    /// Extends the lock to `ttl` from now. Returns `false` if this owner does not have it any more.
    fn extend<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool>;

    /// Releases the lock, if this owner still has it. `end` is for the callers that wait for this
    /// owner; `None` if they find the result in the store, or if there was no load.
    fn unlock<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        end: Option<LoadEnd>,
    ) -> StoreFuture<'a, ()>;

    /// Reports what the store keeps of a key beside its value, and of the lock of the key `lock`,
    /// and changes nothing: it gives no lease and removes nothing. `key` and `lock` differ if the
    /// names of values have [versions](crate::L2Options::versioning).
    ///
    /// [`explain`](crate::LazyLayersCache::explain) shows it. `None`: the store does not know it.
    /// The default returns `None`.
    fn inspect<'a>(&'a self, key: &'a str, lock: &'a str) -> StoreFuture<'a, Option<Inspection>> {
        let _ = (key, lock);
        Box::pin(async { Ok(None) })
    }

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

    /// Whether an error of this store says that it takes no writes now, though it can be read: it
    /// is full, say. Such an error does not open the circuit of the cache, so reads go on. The
    /// default knows no such errors.
    fn is_write_refusal(&self, error: &BoxError) -> bool {
        let _ = error;
        false
    }

    /// Called when a cache with this [name](crate::CacheOptions::name) is built over the store.
    /// Returns the store that the cache uses in its place, for example a part of this one that
    /// belongs to the cache alone; `None`: this one. The default returns `None`.
    ///
    /// A store that wraps another one should pass the call on.
    fn for_cache(&self, name: &str) -> Option<Arc<dyn Store>> {
        let _ = name;
        None
    }

    /// Called when a cache is built that uses this store, with its [name](crate::CacheOptions::name)
    /// if it has one; after [`for_cache`](Self::for_cache), of the store that `for_cache` returned.
    /// An error is one of `build()`, so a store whose keys belong to one cache can refuse others:
    /// two caches with different names must not see each other's keys. Caches of one name are
    /// instances of one cache. The default accepts all caches.
    ///
    /// A store that wraps another one should pass the call on.
    fn claim(&self, cache: Option<&str>) -> Result<(), BoxError> {
        let _ = cache;
        Ok(())
    }

    /// A number that changes when the store has a new connection, or when its connection answers
    /// again. The cache then calls the store again at once, before the circuit breaker's cooldown
    /// has ended. The default always returns the same number.
    fn connection_generation(&self) -> u64 {
        0
    }

    /// A number that changes when the store has removed all keys of the cache by itself, because
    /// its server may have lost deletes. The cache reports a change of the number. Of caches of one
    /// manager that get the same number one writes a line to the log. The default always returns
    /// 0.
    fn times_emptied(&self) -> u64 {
        0
    }
}
