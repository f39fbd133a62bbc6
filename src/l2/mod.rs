//! L2 as the cache uses it: values instead of bytes, every call within its deadline and behind the
//! circuit breaker, every failure reported once and then treated as a miss.
//!
//! Only `set` and the deletes say how far they have got ([`WriteOutcome`]), because the store may
//! still hold an old value.

mod facade;
mod inspection;
mod invalidate;
mod key_versions;
mod lock;
mod peek;
mod pending_invalidations;
mod read;
mod server_state;
pub(crate) mod store;
pub(crate) mod store_types;
mod write;
mod write_outcome;

pub(crate) use self::{
    facade::{L2, L2Context, OnRetried},
    lock::LockAttempt,
    peek::Peek,
    pending_invalidations::{InvalidationWatch, Rebroadcast},
    read::{FreshValue, LoadRequest, LoadStart, NamedLease},
    server_state::ServerState,
    write::PublishOutcome,
    write_outcome::WriteOutcome,
};
pub use self::{
    inspection::{HeldLock, Inspection, OutstandingLease},
    peek::KeyInL2,
    store::{Store, StoreFuture},
    store_types::{
        Lease, LeaseRequest, LeaseResponse, LoadEnd, LockResponse, PatternCursor, Publication,
        StaleValue, StoredValue,
    },
};
