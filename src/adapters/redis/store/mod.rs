//! Redis as L2: the store that instances share.
//!
//! | file | content |
//! | --- | --- |
//! | `redis_store` | [`RedisStore`]: the contract of [`Store`](crate::l2::store::Store), operation by operation |
//! | `adaptive_read` | reads: plain, or by a script that also takes a lease |
//! | `batch`, `requests` | requests that are sent together, and their encoding |
//! | `send` | one request over the current connection, with one retry |
//! | `scan` | delete by pattern, and size |
//! | `scripts`, `keyspace` | Lua scripts and names of keys: the layout in Redis |
//! | `builder`, `options`, `context` | configuration |

pub(crate) mod adaptive_read;
pub(crate) mod batch;
pub(crate) mod builder;
pub(crate) mod context;
pub(crate) mod keyspace;
pub(crate) mod options;
pub(crate) mod redis_store;
pub(crate) mod requests;
pub(crate) mod scan;
pub(crate) mod scripts;
pub(crate) mod send;

pub use self::{
    builder::RedisStoreBuilder,
    options::{DeleteStrategy, RedisOptions, RestartPolicy},
    redis_store::RedisStore,
};
