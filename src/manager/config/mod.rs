//! Reads the options of a manager from a configuration file.

mod error;
#[cfg_attr(feature = "nats", path = "nats.rs")]
#[cfg_attr(not(feature = "nats"), path = "without_nats.rs")]
mod nats;
#[cfg_attr(feature = "rabbitmq", path = "rabbitmq.rs")]
#[cfg_attr(not(feature = "rabbitmq"), path = "without_rabbitmq.rs")]
mod rabbitmq;
#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis"))]
mod read_beside;
#[cfg_attr(feature = "redis", path = "redis.rs")]
#[cfg_attr(not(feature = "redis"), path = "without_redis.rs")]
mod redis;
#[cfg(feature = "redis")]
#[cfg_attr(feature = "redis-tls", path = "redis_tls.rs")]
#[cfg_attr(not(feature = "redis-tls"), path = "without_redis_tls.rs")]
mod redis_tls;
mod sections;
mod tree;
mod tree_reader;
#[cfg(not(all(feature = "nats", feature = "rabbitmq", feature = "redis")))]
mod without_feature;
