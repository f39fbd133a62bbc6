//! The library's own files.

#[path = "../../src/flight/landing.rs"]
mod landing;
#[path = "../../src/flight/table.rs"]
mod table;

pub(crate) use self::table::{FlightTable, Join, Limits};
