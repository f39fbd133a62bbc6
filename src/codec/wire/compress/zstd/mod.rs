//! zstd: real under the feature `zstd`, an error without it.

#[cfg(test)]
pub(crate) mod disabled;
#[cfg_attr(feature = "zstd", path = "enabled.rs")]
#[cfg_attr(not(feature = "zstd"), path = "disabled.rs")]
mod imp;

pub(crate) use self::imp::{compress, decompress};
