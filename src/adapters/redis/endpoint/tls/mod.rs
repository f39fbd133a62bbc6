//! TLS certificates: real with the feature `redis-tls`, an empty stand-in without it.

#[cfg_attr(feature = "redis-tls", path = "enabled.rs")]
#[cfg_attr(not(feature = "redis-tls"), path = "disabled.rs")]
mod imp;

pub(crate) use self::imp::TlsMaterial;
