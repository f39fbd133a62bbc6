//! Values as bytes. What the bytes are is the codec's business alone; levels hand them around.

pub(crate) mod offloading;
#[cfg(feature = "wire")]
mod wire;

#[cfg(feature = "wire")]
pub use self::wire::{Serialized, WireCodec, WireEncoding, WireLimits, serialize_with_stats};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::BoxError;

/// Runs the user's codec. What it panics with has been told by the panic hook.
pub(crate) fn contained<T>(convert: impl FnOnce() -> Result<T, BoxError>) -> Result<T, BoxError> {
    catch_unwind(AssertUnwindSafe(convert)).unwrap_or_else(|_| Err("the codec panicked".into()))
}

/// Turns values into the bytes that a [`Store`](crate::Store) keeps, and back.
///
/// Implement it where the level is to hold something else than the wire format: bytes that are
/// there already, say, or encrypted ones.
///
/// What cannot be encoded is not stored, and what cannot be decoded is a miss; an `l2:error`
/// event tells of both.
pub trait Codec<V>: Send + Sync + 'static {
    /// The value as bytes.
    ///
    /// # Errors
    ///
    /// What cannot be said in bytes, or would be longer than what is allowed.
    fn encode(&self, value: &V) -> Result<Vec<u8>, BoxError>;

    /// The value that [`encode`](Self::encode) made these bytes of.
    ///
    /// # Errors
    ///
    /// Bytes that are no such value. They can be anything, made by anyone: an implementation
    /// bounds what it allocates and how deep it recurses.
    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError>;

    /// The value as bytes that can stand within an event: as [`encode`](Self::encode), but never
    /// compressed. Default: `encode`.
    ///
    /// # Errors
    ///
    /// Those of `encode`.
    fn encode_plain(&self, value: &V) -> Result<Vec<u8>, BoxError> {
        self.encode(value)
    }

    /// The MessagePack that an event's bytes stand for, of at most `limit` bytes, where they are
    /// packed in another way. `None` where this is not known. Default: nothing is.
    fn unpack(&self, bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
        let _ = (bytes, limit);
        None
    }

    /// Whether decoding these bytes takes so long that it should not happen on a thread that runs
    /// tasks: then it happens on one of those that the runtime has for blocking work. Asked before
    /// each decoding, so it looks at a few bytes and their number. Values whose bytes are so are
    /// encoded there too, from the second one on. Default: never.
    fn is_heavy_to_decode(&self, bytes: &[u8]) -> bool {
        let _ = bytes;
        false
    }
}
