//! The bus client of an instance: it publishes the instance's invalidations, applies those of its
//! peers, and says how far L1 may be trusted.
//!
//! | file | idea |
//! | --- | --- |
//! | `sink.rs` | what the client asks of the cache |
//! | `bus_client.rs` | the client, and the start and the end of its two tasks |
//! | `subscriber.rs` | the task that receives |
//! | `publisher.rs` | the task that sends |
//! | `broadcast.rs` | what callers broadcast: invalidations and values |
//! | `trust.rs` | until when, and since when, entries of L1 are trusted |
//!
//! No call of the client but its two tasks depends on a particular sink: one subscription could
//! serve several caches, each a namespace.

mod broadcast;
mod bus_client;
mod publisher;
mod sink;
mod subscriber;
mod trust;

pub(crate) use self::{broadcast::PendingBroadcast, bus_client::BusClient, sink::Sink};
