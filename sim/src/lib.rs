//! Fleets of this cache in simulated weather.
//!
//! A seed is a history: some instances of the real cache on one runtime with paused time, a shared
//! level and a bus in memory, an origin whose versions only rise, calls and faults at times that
//! the seed says. Everything is written down and then checked against the promises: see
//! [`check`](check::check). The same seed is the same history, bit for bit, so one that fails can
//! be run again, and made shorter.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a simulation that cannot go on may stop"
)]

pub mod check;
pub mod history;
pub mod plan;
mod road;
pub mod shrink;
mod world;

pub use world::run;
