//! Single flight: the loads of each key, the callers that share them, and the tickets that fence
//! their results.
//!
//! A load holds a [`Ticket`], the only right to fill the cache. A delete (or a set, a pattern
//! delete, a clear) revokes every issued ticket of the key, under the same lock under which L1 is
//! filled. So a value that was loaded before a delete can never be seen after it. The table keeps
//! state for a key only while a ticket of the key is issued, or a caller waits for its next flight.
//!
//! Alternatives considered: a table of generations per key. It grows with every key that was ever
//! deleted.
//!
//! This module knows neither values nor levels: the context and the result of a flight are type
//! parameters, which also lets `model/` check these files under loom.

mod deadlock;
mod key_states;
mod shared_flight;
mod shared_result;
mod table;
mod ticket;

pub(crate) use self::{
    deadlock::{FlightId, LoadChain, WaitEdge, scope},
    key_states::Origin,
    shared_flight::{Flight, Follower},
    shared_result::Wait,
    table::{Attempt, FlightTable, Join, Limits, Role, Survey, Waiter},
    ticket::{Lead, Ticket, TicketValidity},
};
