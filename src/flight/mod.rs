//! Single flight: one load per key, and who may write its result.
//!
//! A load holds a [`Ticket`]: the only right there is to fill the cache. A delete (or a set, a
//! pattern, a clear) takes that right from every ticket of the key that is out, under the lock
//! under which fills are made; so what began before a delete can never be seen after it. The
//! table has an entry for a key only while a ticket for it is out: nothing grows with the keys
//! ever deleted, as a table of generations would.
//!
//! Knows neither values nor levels: the context and the result of a flight are parameters, which
//! also lets `model/` check these files under loom.

mod deadlock;
mod shared_result;
mod table;

pub(crate) use self::{
    deadlock::{Link, Node, Waiting, within},
    shared_result::Flight,
    table::{FlightTable, Join, Limits, Ticket},
};
