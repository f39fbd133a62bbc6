//! For tests, of this crate and of its users: clocks that a test can move, and a shared level that
//! lives in memory and fails on demand.

mod clock;
mod store;

pub use self::{
    clock::{ManualClock, TokioClock},
    store::{SharedStore, Weather},
};
