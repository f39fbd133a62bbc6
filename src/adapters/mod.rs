//! The adapters to what is outside: one folder a vendor, one feature each.

#[cfg(feature = "nats")]
pub(crate) mod nats;
#[cfg(feature = "rabbitmq")]
pub(crate) mod rabbitmq;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis"))]
mod task;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
pub(crate) mod tls;
