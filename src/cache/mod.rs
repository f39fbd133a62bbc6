//! The cache: its builder, its handle, and the verbs of the handle. Only this module calls all
//! stages (L1, flights, loads, L2, bus), and so knows their order.
//!
//! | file | idea |
//! | --- | --- |
//! | `builder.rs` | options to a cache |
//! | `handle.rs`, `request.rs`, `outcome.rs`, `guarantees.rs` | the public types |
//! | `state.rs` | what the handles and the loads of one cache share |
//! | `l1_access.rs`, `read.rs`, `load.rs`, `follow.rs`, `flight_context.rs`, `distributed_lock.rs` | reads and loads |
//! | `write.rs` | `set` and the deletes |
//! | `broadcast.rs`, `sink.rs` | what the cache asks of its bus client, and the client of the cache |
//! | `registry.rs` | pattern deletes and lock waiters of the moment |
//! | `close.rs` | the end |

mod broadcast;
mod builder;
mod close;
mod distributed_lock;
mod flight_context;
mod follow;
mod guarantees;
mod handle;
mod l1_access;
mod load;
mod outcome;
mod read;
mod registry;
mod request;
mod sink;
mod state;
mod write;

pub use self::{
    builder::CacheBuilder,
    guarantees::{DeleteAck, Guarantees},
    handle::LazyLayersCache,
    outcome::{Outcome, Source},
    request::{GetOrSet, GetOrSetFuture, SetRequest},
};
