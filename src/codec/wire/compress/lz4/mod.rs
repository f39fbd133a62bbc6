//! lz4: real under the feature `lz4`, an error without it.

#[cfg(test)]
pub(crate) mod disabled;
#[cfg_attr(feature = "lz4", path = "enabled.rs")]
#[cfg_attr(not(feature = "lz4"), path = "disabled.rs")]
mod imp;

pub(crate) use self::imp::{compress, decompress};
