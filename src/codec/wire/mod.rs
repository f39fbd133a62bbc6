//! The wire format: a prefix of four bytes, then MessagePack or JSON.

mod codec;
mod compress;
mod date;
mod de;
mod de_key;
mod envelope;
mod limits;
mod ser;
mod ser_key;
mod tokens;
#[cfg(feature = "lz4")]
mod with_lz4;
#[cfg(feature = "zstd")]
mod with_zstd;

pub use self::{
    codec::WireCodec,
    envelope::{Serialized, WireEncoding},
    limits::WireLimits,
};
