//! The cache: its builder, its handle, and the verbs of the handle. Only this module calls all
//! stages (L1, flights, loads, L2, bus), and so knows their order.

mod builder;
mod bus_access;
mod close;
mod distributed_lock;
mod explain;
mod flight_context;
mod flight_watch;
mod follow;
mod guarantees;
mod handle;
mod l1_access;
mod load;
mod load_end;
mod outcome;
mod read;
mod registry;
mod request;
mod state;
mod write;
mod write_report;

pub use self::{
    builder::CacheBuilder,
    explain::{Explanation, KeyInL1, NextStep, RunningLoad},
    guarantees::{DeleteAck, Guarantees},
    handle::LazyLayersCache,
    outcome::{Outcome, Source},
    request::{GetOrSet, GetOrSetFuture, OutcomeFuture, SetRequest},
    write_report::{BusEffect, L1Effect, L2Effect, WriteReport},
};
