//! The outcome of a write or a delete in the store, as the cache reports it to its caller.

use super::pending_invalidations::InvalidationWatch;
use crate::error::HeldError;

/// What a write or a delete has done in the store.
pub(crate) enum WriteOutcome {
    /// The store has done it.
    Done,
    /// A later change of the key has voided the lease of this `set`.
    Superseded,
    /// Our own checks, the codec or a store without room refuse the key or the value. The store
    /// holds no older value.
    NotStored(HeldError),
    /// The store may still hold an older value: the invalidation is pending.
    Pending(InvalidationWatch),
}
