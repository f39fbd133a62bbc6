//! Redis as L2: the store that instances share.

pub(crate) mod adaptive_read;
pub(crate) mod batch;
pub(crate) mod builder;
pub(crate) mod clear;
pub(crate) mod context;
mod copy_head;
mod inspect;
pub(crate) mod keyspace;
pub(crate) mod options;
mod prefix_claims;
pub(crate) mod redis_store;
pub(crate) mod requests;
mod rounds;
pub(crate) mod scan;
mod scan_position;
pub(crate) mod scripts;
pub(crate) mod send;

pub use self::{
    builder::RedisStoreBuilder,
    options::{DeleteStrategy, RedisOptions, RestartPolicy},
    redis_store::RedisStore,
};
