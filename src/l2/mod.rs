//! L2 as the cache uses it: values instead of bytes, every call within its deadline and behind the
//! circuit breaker, every failure reported once and then treated as a miss.
//!
//! Only `set` and the deletes return their failure to the caller, because the store may still hold
//! an old value then.

mod facade;
mod invalidate;
mod key_versions;
mod lock;
mod pending_invalidations;
mod read;
pub(crate) mod store;
mod write;

pub use self::store::{Lease, LeaseRequest, LeaseResponse, Store, StoreFuture, StoredValue};
pub(crate) use self::{
    facade::{Failure, L2, L2Context, OnRetried},
    lock::LockAttempt,
    read::{FreshValue, LoadStart, NamedLease},
    write::PublishOutcome,
};
