//! Adapters to Redis and to the brokers: one folder per vendor, one feature each.

#[cfg(any(feature = "nats", feature = "redis"))]
mod abort_on_drop;
#[cfg(any(feature = "nats", feature = "redis"))]
mod byte_limit;
#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis"))]
mod client_name;
#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis"))]
mod connection_slot;
#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis"))]
mod limits;
#[cfg(feature = "nats")]
pub(crate) mod nats;
#[cfg(any(feature = "rabbitmq", feature = "redis"))]
mod probe;
#[cfg(feature = "rabbitmq")]
pub(crate) mod rabbitmq;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis"))]
mod task;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
pub(crate) mod tls;
