//! Redis: the store that instances share, and the event bus over Redis Pub/Sub.

mod builder;
mod cluster;
mod connection;
pub(crate) mod endpoint;
mod eviction;
mod prefix_state;
mod refusal;
mod run_id;
pub(crate) mod store;
mod supervisor;
#[cfg(feature = "redis-tls")]
mod tls;
pub(crate) mod transport;
mod verify;
