//! Redis: the store that instances share, and the bus over its Pub/Sub.

mod cluster;
mod connection;
mod endpoint;
mod run_id;
pub(crate) mod store;
mod supervisor;
mod target;
pub(crate) mod transport;
