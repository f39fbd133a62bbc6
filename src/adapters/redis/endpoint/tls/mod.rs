//! Certificates: real under the feature `redis-tls`, none without it.

#[cfg_attr(feature = "redis-tls", path = "enabled.rs")]
#[cfg_attr(not(feature = "redis-tls"), path = "disabled.rs")]
mod chosen;

pub(crate) use self::chosen::Certificates;
