//! For tests, of this crate and of its users: clocks that a test can move, a shared level that
//! lives in memory and fails on demand, one that fails at random, and a check of what any shared
//! level must do.

mod chaos;
mod clock;
mod conformance;
mod store;

pub use self::{
    chaos::{Chaos, ChaosStore},
    clock::{ManualClock, TokioClock},
    conformance::check_store,
    store::{SharedStore, Weather},
};
