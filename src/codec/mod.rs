//! Values as bytes: the trait, the blocking pool for large values, and the wire format.

pub(crate) mod contract;
pub(crate) mod offloading;
pub(crate) mod round_trip;
#[cfg(feature = "wire")]
mod wire;

pub use self::contract::Codec;
#[cfg(feature = "wire")]
pub use self::wire::{Serialized, WireCodec, WireEncoding, WireLimits};
