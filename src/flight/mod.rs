//! Single flight: at most one load per key at a time, and the tickets that fence its result.
//!
//! A load holds a [`Ticket`], the only right to fill the cache. A delete (or a set, a pattern
//! delete, a clear) revokes every issued ticket of the key, under the same lock under which L1 is
//! filled. So a value that was loaded before a delete can never be seen after it. The table keeps
//! state for a key only while a ticket of the key is issued.
//!
//! Alternatives considered: a table of generations per key. It grows with every key that was ever
//! deleted.
//!
//! This module knows neither values nor levels: the context and the result of a flight are type
//! parameters, which also lets `model/` check these files under loom.

mod deadlock;
mod shared_result;
mod table;

pub(crate) use self::{
    deadlock::{FlightId, LoadChain, WaitEdge, scope},
    shared_result::Flight,
    table::{FlightTable, Join, Lead, Limits, Ticket},
};
