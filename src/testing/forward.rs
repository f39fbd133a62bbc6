//! A [`Store`] that passes its calls on to another one, for tests that change single calls.

use std::{sync::Arc, time::Duration};

use crate::{
    error::BoxError,
    l2::{
        Inspection, Lease, LeaseRequest, LeaseResponse, LoadEnd, LockResponse, PatternCursor,
        Publication, Store, StoreFuture, StoredValue,
    },
};

/// An argument of a call that outlives its caller's borrow.
trait Argument<'a> {
    type Owned: Send + Sync + 'static;

    fn own(self) -> Self::Owned;
    fn lend(owned: &'a Self::Owned) -> Self;
}

/// Arguments that are borrowed: the type, its owned form, how that is made and borrowed.
macro_rules! borrowed {
    ($($type:ty, $owned:ty, $own:expr, $lend:expr;)*) => {$(
        impl<'a> Argument<'a> for $type {
            type Owned = $owned;

            fn own(self) -> $owned {
                ($own)(self)
            }

            fn lend(owned: &'a $owned) -> Self {
                ($lend)(owned)
            }
        }
    )*};
}

borrowed! {
    &'a str, String, str::to_owned, String::as_str;
    &'a [u8], Vec<u8>, <[u8]>::to_vec, Vec::as_slice;
    &'a [String], Vec<String>, <[String]>::to_vec, Vec::as_slice;
    &'a Lease, Lease, Lease::clone, std::convert::identity;
    &'a PatternCursor, PatternCursor, PatternCursor::clone, std::convert::identity;
    Option<&'a str>, Option<String>, |it: Option<&str>| it.map(str::to_owned), Option::as_deref;
    bool, bool, std::convert::identity, bool::clone;
    Duration, Duration, std::convert::identity, Duration::clone;
    LeaseRequest, LeaseRequest, std::convert::identity, LeaseRequest::clone;
    Publication, Publication, std::convert::identity, Publication::clone;
    Option<LoadEnd>, Option<LoadEnd>, std::convert::identity, Option::clone;
}

/// Declares [`ForwardStore`], and implements [`Store`] by it.
macro_rules! forwarded {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {
        /// A [`Store`] that passes its calls on to another one. Implement this trait in place of
        /// [`Store`], and of its methods only those that differ.
        ///
        /// ```
        /// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
        /// use lazy_layers_cache::{
        ///     Store, StoreFuture, SystemClock,
        ///     testing::{ForwardStore, SharedStore},
        /// };
        ///
        /// /// Counts the deletes, and changes nothing else.
        /// struct CountingDeletes { store: Arc<SharedStore>, deletes: AtomicU64 }
        ///
        /// impl ForwardStore for CountingDeletes {
        ///     fn inner(&self) -> Arc<dyn Store> {
        ///         Arc::<SharedStore>::clone(&self.store)
        ///     }
        ///
        ///     fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        ///         self.deletes.fetch_add(1, Ordering::Relaxed);
        ///         self.store.delete(key)
        ///     }
        /// }
        ///
        /// # #[tokio::main(flavor = "current_thread")]
        /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
        /// let store = Arc::new(SharedStore::new(SystemClock));
        /// let counting = CountingDeletes { store, deletes: AtomicU64::new(0) };
        /// Store::delete(&counting, "user:7").await?;
        /// assert_eq!(counting.deletes.load(Ordering::Relaxed), 1);
        /// # Ok(()) }
        /// ```
        pub trait ForwardStore: Send + Sync + 'static {
            /// Returns the store to which calls are passed.
            fn inner(&self) -> Arc<dyn Store>;

            /// Passes a call on, whichever it is. The call owns its arguments, so that it may
            /// happen after its caller has dropped the future.
            fn forward<T: Send + 'static>(
                &self,
                call: impl FnOnce(Arc<dyn Store>) -> StoreFuture<'static, T> + Send + 'static,
            ) -> StoreFuture<'static, T> {
                call(self.inner())
            }

            $(
                #[doc = concat!("[`Store::", stringify!($name), "`]; by default forwarded.")]
                fn $name<'a>(&'a self, $($argument: $type),*) -> StoreFuture<'a, $output> {
                    $(let $argument = $argument.own();)*
                    self.forward(move |store| Box::pin(async move {
                        store.$name($(Argument::lend(&$argument)),*).await
                    }))
                }
            )*

            /// [`Store::times_emptied`]; by default that of the other store.
            fn times_emptied(&self) -> u64 {
                self.inner().times_emptied()
            }

            /// [`Store::connection_generation`]; by default that of the other store.
            fn connection_generation(&self) -> u64 {
                self.inner().connection_generation()
            }

            /// [`Store::delete_all`]; by default each key is [deleted](Self::delete) by itself.
            fn delete_all<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
                Box::pin(async move {
                    for key in keys {
                        self.delete(key).await?;
                    }
                    Ok(())
                })
            }
        }

        impl<F: ForwardStore> Store for F {
            $(
                fn $name<'a>(&'a self, $($argument: $type),*) -> StoreFuture<'a, $output> {
                    ForwardStore::$name(self, $($argument),*)
                }
            )*

            fn delete_all<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
                ForwardStore::delete_all(self, keys)
            }

            fn reject_key(&self, key: &str) -> Option<BoxError> {
                self.inner().reject_key(key)
            }

            fn reject_value(&self, bytes: usize) -> Option<BoxError> {
                self.inner().reject_value(bytes)
            }

            fn is_write_refusal(&self, error: &BoxError) -> bool {
                self.inner().is_write_refusal(error)
            }

            fn claim(&self, cache: Option<&str>) -> Result<(), BoxError> {
                self.inner().claim(cache)
            }

            fn connection_generation(&self) -> u64 {
                ForwardStore::connection_generation(self)
            }

            fn times_emptied(&self) -> u64 {
                ForwardStore::times_emptied(self)
            }
        }
    };
}

forwarded! {
    fn get(key: &'a str, with_window: bool) -> Option<StoredValue>;
    fn get_or_lease(key: &'a str, request: LeaseRequest) -> LeaseResponse;
    fn extend_lease(key: &'a str, lease: &'a Lease, lease_for: Duration) -> bool;
    fn publish(key: &'a str, lease: &'a Lease, result: Publication) -> bool;
    fn acquire_write_lease(key: &'a str, lease_for: Duration) -> Option<Lease>;
    fn delete(key: &'a str) -> ();
    fn delete_matching(pattern: &'a str) -> ();
    fn delete_matching_from(
        pattern: &'a str,
        sidecars_only: bool,
        cursor: &'a PatternCursor
    ) -> ();
    fn delete_sidecars(keys: &'a [String]) -> ();
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
    fn inspect(key: &'a str, lock: &'a str) -> Option<Inspection>;
}
