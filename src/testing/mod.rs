//! For tests, of this crate and of its users: clocks that a test can move; a shared level and a bus
//! that live in memory and fail on demand; a shared level that fails at random, and checks of what
//! any shared level and any transport must do.

mod bus;
mod chaos;
mod clock;
mod conformance;
mod store;
mod transport_conformance;

pub use self::{
    bus::{BusFaults, BusLink, SharedBus},
    chaos::{Chaos, ChaosStore},
    clock::{ManualClock, TokioClock},
    conformance::check_store,
    store::{SharedStore, StoreFault, StoreSnapshot},
    transport_conformance::check_transport,
};
