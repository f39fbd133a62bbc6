//! The files of the library, included by path.

#[path = "../../src/flight/key_states.rs"]
mod key_states;
#[path = "../../src/flight/shared_flight.rs"]
mod shared_flight;
#[path = "../../src/flight/shared_result.rs"]
mod shared_result;
#[path = "../../src/flight/table.rs"]
mod table;
#[path = "../../src/flight/ticket.rs"]
mod ticket;

pub(crate) use self::{
    key_states::Origin,
    table::{Attempt, FlightTable, Join, Limits},
    ticket::Lead,
};
