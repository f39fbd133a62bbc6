//! The files of the library, included by path.

#[path = "../../src/flight/shared_result.rs"]
mod shared_result;
#[path = "../../src/flight/table.rs"]
mod table;

pub(crate) use self::table::{FlightTable, Join, Limits};
