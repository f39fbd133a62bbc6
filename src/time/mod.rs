//! The clock, and durations in milliseconds.

mod clock;
mod coarse;
mod millis;
pub(crate) mod ticker;

pub use self::clock::{Clock, SystemClock};
pub(crate) use self::{
    clock::MAX_CLOCK_STEP,
    coarse::millis_noticing_suspension,
    millis::{millis, millis_u32},
    ticker::{clock_now, coarse_now},
};
