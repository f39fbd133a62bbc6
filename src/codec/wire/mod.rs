//! The wire format: a prefix of four bytes, then MessagePack or JSON.

mod codec;
mod compress;
mod date;
mod de;
mod de_key;
mod decode_error;
mod envelope;
mod json;
mod key_form;
mod limits;
mod scalar;
mod ser;
mod ser_key;
mod ser_scalar;
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
